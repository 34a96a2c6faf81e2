//! Two honest tunnels with a live session between them, and one peer among the listed ones that breaks the rules.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use ferry_config::Identity;
use ferry_processes::nobody;
use ferry_session::{Accept, Epoch, Frame, Hello, INITIAL_WINDOW, Intent, LinkKind, SessionId};
use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::manners::Manners;
use crate::pair::{Site, echo, near_config};
use crate::rogue::Rogue;
use crate::watch::{PATIENCE, log, reaches};

pub struct Scene {
    pub far: Tunnel,
    pub near: Tunnel,
    /// Listed at the far tunnel as `x/rogue`.
    pub rogue: Identity,
    /// Listed as `y/other`.
    pub other: Identity,
    /// The application of the service `trap`, which both of them may reach.
    trap: TcpListener,
    /// An honest application's connection.
    live: TcpStream,
    /// Their files are watched for as long as they run.
    _sites: [Site; 2],
}

/// Session ids that a rogue uses, and what logs call them.
pub const ID: SessionId = SessionId([0xab; 16]);
pub const ID_LOGGED: &str = "abababab";

impl Scene {
    pub async fn start() -> Self {
        log();
        let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
        let (rogue, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut text = "listen: 127.0.0.1:0\npeers:\n".to_owned();
        let peers = [(near_site.name, near_site.key), ("x/rogue", rogue.public_key()), ("y/other", other.public_key())];
        for (name, key) in peers {
            writeln!(text, "- {{name: {name}, keys: [\"{key}\"]}}").unwrap();
        }
        text += "ingress:\n";
        for (service, forward, allow) in [
            ("echo", echo().await, "a/near"),
            ("trap", trap.local_addr().unwrap(), "x/rogue, y/other"),
            // Nobody listens there.
            ("dead", nobody(), "x/rogue"),
        ] {
            writeln!(text, "- {{service: {service}, forward: \"{forward}\", allow: [{allow}]}}").unwrap();
        }
        let far = far_site.start(&text).await;
        let near = near_site.start(&near_config(&far_site, far.addresses().listen.unwrap(), "")).await;
        let live = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
        let mut scene = Self { far, near, rogue, other, trap, live, _sites: [near_site, far_site] };
        exchange(&mut scene.live).await;
        // All warm links of the honest peer are there: what changes from here on is the rogue's doing.
        reaches(scene.admin(), "ferry_links{role=\"listener\"}", 7).await;
        scene
    }

    /// Where the far tunnel accepts links.
    pub fn port(&self) -> SocketAddr {
        self.far.addresses().listen.unwrap()
    }

    /// The far tunnel's admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.far.addresses().admin.unwrap()
    }

    /// The rogue after its handshake.
    pub async fn rogue(&self) -> Rogue {
        Rogue::dial(self.port(), &Manners::honest(&self.rogue)).await.unwrap()
    }

    /// The rogue with a link that waits for its Hello.
    pub async fn link(&self) -> Rogue {
        self.link_of(&self.rogue).await
    }

    pub async fn link_of(&self, identity: &Identity) -> Rogue {
        let mut link = Rogue::dial(self.port(), &Manners::honest(identity)).await.unwrap();
        link.preface(LinkKind::Own).await;
        link
    }

    /// A session of the rogue's, and its application's connection.
    pub async fn session(&self) -> (Rogue, TcpStream) {
        self.session_of(&self.rogue).await
    }

    pub async fn session_of(&self, identity: &Identity) -> (Rogue, TcpStream) {
        let mut link = self.link_of(identity).await;
        link.say(&hello(ID, 1, Intent::Open, "trap")).await;
        let (app, _) = timeout(PATIENCE, self.trap.accept()).await.expect("it is connected to").unwrap();
        let accept = link.until(|frame| match frame {
            Frame::Accept(accept) => Some(*accept),
            _ => None,
        });
        let Accept { received, window, .. } = accept.await;
        assert!(received == 0 && window >= INITIAL_WINDOW);
        (link, app)
    }

    /// The honest session is untouched, and a new one comes through.
    pub async fn honest_peers_go_on(&mut self) {
        exchange(&mut self.live).await;
        let mut new = TcpStream::connect(self.near.addresses().egress[0]).await.unwrap();
        exchange(&mut new).await;
    }
}

/// A few bytes to an application that sends them back.
pub async fn exchange(app: &mut TcpStream) {
    app.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    timeout(PATIENCE, app.read_exact(&mut answer)).await.expect("the bytes come back").unwrap();
    assert_eq!(&answer, b"hello");
}

/// A new connection to `egress` is reset. That may be told before the client has seen that it was made.
pub async fn is_refused(egress: SocketAddr) {
    match TcpStream::connect(egress).await {
        Ok(mut app) => is_reset(&mut app).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// The connection ends as a reset, not as an end of file.
pub async fn is_reset(app: &mut TcpStream) {
    let mut bytes = [0; 1024];
    loop {
        match timeout(PATIENCE, app.read(&mut bytes)).await.expect("the connection ends") {
            Ok(0) => panic!("a FIN instead of a RST"),
            Ok(_) => {}
            Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

pub fn hello(session: SessionId, epoch: u32, intent: Intent, service: &'static str) -> Frame<'static> {
    Frame::Hello(Hello {
        session,
        epoch: Epoch(epoch),
        intent,
        received: 0,
        window: 1 << 20,
        resume_window: Duration::from_secs(600),
        service: Cow::Borrowed(service),
    })
}
