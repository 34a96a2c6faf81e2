//! Several tunnels of one identity, a tunnel that dials them, and what is carried between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use ferry_golden::hex;
use ferry_session::{Frame, LinkKind, VERSION};
use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::manners::Manners;
use crate::pair::{Site, far_config, near_config, status};
use crate::rogue::{Rogue, preface};
use crate::spread::Spread;
use crate::stream::{check, write_until};
use crate::watch::{PATIENCE, reaches, samples};

/// One of the replicas, and the application beside it.
pub struct Replica {
    pub tunnel: Tunnel,
    pub site: Site,
    pub app: TcpListener,
}

impl Replica {
    pub async fn start(near: &Site, identity: &Site, extra: &str) -> Self {
        let site = Site::with_identity_of(identity);
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tunnel = site.start(&Self::config(near, &app, &[], extra)).await;
        Self { tunnel, site, app }
    }

    pub fn config(near: &Site, app: &TcpListener, others: &[SocketAddr], extra: &str) -> String {
        // Which they are is known once all of them listen: nobody is at the first of these.
        let others = others.iter().map(|other| format!(", \"{other}\"")).collect::<String>();
        let replicas = format!("replicas: [\"127.0.0.1:1\"{others}]\n{extra}");
        far_config(near, app.local_addr().unwrap(), &replicas)
    }

    pub async fn tell(&self, near: &Site, others: &[SocketAddr], extra: &str) {
        let config = self.site.configure(&Self::config(near, &self.app, others, extra));
        self.tunnel.reload(config).await.unwrap();
    }

    pub fn listen(&self) -> SocketAddr {
        self.tunnel.addresses().listen.unwrap()
    }

    pub fn admin(&self) -> SocketAddr {
        self.tunnel.addresses().admin.unwrap()
    }

    pub async fn spliced(&self) -> i64 {
        sample(self.admin(), "ferry_splices{result=\"done\"}").await
    }

    /// What a dialler offers that wants this process: the first eight bytes of a hash of it, which it tells a listed peer.
    pub async fn hint(&self, near: &Site) -> Vec<u8> {
        let mut link = Rogue::dial(self.listen(), &Manners::honest(&near.identity())).await.unwrap();
        link.say(&preface(VERSION, LinkKind::Own)).await;
        let told = link.until(|frame| match frame {
            Frame::Preface(preface) => Some(preface.instance),
            _ => None,
        });
        let hash = digest(&SHA256, &[&b"ferry-to/"[..], &told.await.0].concat());
        format!("ferry-to/{}", hex(&hash.as_ref()[..8])).into_bytes()
    }
}

pub async fn sample(admin: SocketAddr, name: &str) -> i64 {
    samples(admin, name).await.get("").copied().unwrap_or_default()
}

/// A near tunnel, and some replicas of the far one.
pub struct Set {
    pub near: Tunnel,
    pub near_site: Site,
    pub spread: Spread,
    pub replicas: Vec<Replica>,
}

impl Set {
    pub async fn start(count: usize, near_extra: &str, far_extra: &str) -> Self {
        let set = Self::of_strangers(count, near_extra, far_extra).await;
        set.introduce(far_extra).await;
        set
    }

    /// None of the replicas knows where the others are.
    pub async fn of_strangers(count: usize, near_extra: &str, far_extra: &str) -> Self {
        let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
        let replicas = Self::replicas(count, &near_site, &far_site, far_extra).await;
        let spread = Spread::start(replicas.iter().map(Replica::listen).collect()).await;
        Self::dialled_at(spread.addr().to_string(), near_site, &far_site, spread, replicas, near_extra).await
    }

    pub async fn replicas(count: usize, near: &Site, identity: &Site, extra: &str) -> Vec<Replica> {
        let mut replicas = Vec::new();
        for _ in 0..count {
            replicas.push(Replica::start(near, identity, extra).await);
        }
        replicas
    }

    /// `address` is what is in front of the replicas.
    pub async fn dialled_at(
        address: String,
        near_site: Site,
        far_site: &Site,
        spread: Spread,
        replicas: Vec<Replica>,
        extra: &str,
    ) -> Self {
        let near = near_site.start(&near_config(far_site, address, extra)).await;
        Self { near, near_site, spread, replicas }
    }

    /// Tells all of them where all of them are, and waits until each has asked the others.
    pub async fn introduce(&self, extra: &str) {
        let all: Vec<_> = self.replicas.iter().map(Replica::listen).collect();
        for replica in &self.replicas {
            replica.tell(&self.near_site, &all, extra).await;
        }
        for replica in &self.replicas {
            reaches(replica.admin(), "ferry_replicas", all.len() as i64 - 1).await;
        }
    }

    pub fn admin(&self) -> SocketAddr {
        self.near.addresses().admin.unwrap()
    }

    /// A session at this replica: both ends of it. Those that came to another one are closed.
    pub async fn session_at(&self, index: usize) -> (TcpStream, TcpStream) {
        loop {
            let mut app = TcpStream::connect(self.near.addresses().egress[0]).await.unwrap();
            let mut accepts = Vec::new();
            for (at, replica) in self.replicas.iter().enumerate() {
                accepts.push(Box::pin(async move { (at, replica.app.accept().await.unwrap().0) }));
            }
            let ((at, mut service), ..) = futures_util::future::select_all(accepts).await;
            if at == index {
                // Only what is open can rotate.
                service.write_all(b"x").await.unwrap();
                app.read_exact(&mut [0; 1]).await.unwrap();
                return (app, service);
            }
        }
    }

    /// Epochs of the sessions by their ids, and whether all of them have links.
    pub async fn epochs(&self) -> (BTreeMap<String, u64>, bool) {
        let status = status(self.admin()).await;
        let sessions = status["sessions"].as_array().unwrap();
        let epochs = sessions
            .iter()
            .map(|session| (session["id"].as_str().unwrap().to_owned(), session["epoch"].as_u64().unwrap()));
        (epochs.collect(), sessions.iter().all(|session| session["attached"] == true))
    }

    /// Waits until each of the sessions is attached, with a later epoch than `before`.
    pub async fn all_move_on(&self, before: &BTreeMap<String, u64>) {
        let moving = async {
            loop {
                let (now, attached) = self.epochs().await;
                let is_later = |(id, epoch): (&String, &u64)| now.get(id).expect("the session is alive") > epoch;
                if attached && before.iter().all(is_later) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, moving).await.expect("every session has a link and a later epoch");
    }
}

/// Checked streams both ways over some sessions, until they are told to stop.
pub struct Streams {
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<u64>>,
}

impl Streams {
    pub fn start(sessions: impl IntoIterator<Item = (TcpStream, TcpStream)>) -> Self {
        let (stop, mut streams) = (Arc::new(AtomicBool::new(false)), Vec::new());
        for (key, (app, service)) in sessions.into_iter().enumerate() {
            let (up, down) = (2 * key as u64, 2 * key as u64 + 1);
            for (socket, writes, reads) in [(app, up, down), (service, down, up)] {
                let ((read, write), stop) = (socket.into_split(), stop.clone());
                streams.push(tokio::spawn(async move {
                    write_until(write, writes, |_| stop.load(Ordering::Relaxed)).await
                }));
                streams.push(tokio::spawn(check(read, reads)));
            }
        }
        Self { stop, streams }
    }

    /// Ends them; every byte of each must have arrived. How many there were.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut counts = Vec::new();
        for stream in self.streams {
            counts.push(stream.await.unwrap());
        }
        for session in counts.chunks(4) {
            let [up, down_checked, down, up_checked] = session else { panic!("four streams") };
            assert_eq!((up, down), (up_checked, down_checked), "bytes written and bytes checked");
        }
        counts.iter().sum::<u64>() / 2
    }
}
