//! Two hosts with a tunnel and an application each, and the path between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferry_config as config;
use ferry_config::{Identity, Name, PublicKey};
use ferry_tunnel::Tunnel;

use crate::apps::Apps;
use crate::net::{Host, Net};
use crate::pipe::Line;

pub const NEAR: usize = 0;
pub const FAR: usize = 1;
pub const BOTH: [usize; 2] = [NEAR, FAR];

const NAMES: [&str; 2] = ["a/near", "b/far"];

/// What the ends are called where they are dialled.
pub const HOSTS: [&str; 2] = ["a.sim", "b.sim"];

/// Where an application beside a tunnel listens, and where it connects to.
const APP: u16 = 8000;
const EGRESS: u16 = 18_001;
const LINKS: u16 = 18_000;

pub fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A path without losses or limits: `latency` milliseconds one way.
pub fn line(latency: u64) -> Line {
    Line { latency: Duration::from_millis(latency), rate: 0, buffer: 256 * 1024, fragile: false }
}

pub struct World {
    pub net: Net,
    pub hosts: [Host; 2],
    pub ids: [Identity; 2],
    pub apps: Apps,
    pub configs: [config::Tunnel; 2],
    tunnels: [Option<Tunnel>; 2],
}

impl World {
    /// `dialled`: which ends the other one dials. `adjust` changes both configurations.
    pub async fn start(line: Line, dialled: [bool; 2], adjust: impl Fn(&mut config::Tunnel)) -> Self {
        let net = Net::new(line);
        let hosts = BOTH.map(|end| net.host(ip(end as u8 + 1)));
        BOTH.iter().for_each(|&end| net.point(HOSTS[end], ip(end as u8 + 1), ip(end as u8 + 1)));
        let ids = BOTH.map(|_| Identity::generate().unwrap());
        let keys = BOTH.map(|end| vec![ids[end].public_key()]);
        let configs = BOTH.map(|end| {
            let mut config = template(end, &ids[end], &keys[1 - end], dialled);
            adjust(&mut config);
            config
        });
        let apps = Apps::serve(BOTH.map(|end| hosts[end].listen(loopback(APP)).unwrap()));
        let mut world = Self { net, hosts, ids, apps, configs, tunnels: [None, None] };
        // Whoever is dialled first: no test begins with a second of waiting.
        for end in [FAR, NEAR] {
            world.start_tunnel(end).await;
        }
        world
    }

    pub fn tunnel(&self, end: usize) -> &Tunnel {
        self.tunnels[end].as_ref().expect("it runs")
    }

    pub async fn start_tunnel(&mut self, end: usize) {
        let network = Arc::new(self.hosts[end].clone());
        let tunnel = Tunnel::start_on(network, self.configs[end].clone()).await.unwrap();
        self.tunnels[end] = Some(tunnel);
    }

    /// Ends a tunnel in good order, as far as its configuration gives it time.
    pub async fn stop_tunnel(&mut self, end: usize) {
        if let Some(tunnel) = self.tunnels[end].take() {
            tunnel.drain().await;
            // Its process ends with it, whatever connections have to say yet.
            drop(self.net.datagrams().abandon(ip(end as u8 + 1)));
        }
    }

    /// Puts the end's changed configuration in force.
    pub async fn reload(&mut self, end: usize, adjust: impl FnOnce(&mut config::Tunnel)) {
        adjust(&mut self.configs[end]);
        self.tunnel(end).reload(self.configs[end].clone()).await.unwrap();
    }

    /// Where the application beside tunnel `end` connects to.
    pub async fn connect(&self, end: usize) -> crate::stream::End {
        self.hosts[end].dial(loopback(EGRESS)).await.unwrap()
    }

    /// Every connection over the path is reset, and no new one is made until it heals.
    pub fn cut_off(&self) {
        self.net.partition([true, true]);
        self.net.carried().iter().for_each(|connection| connection.cut(true, true));
    }

    /// Everything has come to its end: no session is left at either tunnel once the resume window is over.
    pub async fn rest(&mut self) {
        for end in BOTH {
            self.reload(end, |config| {
                config.settings.warm_links = config::WarmLinks { own: 0, offered: 0 };
                config.settings.drain = Duration::from_secs(3600);
            })
            .await;
        }
        // An end that missed the other's last word keeps the session for that long.
        tokio::time::sleep(self.configs[NEAR].settings.resume.window + Duration::from_secs(60)).await;
        for end in BOTH {
            let before = tokio::time::Instant::now();
            self.stop_tunnel(end).await;
            let took = before.elapsed();
            assert!(took < Duration::from_secs(10), "tunnel {end} has sessions left: its drain took {took:?}");
        }
        assert_eq!(self.net.carried().len(), 0, "a connection is left");
        // What becomes of a connection that nobody has ended in the other's eyes is over by then.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(self.net.datagrams().held(), 0, "a socket is left");
    }
}

fn template(end: usize, identity: &Identity, keys: &[PublicKey], dialled: [bool; 2]) -> config::Tunnel {
    let peer: Name = NAMES[1 - end].parse().unwrap();
    let address = config::Address::HostPort(format!("{}:{LINKS}", HOSTS[1 - end]).parse().unwrap());
    let service: config::ServiceName = "app".parse().unwrap();
    config::Tunnel {
        name: NAMES[end].parse().unwrap(),
        identity: identity.clone(),
        state: None,
        keeper: None,
        admin: None,
        listen: dialled[end].then(|| (Ipv4Addr::UNSPECIFIED, LINKS).into()),
        listen_quic: None,
        listen_ws: None,
        ws_path: config::WebSocketUrl::PATH.to_owned(),
        ws_max_life: None,
        replicas: Vec::new(),
        peers: vec![config::Peer {
            name: peer.clone(),
            keys: keys.iter().copied().collect(),
            addresses: dialled[1 - end].then_some(address).into_iter().collect(),
            route: config::Route::default(),
            limits: config::EntryLimits::default(),
        }],
        egress: vec![config::Egress {
            listen: loopback(EGRESS),
            peer: peer.clone(),
            service: service.clone(),
            limits: config::EntryLimits::default(),
        }],
        ingress: vec![config::Ingress {
            service,
            forward: format!("127.0.0.1:{APP}").parse().unwrap(),
            allow: [peer].into(),
            proxy_protocol: None,
            limits: config::EntryLimits::default(),
        }],
        settings: config::Settings {
            drain: Duration::ZERO,
            warm_links: config::WarmLinks { own: 1, offered: 1 },
            ..config::Settings::default()
        },
    }
}
