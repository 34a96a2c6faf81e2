//! A link that can be cut: a TCP proxy between two web-apps.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    target: Arc<watch::Sender<SocketAddr>>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(watch::Sender::new(target));
        let targets = target.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = targets.subscribe();
                let target = *cut.borrow_and_update();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, target }
    }

    /// Cuts every connection; new ones go through.
    pub(crate) fn cut(&self) {
        self.target.send_modify(|_| {});
    }

    /// Cuts every connection; new ones go to `target`.
    pub(crate) fn redirect(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}
