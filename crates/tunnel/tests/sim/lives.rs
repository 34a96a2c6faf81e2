//! Whatever happens to the path, every byte arrives once and in order.

use std::path::Path;
use std::time::Duration;

use ferry_config::{Identity, Prefer};
use tokio::time::{sleep, timeout};

use crate::apps::{Part, Talk};
use crate::datagrams::Weather;
use crate::links::Links;
use crate::net::Heal;
use crate::pipe::Line;
use crate::rng::Rng;
use crate::seeds::for_each_seed;
use crate::world::{BOTH, HOSTS, World, ip};

/// In the quiet time everything has to arrive within this.
const QUIET: Duration = Duration::from_secs(240);

/// The troubles of a life do not last longer.
const LONGEST: Duration = Duration::from_secs(600);

fn random_line(rng: &mut Rng) -> Line {
    Line {
        latency: Duration::from_millis(rng.pick(&[0, 1, 10, 40, 100, 200])),
        rate: rng.pick(&[0, 0, 200_000, 2_000_000]),
        buffer: rng.pick(&[20_000, 200_000, 1_000_000]),
        fragile: rng.chance(50),
    }
}

/// What sessions of a life come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Each says everything, and ends.
    Whole,
    /// One of each session's applications resets it.
    Reset,
    /// They do not end before the quiet time.
    Unfinished,
}

struct Life {
    rng: Rng,
    world: World,
    links: Links,
    /// For what becomes of datagrams: it changes nothing else of what a seed does.
    weather: Rng,
    fate: Fate,
    talks: Vec<Talk>,
    next_key: u64,
    addresses: [u8; 2],
}

impl Life {
    async fn start(seed: u64, fate: Fate) -> Self {
        let mut rng = Rng::new(seed ^ ((fate as u64) << 40));
        let line = random_line(&mut rng);
        // Only the far end can be dialled, or both.
        let dialled = [rng.chance(25), true];
        let every = rng.pick(&[1, 1, 5, 30]);
        let bytes = rng.pick(&[64 << 10, 1 << 30]);
        let buffer = rng.pick(&[64 << 10, 16 << 20]);
        let memory = rng.pick(&[4 << 20, 512 << 20]);
        let liveness = rng.pick(&[5, 15]);
        let over_websockets = rng.chance(30);
        // By a generator of its own: it changes nothing else of what a seed does.
        let mut limit = Rng::new(!seed);
        let paced = limit.chance(20).then(|| limit.pick(&[20_000, 1_000_000]));
        let follows = limit.chance(30);
        let links = match limit.below(100) {
            _ if over_websockets => Links::WebSockets,
            0..=39 => Links::Tcp,
            40..=69 => Links::Quic,
            70..=84 => Links::QuicOrTcp(Prefer::Order),
            _ => Links::QuicOrTcp(Prefer::Auto),
        };
        let world = World::start(line, dialled, |config| {
            config.settings.rotation.every = Duration::from_secs(every);
            config.settings.rotation.bytes = bytes;
            config.settings.resume.buffer = (!follows).then_some(buffer.min(memory));
            config.settings.limits.memory = memory;
            config.settings.liveness = Duration::from_secs(liveness);
            // The path may be gone for minutes before the first link: no session is to be given up for that.
            config.settings.open_timeout = LONGEST;
            config.peers[0].limits.bytes_per_second = paced;
            links.carry(config);
        })
        .await;
        world.net.datagrams().rng = Rng::new(seed);
        let weather = Rng::new(seed.rotate_left(32));
        let mut life = Self { rng, world, links, weather, fate, talks: Vec::new(), next_key: 0, addresses: [1, 2] };
        life.change_weather();
        life
    }

    /// Another session, from either end.
    async fn open(&mut self) {
        let from = self.rng.pick(&BOTH);
        let mut parts = [Part::random(&mut self.rng), Part::random(&mut self.rng)];
        match self.fate {
            Fate::Whole => {
                if let Some(part) = parts.get_mut(self.rng.below(4) as usize) {
                    part.answers = true;
                }
            }
            Fate::Reset => {
                let resetter = self.rng.below(2) as usize;
                parts[resetter].resets = true;
                // The other one does not end its direction before it reads the reset.
                parts[1 - resetter].answers = true;
            }
            Fate::Unfinished => {
                for part in &mut parts {
                    part.bytes = part.bytes.max(1);
                    part.hold = part.hold.min(part.bytes - 1);
                }
            }
        }
        self.next_key += 2;
        let end = self.world.connect(from).await;
        self.talks.push(self.world.apps.talk(end, self.next_key, parts));
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_millis(self.rng.below(most))).await;
    }

    fn change_weather(&mut self) {
        let weather = Weather::random(&mut self.weather);
        self.world.net.datagrams().weather = weather;
    }

    /// As [`trouble`](Self::trouble), for datagrams alone: they come from other ports, or stay away for a while.
    async fn trouble_datagrams(&mut self) {
        self.world.net.datagrams().rebind();
        if self.weather.chance(50) {
            self.world.net.datagrams().block(true);
            let most = self.weather.pick(&[500, 5_000, 40_000]);
            sleep(Duration::from_millis(self.weather.below(most))).await;
            self.world.net.datagrams().block(false);
        }
    }

    /// One or all of the connections over the path.
    fn some(&mut self) -> Vec<std::sync::Arc<crate::stream::Connection>> {
        let mut all = self.world.net.carried();
        if !all.is_empty() && self.rng.chance(60) {
            all = vec![all.swap_remove(self.rng.below(all.len() as u64) as usize)];
        }
        all
    }

    fn random_heal(&mut self) -> Heal {
        match self.rng.below(4) {
            0 | 1 => Heal::Late(Duration::from_millis(self.rng.below(3_000))),
            2 => Heal::Reset,
            _ => Heal::Silent,
        }
    }

    async fn trouble(&mut self) {
        if self.links.have_quic() && self.weather.chance(25) {
            self.trouble_datagrams().await;
        }
        match self.rng.below(100) {
            0..=24 => {
                let (reset, loses) = (self.rng.chance(50), self.rng.chance(70));
                self.some().iter().for_each(|connection| connection.cut(reset, loses));
            }
            25..=34 => self.some().iter().for_each(|connection| connection.blacken()),
            35..=49 => {
                let directions = self.rng.pick(&[[true, true], [true, true], [true, false], [false, true]]);
                self.world.net.partition(directions);
                self.pause(20_000).await;
                let heal = self.random_heal();
                self.world.net.heal(heal);
            }
            50..=57 => {
                let line = random_line(&mut self.rng);
                self.world.net.set_line(line);
                self.change_weather();
            }
            58..=64 => self.move_address(),
            65..=74 => {
                let end = self.rng.pick(&BOTH);
                self.world.tunnel(end).rotate_all();
            }
            75..=81 => self.roll_key().await,
            82..=89 => self.open().await,
            _ => {}
        }
    }

    /// A dialled end gets another address; what goes over the old one goes on, or is cut.
    fn move_address(&mut self) {
        let end = self.rng.pick(&BOTH);
        let (before, host) = (self.addresses[end], ip(end as u8 + 1));
        // Each address is one that was not there before.
        self.addresses[end] += 2;
        self.world.net.point(HOSTS[end], ip(self.addresses[end]), host);
        self.world.net.remove(ip(before));
        if self.rng.chance(50) {
            let heal = self.random_heal();
            self.world.net.heal(heal);
        }
    }

    /// The other end learns an additional key, this one takes it, the other end forgets the old one.
    async fn roll_key(&mut self) {
        let end = self.rng.pick(&BOTH);
        let fresh = Identity::generate().unwrap();
        let (old, new) = (self.world.ids[end].public_key(), fresh.public_key());
        self.world.reload(1 - end, |config| config.peers[0].keys = [old, new].into()).await;
        self.pause(3_000).await;
        self.world.reload(end, |config| config.identity = fresh.clone()).await;
        self.pause(3_000).await;
        self.world.reload(1 - end, |config| config.peers[0].keys = [new].into()).await;
        self.world.ids[end] = fresh;
    }

    async fn troubles(&mut self, most: u64) {
        for _ in 0..3 + self.rng.below(most) {
            self.pause(2_000).await;
            self.trouble().await;
        }
    }

    /// Its process starts once more, with a directory to remember in.
    async fn remember(&mut self, end: usize, state: &Path) {
        self.world.stop_tunnel(end).await;
        self.world.configs[end].state = Some(state.to_owned());
        self.world.start_tunnel(end).await;
    }

    /// The process at `end` dies: its host ends its connections, or is gone without a word.
    async fn crash(&mut self, end: usize) {
        let told = self.rng.chance(50);
        self.world.net.heal(if told { Heal::Reset } else { Heal::Silent });
        self.world.net.partition([true, true]);
        self.world.stop_tunnel(end).await;
        self.world.net.heal(if told { Heal::Reset } else { Heal::Silent });
    }

    /// What has carried the links is what was to carry them; nothing is left.
    async fn rest(&mut self) {
        self.world.rest().await;
        let has_had_datagrams = self.world.net.datagrams().carried() > 0;
        assert!(has_had_datagrams || self.links != Links::Quic, "no link was over QUIC");
        assert!(!has_had_datagrams || self.links.have_quic(), "a link was over QUIC");
    }

    /// Every session ends, at both ends, as a reset.
    async fn reset_within(&mut self, time: Duration) {
        for talk in std::mem::take(&mut self.talks) {
            talk.ends_reset(&self.world.apps, time).await;
        }
    }

    /// Everybody says what is left to say; every byte arrives, and each end of a direction.
    async fn arrive(&mut self) {
        self.world.apps.quiet();
        for talk in std::mem::take(&mut self.talks) {
            let key = talk.key;
            timeout(QUIET, talk.ends_whole()).await.unwrap_or_else(|_| panic!("session {key} has got stuck"));
        }
    }
}

#[test]
fn whatever_happens_to_the_path_every_byte_arrives_once_and_in_order() {
    for_each_seed(200, |seed| async move {
        let mut life = Life::start(seed, Fate::Whole).await;
        let sessions = life.rng.pick(&[1, 1, 2, 4, 8, 20]);
        for _ in 0..sessions {
            life.open().await;
        }
        life.troubles(12).await;
        life.arrive().await;
        life.rest().await;
    });
}

#[test]
fn a_reset_by_an_application_reaches_the_other_one_whatever_happens_to_the_path() {
    for_each_seed(60, |seed| async move {
        let mut life = Life::start(seed, Fate::Reset).await;
        for _ in 0..life.rng.between(1, 5) {
            life.open().await;
        }
        life.troubles(8).await;
        life.world.apps.quiet();
        life.reset_within(QUIET).await;
        life.rest().await;
    });
}

#[test]
fn a_tunnel_that_restarts_ends_its_sessions_at_both_ends_and_serves_new_ones() {
    for_each_seed(100, |seed| async move {
        let state = tempfile::tempdir().unwrap();
        let mut life = Life::start(seed, Fate::Unfinished).await;
        let end = life.rng.pick(&BOTH);
        life.remember(end, state.path()).await;
        let sessions = life.rng.pick(&[1, 2, 5]);
        for _ in 0..sessions {
            life.open().await;
        }
        life.troubles(6).await;
        life.world.apps.attend();
        // Those that nobody has answered yet may be opened by the new process.
        let apps = life.world.apps.clone();
        let waiting: Vec<_> = life.talks.extract_if(.., |talk| apps.is_waiting(talk.key)).collect();
        life.crash(end).await;
        life.world.start_tunnel(end).await;
        life.reset_within(Duration::from_secs(60)).await;
        // A session that goes to the former process meanwhile is lost with it.
        sleep(Duration::from_secs(5)).await;
        life.fate = Fate::Whole;
        life.world.apps.be_busy();
        for _ in 0..sessions {
            life.open().await;
        }
        life.arrive().await;
        for talk in waiting {
            talk.ends_within(&apps, QUIET).await;
        }
        life.rest().await;
    });
}
