//! A network that exists only in memory and on the runtime's paused clock.
//!
//! Why not turmoil (0.7): what a tunnel has to survive happens to single established connections, and there they
//! cannot be touched. A partition drops segments that nothing sends again, so that it breaks every connection over it
//! for good and tells nobody; there is no cut by FIN or by reset of a connection that both ends hold, no black hole
//! that leaves new connections alone, no bandwidth, and a host's name and address are fixed at its birth. It also steps
//! all hosts by a fixed tick, a millisecond by default, where the paused clock jumps: ten idle minutes would be 600,000
//! steps.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ferry_tunnel::net::{BoxFuture, Listener, Network, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::datagrams::{Datagrams, Socket};
use crate::pipe::{Line, Pipe};
use crate::stream::{Connection, End};

/// A connection inside a host.
const LOOPBACK: Line = Line { latency: Duration::ZERO, rate: 0, buffer: 1024 * 1024, fragile: false };

/// A SYN that is not answered is sent again this much later, then twice as much.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// What becomes of the connections that a partition held up.
#[derive(Clone, Copy, Debug)]
pub enum Heal {
    /// What waited arrives after this long.
    Late(Duration),
    /// Something on the way has forgotten them, and tells.
    Reset,
    /// Something on the way has forgotten them, and does not tell.
    Silent,
}

/// What becomes of lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameService {
    Answers,
    Fails,
    Hangs,
}

/// How dialling went, over the path.
#[derive(Clone, Debug, Default)]
pub struct Dials {
    /// Started and neither failed nor answered to.
    pub now: usize,
    pub most: usize,
    /// When each was started.
    pub started: Vec<Instant>,
}

/// The whole of it. Everything between two hosts goes over one path.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
    datagrams: Arc<Mutex<Datagrams>>,
}

struct State {
    listeners: BTreeMap<SocketAddr, mpsc::UnboundedSender<End>>,
    names: BTreeMap<String, Vec<IpAddr>>,
    name_service: NameService,
    /// Which host is behind an address.
    doors: BTreeMap<IpAddr, IpAddr>,
    line: Line,
    open: bool,
    /// Connections over the path.
    carried: Vec<Weak<Connection>>,
    dials: Dials,
    next_port: u16,
}

impl Net {
    pub fn new(line: Line) -> Self {
        let state = State {
            listeners: BTreeMap::new(),
            names: BTreeMap::new(),
            name_service: NameService::Answers,
            doors: BTreeMap::new(),
            line,
            open: true,
            carried: Vec::new(),
            dials: Dials::default(),
            next_port: 40_000,
        };
        Self { state: Arc::new(Mutex::new(state)), datagrams: Arc::new(Mutex::new(Datagrams::new())) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never locked together with the rest.
    pub fn datagrams(&self) -> MutexGuard<'_, Datagrams> {
        self.datagrams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn line(&self) -> Line {
        self.state().line
    }

    /// Which host is behind an address.
    pub fn door(&self, address: IpAddr) -> Option<IpAddr> {
        self.state().doors.get(&address).copied()
    }

    pub fn host(&self, ip: IpAddr) -> Host {
        self.state().doors.insert(ip, ip);
        Host { net: self.clone(), ip }
    }

    /// From now on `name` is `address`, which leads to `host`.
    pub fn point(&self, name: &str, address: IpAddr, host: IpAddr) {
        let mut state = self.state();
        state.names.insert(name.to_owned(), vec![address]);
        state.doors.insert(address, host);
    }

    /// From now on `name` stands for these, in this order.
    pub fn resolve_to(&self, name: &str, addresses: &[IpAddr]) {
        self.state().names.insert(name.to_owned(), addresses.to_vec());
    }

    pub fn set_name_service(&self, name_service: NameService) {
        self.state().name_service = name_service;
    }

    /// The address leads nowhere any more.
    pub fn remove(&self, address: IpAddr) {
        self.state().doors.remove(&address);
    }

    pub fn set_line(&self, line: Line) {
        self.state().line = line;
        self.each_pipe(|_, pipe| pipe.set_line(line));
    }

    /// Connections over the path that are not closed at both ends.
    pub fn carried(&self) -> Vec<Arc<Connection>> {
        let mut state = self.state();
        state.carried.retain(|connection| connection.strong_count() > 0);
        state.carried.iter().filter_map(Weak::upgrade).collect()
    }

    fn each_pipe(&self, mut each: impl FnMut(usize, &mut Pipe)) {
        for connection in self.carried() {
            connection.pipes().iter_mut().enumerate().for_each(|(index, pipe)| each(index, pipe));
        }
    }

    /// Nothing gets over the path in these directions: from diallers, to diallers. New connections are not made.
    pub fn partition(&self, directions: [bool; 2]) {
        self.state().open = false;
        self.datagrams().stop(directions);
        self.each_pipe(|index, pipe| {
            if directions[index] {
                pipe.stop();
            }
        });
    }

    /// Connections get nothing over the path, and no new ones are made; whatever becomes of datagrams.
    pub fn block_connections(&self, yes: bool) {
        self.state().open = !yes;
        self.each_pipe(|_, pipe| if yes { pipe.stop() } else { pipe.release(Duration::ZERO) });
    }

    /// What goes over the connections that are there waits; new ones are made.
    pub fn hold(&self) {
        self.each_pipe(|_, pipe| pipe.stop());
    }

    /// Whatever has forgotten connections has forgotten from which port datagrams came, too.
    pub fn heal(&self, heal: Heal) {
        self.state().open = true;
        self.datagrams().stop([false; 2]);
        if matches!(heal, Heal::Reset | Heal::Silent) {
            self.datagrams().rebind();
        }
        for connection in self.carried() {
            match heal {
                Heal::Late(delay) => connection.pipes().iter_mut().for_each(|pipe| pipe.release(delay)),
                Heal::Reset => connection.cut(true, true),
                Heal::Silent => connection.blacken(),
            }
        }
    }

    pub fn dials(&self) -> Dials {
        self.state().dials.clone()
    }

    /// Forgets how dialling went so far.
    pub fn reset_dials(&self) {
        self.datagrams().reset_dialled();
        let dials = &mut self.state().dials;
        (dials.most, dials.started) = (dials.now, Vec::new());
    }

    /// How many dials were started, of connections and over datagrams.
    pub fn dialled(&self) -> usize {
        let over_datagrams = self.datagrams().dialled();
        self.state().dials.started.len() + over_datagrams
    }

    fn start_dialling(&self) -> Dialling {
        let dials = &mut self.state().dials;
        dials.now += 1;
        dials.most = dials.most.max(dials.now);
        dials.started.push(Instant::now());
        Dialling(self.clone())
    }

    /// Where a SYN to `address` gets to now, and how long that takes.
    fn route(&self, address: IpAddr) -> Option<(IpAddr, Duration)> {
        let state = self.state();
        let host = state.doors.get(&address).filter(|_| state.open)?;
        Some((*host, state.line.latency))
    }
}

/// A dial that is under way.
pub struct Dialling(Net);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.state().dials.now -= 1;
    }
}

/// A host: its tunnel and the applications beside it.
#[derive(Clone)]
pub struct Host {
    net: Net,
    ip: IpAddr,
}

impl Host {
    pub async fn dial(&self, to: SocketAddr) -> io::Result<End> {
        if to.ip().is_loopback() || to.ip() == self.ip {
            return self.meet(SocketAddr::new(self.ip, to.port()), LOOPBACK, None);
        }
        let dialling = self.net.start_dialling();
        let mut again = SYN_AGAIN;
        let host = loop {
            if let Some((host, latency)) = self.net.route(to.ip()) {
                sleep(latency).await;
                // The answer needs the way back.
                if self.net.route(to.ip()).is_some() {
                    break host;
                }
            }
            sleep(again).await;
            again *= 2;
        };
        let line = self.net.state().line;
        let met = self.meet(SocketAddr::new(host, to.port()), line, Some(dialling));
        sleep(line.latency).await;
        met
    }

    fn meet(&self, at: SocketAddr, line: Line, dialling: Option<Dialling>) -> io::Result<End> {
        let mut state = self.net.state();
        let over_the_path = dialling.is_some();
        let refused = || io::Error::from(ErrorKind::ConnectionRefused);
        // Without the lock: what is dropped here takes it.
        let Some(listener) = state.listeners.get(&at).cloned() else {
            drop(state);
            return Err(refused());
        };
        let (connection, [near, far]) = Connection::open(line, dialling);
        if over_the_path {
            state.carried.push(Arc::downgrade(&connection));
        }
        drop(state);
        listener.send(far).map_err(|_| refused())?;
        Ok(near)
    }

    pub fn listen(&self, at: SocketAddr) -> io::Result<Listening> {
        let mut state = self.net.state();
        let port = if at.port() == 0 { state.next_port } else { at.port() };
        state.next_port += u16::from(at.port() == 0);
        let key = SocketAddr::new(self.ip, port);
        if state.listeners.contains_key(&key) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let (sender, incoming) = mpsc::unbounded_channel();
        state.listeners.insert(key, sender);
        Ok(Listening { net: self.net.clone(), key, incoming })
    }
}

/// A listening socket.
pub struct Listening {
    net: Net,
    key: SocketAddr,
    incoming: mpsc::UnboundedReceiver<End>,
}

impl Listening {
    pub async fn next(&mut self) -> End {
        match self.incoming.recv().await {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let listener = self.net.state().listeners.remove(&self.key);
        drop(listener);
        while let Ok(mut end) = self.incoming.try_recv() {
            end.reset_on_drop();
        }
    }
}

impl Listener for Listening {
    fn register_here(self: Box<Self>) -> Box<dyn Listener> {
        self
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        let from = SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), 1));
        Box::pin(async move { Ok((Box::new(self.next().await) as Box<dyn Stream>, from)) })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.key)
    }
}

impl Network for Host {
    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            if let Ok(ip) = host.parse() {
                return Ok(vec![SocketAddr::new(ip, port)]);
            }
            let (service, known) = {
                let state = self.net.state();
                (state.name_service, state.names.get(&host).cloned())
            };
            match service {
                NameService::Answers => {}
                NameService::Fails => return Err(io::Error::other("the name service does not answer")),
                NameService::Hangs => std::future::pending().await,
            }
            let known = known.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no such name"))?;
            Ok(known.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(self.dial(addr).await?) as Box<dyn Stream>) })
    }

    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let listening = self.listen(addr);
        Box::pin(async move { Ok(Box::new(listening?) as Box<dyn Listener>) })
    }

    fn bind_datagrams(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Ok(Socket::bind(&self.net, self.ip, addr.port())?)
    }
}
