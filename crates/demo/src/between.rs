//! What lies between the two clusters: the path from one tunnel to the other, which the demo breaks in every way it can.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::supervisor::Process;
use ferry_relay::{Cut, Heal, Relay};

/// The silence that an idle link is given up after in the demo, as tunnel.yaml has it. The default is 15 s.
pub(crate) const LIVENESS: &str = "3s";

const BLACK_HOLE: Duration = Duration::from_secs(1);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The path.
#[derive(Debug)]
pub(crate) struct Between {
    relay: Relay,
    /// Where the dialling tunnel reads the address of its peer, at each dial.
    address: PathBuf,
}

/// What happens on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every connection gets an RST at both ends.
    Cut,
    /// Nothing arrives for a while, and then never again on the connections from before.
    BlackHole,
    /// The terminator is at another port.
    Move,
    /// No fault: every session is given fresh keys.
    Rotate,
}

impl Between {
    /// A path to the tunnel at `target`; the file in `dir` says where it begins.
    pub(crate) fn new(target: SocketAddr, dir: &Path) -> anyhow::Result<Self> {
        let relay = Relay::start(ANY_PORT, target).context("cannot put a relay between the tunnels")?;
        let between = Self { address: dir.join("address"), relay };
        between.publish().context("cannot write the peer's address")?;
        Ok(between)
    }

    /// The entry of `addresses` in tunnel.yaml.
    pub(crate) fn address(&self) -> String {
        format!("file:{}", self.address.display())
    }

    /// Lets it happen, and returns once that is over; the tunnels may need longer.
    pub(crate) async fn strike(&self, fault: Fault, dialler: &Process) -> anyhow::Result<()> {
        match fault {
            Fault::Cut => self.relay.cut(Cut::Rst),
            Fault::BlackHole => {
                self.relay.black_hole();
                sleep(BLACK_HOLE).await;
                self.relay.heal(Heal::ResumeNew);
            }
            Fault::Move => {
                self.relay.move_to(ANY_PORT).context("cannot move the address")?;
                self.publish().context("cannot write the new address")?;
            }
            Fault::Rotate => dialler.signal(rustix::process::Signal::USR1)?,
        }
        Ok(())
    }

    /// In one step, so that no dial reads half an address.
    fn publish(&self) -> io::Result<()> {
        let fresh = self.address.with_extension("new");
        fs::write(&fresh, format!("{}\n", self.relay.addr()))?;
        fs::rename(fresh, &self.address)
    }
}

impl Fault {
    /// In the order in which the demo lets them happen.
    pub(crate) const ALL: [Self; 4] = [Self::Cut, Self::BlackHole, Self::Move, Self::Rotate];

    pub(crate) fn sign(self) -> char {
        match self {
            Self::Cut => '✂',
            Self::BlackHole => '●',
            Self::Move => '➜',
            Self::Rotate => '⟳',
        }
    }

    /// By which it is asked for.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Cut => 'c',
            Self::BlackHole => 'b',
            Self::Move => 'm',
            Self::Rotate => 'r',
        }
    }

    /// For the timeline.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Cut => "link cut, RST to both ends",
            Self::BlackHole => "black hole for 1 s, NAT state lost",
            Self::Move => "terminator moved to another port",
            Self::Rotate => "keys rotated by SIGUSR1",
        }
    }

    /// What one should know about it beside that.
    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::Cut => "nothing is left of the TCP connections between the tunnels",
            Self::BlackHole => {
                "neither end is notified; `liveness` is 3s in this demo to keep it short, 15s by default"
            }
            Self::Move => "the address file is rewritten, and read at the next dial",
            Self::Rotate => "a whole new handshake, make before break",
        }
    }
}
