//! What is in front of several replicas: it gives each connection to one of them, at random.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Where the connections come from, as those behind it see them.
const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));

pub struct Spread {
    shared: Arc<Shared>,
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    targets: Mutex<Vec<SocketAddr>>,
    connections: Mutex<JoinSet<()>>,
    accepted: AtomicU64,
}

impl Spread {
    pub async fn start(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            targets: Mutex::new(targets),
            connections: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(shared.clone(), listener));
        Self { shared, addr, task }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where connections go from now on; those that exist stay.
    pub fn set_targets(&self, targets: Vec<SocketAddr>) {
        *self.shared.targets.lock() = targets;
    }

    /// Ends all connections that there are.
    pub fn cut(&self) {
        *self.shared.connections.lock() = JoinSet::new();
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let target = {
            let targets = shared.targets.lock();
            // The same ones in each run, and in no order.
            let random = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            targets[random as usize % targets.len()]
        };
        shared.connections.lock().spawn(carry(near, target));
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((SOURCE, 0).into()).unwrap();
    let Ok(mut far) = socket.connect(target).await else { return };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}
