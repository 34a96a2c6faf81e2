//! Two tunnels on loopback, and applications beside them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_config::{Identity, PublicKey};
use ferry_tunnel::Tunnel;
use ferry_tunnel::net::Tcp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::watch;

/// Where one tunnel's files are.
pub struct Site {
    dir: TempDir,
    pub name: &'static str,
    pub key: PublicKey,
}

impl Site {
    pub fn new(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::generate().unwrap();
        identity.write_new(&dir.path().join("identity.key")).unwrap();
        Self { dir, name, key: identity.public_key() }
    }

    /// Another one of the same name and identity.
    pub fn with_identity_of(other: &Self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        other.identity().write_new(&dir.path().join("identity.key")).unwrap();
        Self { dir, name: other.name, key: other.key }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn identity(&self) -> Identity {
        Identity::load(&self.path().join("identity.key")).unwrap()
    }

    pub fn config_path(&self) -> PathBuf {
        self.path().join("tunnel.yaml")
    }

    /// Writes `tunnel.yaml`: name and identity, then `rest`.
    pub fn configure(&self, rest: &str) -> ferry_config::Tunnel {
        let text = format!("name: {}\nidentity: identity.key\nadmin: 127.0.0.1:0\n{rest}", self.name);
        std::fs::write(self.config_path(), text).unwrap();
        ferry_config::load(&self.config_path()).unwrap_or_else(|report| panic!("{report}")).tunnel
    }

    pub async fn start(&self, rest: &str) -> Tunnel {
        let config = self.configure(rest);
        if watch::keeps_log() {
            // Worker threads would log elsewhere.
            return Tunnel::start_on(Arc::new(Tcp), config).await.unwrap();
        }
        Tunnel::start(config).await.unwrap()
    }
}

/// An initiator whose application connects to `app()`, and a terminator that forwards to `forward`.
pub struct Pair {
    pub near: Tunnel,
    pub far: Tunnel,
    pub near_site: Site,
    pub far_site: Site,
}

impl Pair {
    pub async fn start(forward: SocketAddr) -> Self {
        Self::start_with(forward, "").await
    }

    /// `extra` is added to both configurations.
    pub async fn start_with(forward: SocketAddr, extra: &str) -> Self {
        let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
        let far = far_site.start(&far_config(&near_site, forward, extra)).await;
        let near = near_site.start(&near_config(&far_site, far.addresses().listen.unwrap(), extra)).await;
        Self { near, far, near_site, far_site }
    }

    pub fn app(&self) -> SocketAddr {
        self.near.addresses().egress[0]
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.app()).await.unwrap()
    }
}

pub fn far_config(near: &Site, forward: SocketAddr, extra: &str) -> String {
    let mut text = "listen: 127.0.0.1:0\n".to_owned();
    writeln!(text, "peers: [{{name: {}, keys: [\"{}\"]}}]", near.name, near.key).unwrap();
    writeln!(text, "ingress: [{{service: echo, forward: \"{forward}\", allow: [{}]}}]", near.name).unwrap();
    text + extra
}

pub fn near_config(far: &Site, address: impl std::fmt::Display, extra: &str) -> String {
    let mut text = String::new();
    writeln!(text, "peers: [{{name: {}, keys: [\"{}\"], addresses: [\"{address}\"]}}]", far.name, far.key).unwrap();
    writeln!(text, "egress: [{{listen: \"127.0.0.1:0\", peer: {}, service: echo}}]", far.name).unwrap();
    text + extra
}

/// An application that sends back what it gets.
pub async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    addr
}

/// One request to an admin endpoint; status and body.
pub async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// What an admin endpoint says in `/status`.
pub async fn status(admin: SocketAddr) -> serde_json::Value {
    let (code, body) = get(admin, "/status").await;
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}
