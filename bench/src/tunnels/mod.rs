//! The tunnels that are compared, each behind [`Tunnel`].

mod certificates;
mod direct;
mod envoy;
mod ferry;
mod haproxy;
mod rathole;
mod socat;
mod ssh;
mod stunnel;

use crate::cgroup::{Frozen, exhaust_memory};
use crate::process::{Process, Program, find, output};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;

pub(crate) use ferry::program as ferry_program;
pub(crate) use rathole::install as install_rathole;

/// Where one run of a tunnel takes place: app, near end, relay, far end, app.
#[derive(Debug)]
pub(crate) struct Site {
    /// Where the near end listens for the application.
    pub(crate) near: Reserved,
    /// Where the relay leads to: the end that is dialled listens there.
    pub(crate) link: Reserved,
    /// Where the end that dials finds the other one.
    pub(crate) relay: SocketAddr,
    /// The application at the far end.
    pub(crate) app: SocketAddr,
    /// Where the near end answers questions about itself, if it can.
    pub(crate) admin: Reserved,
    /// Where the far end does, where it is asked to.
    pub(crate) far_admin: Reserved,
    /// An empty directory for configuration, keys and logs.
    pub(crate) dir: PathBuf,
    /// A process in whose network namespace the far end runs, if that is not this one.
    pub(crate) far_space: Option<u32>,
}

/// A loopback address that nobody else is given while this lives, and on which a process of ours may listen.
#[derive(Debug)]
pub(crate) struct Reserved {
    addr: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    /// Takes a free port.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) fn new() -> Result<Self> {
        Self::on(Ipv4Addr::LOCALHOST)
    }

    /// Takes a free port of an address.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) fn on(ip: Ipv4Addr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Bound and never listening: with this option on both sockets, Linux lets another one bind and listen.
        socket.set_reuseaddr(true)?;
        socket.bind((ip, 0).into())?;
        Ok(Self { addr: socket.local_addr()?, _socket: socket })
    }

    /// The address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Site {
    /// A program whose output goes to `name`.log.
    fn program(&self, path: impl Into<PathBuf>, name: &str) -> Program {
        Program::new(path, self.dir.join(format!("{name}.log")))
    }

    /// Writes a file, whole at any moment also if it is there already, and returns its path.
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let new = self.dir.join(format!("{name}.new"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    }

    /// Starts both ends of a tunnel whose near end listens for the application.
    fn start(&self, near: Program, far: Program) -> Result<Started> {
        let far = match self.far_space {
            Some(pid) => far.within(pid),
            None => far,
        };
        Ok(Started {
            near_addr: self.near.addr(),
            target: self.link.addr(),
            near: Some(Process::start(near)?),
            far: Some(Process::start(far)?),
            frozen: Vec::new(),
        })
    }
}

/// Finds a program or says that it is missing.
fn need(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("{name} is not installed"))
}

/// The first line that a program prints when it is asked for its version.
fn version(name: &str, argument: &str) -> Result<String> {
    let text = output(&need(name)?, &[argument])?;
    Ok(text.lines().find(|line| line.chars().any(|letter| letter.is_ascii_digit())).unwrap_or_default().to_owned())
}

/// A tunnel that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Where the application connects.
    pub(crate) near_addr: SocketAddr,
    /// Where the relay has to lead.
    pub(crate) target: SocketAddr,
    /// The end beside the application that connects, if there is a process.
    pub(crate) near: Option<Process>,
    /// The end beside the application that is connected to.
    pub(crate) far: Option<Process>,
    /// What hangs of them.
    pub(crate) frozen: Vec<Frozen>,
}

impl Started {
    /// What the processes wrote last, for a run that failed.
    pub(crate) fn log_tails(&self) -> String {
        let tails = [&self.near, &self.far].into_iter().flatten().map(Process::log_tail);
        tails.collect::<Vec<_>>().join("\n")
    }
}

impl Started {
    /// Performs [`Act::Reload`] by a signal to both ends and `wait` for what follows, and no other act.
    fn signal_reload(&self, act: Act, step: u32, signal: Signal, wait: Duration) -> Result<Answer> {
        match (act, step) {
            (Act::Reload, 0) => {
                for end in [&self.near, &self.far].into_iter().flatten() {
                    end.signal(signal)?;
                }
                Ok(Answer::Again(wait))
            }
            (Act::Reload, _) => Ok(Answer::Done),
            _ => Ok(Answer::Unable),
        }
    }
}

/// Something that is done to a tunnel while it carries a session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// The relay now listens here.
    Moved(SocketAddr),
    /// New keys for the running session.
    Rotate,
    /// Another identity key at the near end, with the far end told in time.
    RollKey,
    /// The configuration is read again at both ends.
    Reload,
    /// Another program takes the place of the running one: the near end's for an even number, else the far end's.
    Upgrade(u32),
    /// Another `rotation.every` at both ends, in force at once.
    RotateEvery(&'static str),
}

/// What a tunnel made of an [`Act`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has no means for this.
    Unable,
    /// Done.
    Done,
    /// The next step follows after this time.
    Again(Duration),
}

/// A way to carry the application's connection from one end to the other.
pub(crate) trait Tunnel: Send + Sync {
    /// Its name on the command line and in the tables.
    fn name(&self) -> &'static str;

    /// How it is set up, in one sentence: what a reader needs to judge whether that is fair.
    fn settings(&self) -> &'static str;

    /// Its version, or an error that says what is missing.
    ///
    /// # Errors
    /// When a program that it needs is not there.
    fn version(&self) -> Result<String>;

    /// Whether what is between the two ends is encrypted and authenticated.
    fn encrypted(&self) -> bool {
        true
    }

    /// How often sessions have moved to fresh keys so far, if it counts that.
    ///
    /// # Errors
    /// When it should tell and does not.
    fn rotations(&self, site: &Site) -> Result<Option<u64>> {
        let _ = site;
        Ok(None)
    }

    /// As many sessions as it is fair to measure it with; more are left out, and the table says so.
    fn most_sessions(&self) -> usize {
        usize::MAX
    }

    /// Starts both ends.
    ///
    /// # Errors
    /// When something cannot be written or started.
    fn start(&self, site: &Site) -> Result<Started>;

    /// Kills what carries connections at an end, as a crash would; it is started again at once.
    ///
    /// # Errors
    /// When it cannot be started again.
    fn crash(&self, end: &mut Process) -> Result<()> {
        end.restart(Signal::KILL)
    }

    /// The processes of an end that carry connections.
    fn carriers(&self, end: &Process) -> Vec<u32> {
        end.family()
    }

    /// Has the kernel end what carries connections at an end for want of memory; it is started again at once.
    ///
    /// # Errors
    /// When it cannot be started again, or not be ended so on this machine.
    fn exhaust(&self, end: &mut Process) -> Result<()> {
        exhaust_memory(&self.carriers(end))?;
        end.restart(Signal::KILL)
    }

    /// Takes step `step` of `act`, from 0.
    ///
    /// # Errors
    /// When the step fails.
    fn perform(&self, act: Act, step: u32, site: &Site, started: &mut Started) -> Result<Answer> {
        let _ = (act, step, site, started);
        Ok(Answer::Unable)
    }
}

/// All tunnels, ours first.
pub(crate) fn all() -> Vec<Arc<dyn Tunnel>> {
    vec![
        Arc::new(ferry::Ferry::DEFAULT),
        Arc::new(rathole::Rathole { transport: rathole::Transport::Noise }),
        Arc::new(stunnel::Stunnel),
        Arc::new(haproxy::Haproxy { tls: true }),
        Arc::new(ssh::Ssh),
        Arc::new(socat::Socat),
        Arc::new(direct::Direct),
    ]
}

/// All tunnels whose cost is compared: variants that survive no more than others may still be faster.
pub(crate) fn priced() -> Vec<Arc<dyn Tunnel>> {
    let mut tunnels = all();
    let more: [Arc<dyn Tunnel>; 4] = [
        Arc::new(envoy::Envoy),
        Arc::new(haproxy::Haproxy { tls: false }),
        Arc::new(rathole::Rathole { transport: rathole::Transport::Tls }),
        Arc::new(rathole::Rathole { transport: rathole::Transport::Plain }),
    ];
    tunnels.extend(more);
    // What encrypts comes first, and what tunnels nothing last.
    tunnels.sort_by_key(|tunnel| (!tunnel.encrypted(), tunnel.name() == "direct"));
    tunnels
}

/// Ferry as it is, and without a keeper.
pub(crate) fn kept_and_bare() -> [Arc<dyn Tunnel>; 2] {
    [Arc::new(ferry::Ferry::DEFAULT), Arc::new(ferry::Ferry::BARE)]
}

/// The name of ferry with its key `congestion`.
pub(crate) const CONGESTION: &str = "ferry-congestion";

/// Ferry with that key.
pub(crate) fn with_congestion(name: &str) -> Arc<dyn Tunnel> {
    Arc::new(ferry::Ferry::with_congestion(CONGESTION, name))
}

/// The name of ferry over QUIC.
pub(crate) const QUIC: &str = "ferry-quic";

/// Ferry with links over QUIC.
pub(crate) fn over_quic() -> Arc<dyn Tunnel> {
    Arc::new(ferry::Ferry::over_quic(QUIC))
}

/// The names of ferry over WebSockets without a TLS around them, and of the one that chooses.
pub(crate) const WEBSOCKET: &str = "ferry-ws";
pub(crate) const AUTO: &str = "ferry-auto";

/// Those whose speed over long paths is compared: ferry by all that carries its links, then others.
pub(crate) fn far_apart() -> Vec<Arc<dyn Tunnel>> {
    vec![
        Arc::new(ferry::Ferry::DEFAULT),
        Arc::new(ferry::Ferry::over_websockets(WEBSOCKET)),
        over_quic(),
        Arc::new(ferry::Ferry::choosing(AUTO)),
        Arc::new(stunnel::Stunnel),
        Arc::new(haproxy::Haproxy { tls: true }),
        Arc::new(haproxy::Haproxy { tls: false }),
        Arc::new(direct::Direct),
    ]
}

/// Ferry with an admin endpoint at both ends, which exports spans to a collector, if there is one.
pub(crate) fn watched(collector: Option<SocketAddr>) -> Arc<dyn Tunnel> {
    Arc::new(ferry::Ferry::watched("ferry", collector))
}

/// Ferry with another interval of rotation, under a name of its own.
pub(crate) fn rotating(name: &'static str, every: &'static str) -> Arc<dyn Tunnel> {
    Arc::new(ferry::Ferry::rotating(name, every))
}
