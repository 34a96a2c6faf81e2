//! A path for datagrams between a dialler and a listener, and what can happen on it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

pub struct Path {
    addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    to: Mutex<SocketAddr>,
    /// Nothing gets through to the listener, or back.
    up_is_cut: AtomicBool,
    down_is_cut: AtomicBool,
    passed_up: AtomicUsize,
    /// By source.
    sources: Mutex<HashMap<SocketAddr, Source>>,
    seen: AtomicUsize,
}

/// What stands for a source towards the listener, and what reads from that.
type Source = (Arc<UdpSocket>, JoinHandle<()>);

impl Path {
    pub async fn start(to: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let addr = socket.local_addr().unwrap();
        let state = Arc::new(State {
            to: Mutex::new(to),
            up_is_cut: AtomicBool::new(false),
            down_is_cut: AtomicBool::new(false),
            passed_up: AtomicUsize::new(0),
            sources: Mutex::default(),
            seen: AtomicUsize::new(0),
        });
        tokio::spawn(carry(socket, state.clone()));
        Self { addr, state }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn black_hole(&self, yes: bool) {
        self.state.up_is_cut.store(yes, Ordering::Relaxed);
        self.cut_answers(yes);
    }

    pub fn cut_answers(&self, yes: bool) {
        self.state.down_is_cut.store(yes, Ordering::Relaxed);
    }

    /// An address translator on it forgets everything: what comes next is from other ports.
    pub fn rebind(&self) {
        for (_, (_, reading)) in self.state.sources.lock().drain() {
            reading.abort();
        }
    }

    /// Everything goes to another listener from now on, also what belongs to a connection with the one before.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.state.to.lock() = to;
        self.rebind();
    }

    /// Ports that diallers have used, each counted again after a [`rebind`](Self::rebind).
    pub fn seen(&self) -> usize {
        self.state.seen.load(Ordering::Relaxed)
    }

    pub fn passed_up(&self) -> usize {
        self.state.passed_up.load(Ordering::Relaxed)
    }
}

async fn carry(socket: Arc<UdpSocket>, state: Arc<State>) {
    let mut datagram = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
        if state.up_is_cut.load(Ordering::Relaxed) {
            continue;
        }
        let known = state.sources.lock().get(&from).map(|(towards, _)| towards.clone());
        let towards = match known {
            Some(towards) => towards,
            None => {
                state.seen.fetch_add(1, Ordering::Relaxed);
                let towards = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                let to = *state.to.lock();
                towards.connect(to).await.unwrap();
                let reading = tokio::spawn(carry_back(towards.clone(), socket.clone(), from, state.clone()));
                state.sources.lock().insert(from, (towards.clone(), reading));
                towards
            }
        };
        let _ = towards.send(&datagram[..length]).await;
        state.passed_up.fetch_add(1, Ordering::Relaxed);
    }
}

async fn carry_back(from: Arc<UdpSocket>, through: Arc<UdpSocket>, to: SocketAddr, state: Arc<State>) {
    let mut datagram = [0; 2048];
    loop {
        // An error is what ICMP says of an earlier one.
        let Ok(length) = from.recv(&mut datagram).await else { continue };
        if !state.down_is_cut.load(Ordering::Relaxed) {
            let _ = through.send_to(&datagram[..length], to).await;
        }
    }
}
