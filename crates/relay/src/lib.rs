//! A small TCP relay that injects faults: what lies between two tunnels, under a test's control; and a [`Pattern`] of
//! bytes that tells what became of a stream there.
//!
//! A [`Relay`] listens on one address and carries every connection to its target, byte for byte: a half-close stays a
//! half-close, a reset stays a reset. Each method holds at once for the connections that exist, and for those to come,
//! also for those that the kernel has accepted and the relay has not seen yet. So a test needs no pause between a
//! client's `connect` and [`Relay::cut`], nor between a cut and the next `connect`.
//!
//! What it cannot show: a sender's kernel always sees its bytes acknowledged by the relay, so a black hole stops bytes
//! and ends, but not TCP's own acknowledgements; and a `connect` succeeds at once whatever the delay (the connection's
//! first byte waits the round trip that the handshake would have taken).

mod connection;
mod control;
mod line;
mod pattern;

pub use control::{Cut, Heal, Stats};
pub use pattern::{Checker, Pattern, Tally};

use connection::Connection;
use control::Control;
use socket2::SockRef;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Connections that may wait to be accepted; a storm of them must not be thinned out here.
const LISTEN_BACKLOG: u32 = 4096;

/// How long the relay waits when the process has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A relay between an address of its own and a target. Dropping it ends its listener and its connections.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    acceptor: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    control: watch::Sender<Control>,
    stats: Arc<watch::Sender<Stats>>,
    gate: Mutex<Gate>,
    runtime: Handle,
}

/// Where connections come in. One lock covers accepting and numbering, so that each connection is before or after a
/// cut and never in between.
#[derive(Debug)]
struct Gate {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// Bound and not listening: they keep the relay's addresses, old ones too, from being given to anybody else.
    reserved: Vec<TcpSocket>,
    next: u64,
    connections: JoinSet<()>,
}

impl Relay {
    /// Listens on `listen` (port 0: any free one) and carries what connects there to `target`.
    ///
    /// # Errors
    /// Those of binding the address.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(listen: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let (reserved, address) = reserve(listen)?;
        let shared = Arc::new(Shared {
            control: watch::Sender::new(Control::new(target)),
            stats: Arc::new(watch::Sender::new(Stats::default())),
            gate: Mutex::new(Gate {
                address,
                listener: Some(open(address)?),
                reserved: vec![reserved],
                next: 0,
                connections: JoinSet::new(),
            }),
            runtime: Handle::current(),
        });
        let acceptor = tokio::spawn(accept(shared.clone())).abort_handle();
        Ok(Self { shared, acceptor })
    }

    /// The address to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.shared.gate().address
    }

    /// What has been carried so far.
    pub fn stats(&self) -> Stats {
        *self.shared.stats.borrow()
    }

    /// Waits until what has been carried meets a condition.
    pub async fn wait_for(&self, condition: impl FnMut(&Stats) -> bool) -> Stats {
        let mut stats = self.shared.stats.subscribe();
        // The sender lives as long as `self`.
        stats.wait_for(condition).await.map_or_else(|_| Stats::default(), |stats| *stats)
    }

    /// Where connections accepted from now on go; those that exist stay where they are.
    pub fn set_target(&self, target: SocketAddr) {
        let mut gate = self.shared.gate();
        self.shared.take_in(&mut gate);
        self.shared.change(|control| control.target = target);
    }

    /// Ends all current connections, on both sides. What they had on the way is lost.
    pub fn cut(&self, cut: Cut) {
        let mut gate = self.shared.gate();
        self.shared.end_all(&mut gate, cut);
    }

    /// While true, nobody listens: who connects is refused. The address stays the relay's.
    ///
    /// # Errors
    /// Those of listening again.
    pub fn refuse(&self, refuse: bool) -> io::Result<()> {
        let mut gate = self.shared.gate();
        if refuse {
            self.shared.take_in(&mut gate);
            gate.listener = None;
        } else if gate.listener.is_none() {
            let _runtime = self.shared.runtime.enter();
            gate.listener = Some(open(gate.address)?);
            self.shared.change(|_| ());
        }
        Ok(())
    }

    /// Silently stops everything in both directions: bytes, ends and resets. A new connection is accepted and then
    /// just as silent. [`Relay::heal`] ends it.
    pub fn black_hole(&self) {
        let mut gate = self.shared.gate();
        self.shared.take_in(&mut gate);
        self.shared.change(|control| control.black_hole = control.black_hole.or(Some(gate.next)));
    }

    /// Ends a black hole; `heal` says what becomes of the connections that it swallowed.
    pub fn heal(&self, heal: Heal) {
        let mut gate = self.shared.gate();
        self.shared.take_in(&mut gate);
        let all = gate.next;
        match heal {
            Heal::Resume => {}
            Heal::ResumeNew => self.shared.silence(|control| control.black_hole.unwrap_or(0)),
            Heal::Silent => self.shared.silence(|_| all),
            Heal::Reset => self.shared.end_all(&mut gate, Cut::Rst),
        }
        self.shared.change(|control| control.black_hole = None);
    }

    /// Lets everything arrive `one_way` later, in each direction, at any throughput up to 64 MiB on the way. A new
    /// connection's first byte waits one round trip more, as for a handshake.
    pub fn delay(&self, one_way: Duration) {
        self.shared.change(|control| control.delay = one_way);
    }

    /// Bytes a second that each direction of each connection may carry; `None`: any number.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared.change(|control| control.rate = bytes_per_second);
    }

    /// Changes the address: the old one refuses, its connections are reset, the new one is returned.
    ///
    /// # Errors
    /// Those of binding the new address; nothing has changed then.
    pub fn move_to(&self, listen: SocketAddr) -> io::Result<SocketAddr> {
        let _runtime = self.shared.runtime.enter();
        let mut gate = self.shared.gate();
        let (reserved, address) = reserve(listen)?;
        let listener = gate.listener.is_some().then(|| open(address)).transpose()?;
        self.shared.end_all(&mut gate, Cut::Rst);
        gate.address = address;
        gate.listener = listener;
        gate.reserved.push(reserved);
        self.shared.change(|_| ());
        Ok(address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.acceptor.abort();
        let mut gate = self.shared.gate();
        gate.listener = None;
        gate.reserved.clear();
        gate.connections.abort_all();
    }
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every connection, and the acceptor.
    fn change(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
    }

    fn end_all(&self, gate: &mut Gate, cut: Cut) {
        self.take_in(gate);
        self.change(|control| (control.cut_below, control.cut) = (gate.next, cut));
    }

    /// Nothing flows any more on connections below a number.
    fn silence(&self, below: impl FnOnce(&Control) -> u64) {
        self.change(|control| control.silent_below = below(control).max(control.silent_below));
    }

    /// Starts the connections that the kernel has accepted and the acceptor has not fetched yet.
    fn take_in(&self, gate: &mut Gate) {
        let _runtime = self.runtime.enter();
        while let Some(listener) = &gate.listener
            && let Ok((socket, _)) = SockRef::from(listener).accept()
        {
            let stream = StdStream::from(socket);
            let accepted = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(accepted) = accepted {
                self.begin(gate, accepted);
            }
        }
    }

    fn begin(&self, gate: &mut Gate, accepted: TcpStream) {
        let number = gate.next;
        gate.next += 1;
        self.stats.send_modify(|stats| {
            stats.accepted += 1;
            stats.open += 1;
        });
        let connection = Connection::new(number, self.control.subscribe(), self.stats.clone());
        gate.connections.spawn_on(connection.run(accepted), &self.runtime);
        while gate.connections.try_join_next().is_some() {}
    }

    /// Accepts one connection and starts it, in one step.
    fn poll_begin(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gate = self.gate();
        let Some(listener) = &gate.listener else {
            return Poll::Pending;
        };
        listener.poll_accept(context).map_ok(|(accepted, _)| self.begin(&mut gate, accepted))
    }
}

/// Accepts for as long as the relay lives; a changed gate is looked at anew.
async fn accept(shared: Arc<Shared>) {
    let mut control = shared.control.subscribe();
    loop {
        tokio::select! {
            _ = control.changed() => {}
            begun = poll_fn(|context| shared.poll_begin(context)) => if begun.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            },
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn reserve(listen: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let reserved = socket(listen)?;
    let address = reserved.local_addr()?;
    Ok((reserved, address))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    socket(address)?.listen(LISTEN_BACKLOG)
}
