//! What is done to a session while it streams.

use crate::cgroup::{Frozen, is_alive};
use crate::tunnels::{Act, Answer, Site, Started, Tunnel};
use anyhow::{Result, bail};
use ferry_relay::{Cut, Heal, Relay};
use rustix::process::Signal;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

/// Of both ends together.
const UPGRADES: u32 = 10;

/// How long a process hangs before it is left hanging: longer than any tunnel here takes to notice.
const HANG_TIMEOUT: Duration = Duration::from_secs(45);

/// How often it is looked at.
const HANG_INTERVAL: Duration = Duration::from_millis(50);

/// One row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: shows that tunnel and bench work.
    None,
    /// The link's connections end by FIN; new ones pass at once.
    Fin,
    /// The same by RST.
    Rst,
    /// They end by RST, and new ones are refused for so long.
    Cut(Duration),
    /// Nothing passes for so long; then everything does.
    Stall(Duration),
    /// Nothing passes for so long, and the connections from before stay silent for ever.
    BlackHole(Duration),
    /// The address at which the far end is reached changes.
    Address,
    /// The far end's process is told to end, and started again.
    RestartFar,
    /// The near end's process is killed.
    KillNear,
    /// The far end's process is killed.
    KillFar,
    /// The near end's process hangs, until something ends it.
    HangNear,
    /// The far end's process hangs, until something ends it.
    HangFar,
    /// The kernel ends the near end's process for want of memory.
    OomNear,
    /// The kernel ends the far end's process for want of memory.
    OomFar,
    /// Both ends get a new program, several times.
    Upgrade,
    /// Ten rotations, one each second.
    Rotate,
    /// The near end's identity key is replaced, then the old one refused.
    KeyRoll,
    /// Both ends read their configuration again.
    Reload,
}

/// What came of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It happened, and the tunnel was told what it had to be.
    Done,
    /// The tunnel has nothing that this could be done to.
    Inapplicable,
    /// It happened, but the tunnel cannot be told of it.
    Untold,
}

impl Fault {
    /// The matrix's rows.
    pub(crate) const DEFAULT: &str = "none,fin,rst,cut-1s,cut-30s,stall-30s,black-hole-30s,address,restart-far,kill-near,kill-far,oom-near,oom-far,hang-near,hang-far,upgrade,rotate,key-roll,reload";

    /// For how long the path is gone.
    pub(crate) fn length(self) -> Duration {
        match self {
            Self::Cut(length) | Self::Stall(length) | Self::BlackHole(length) => length,
            _ => Duration::ZERO,
        }
    }

    /// What it is, for the reader of the table.
    pub(crate) fn describe(self) -> String {
        let seconds = self.length().as_secs();
        match self {
            Self::None => "no fault".to_owned(),
            Self::Fin => "link cut by FIN".to_owned(),
            Self::Rst => "link cut by RST".to_owned(),
            Self::Cut(_) => format!("link cut, refused for {seconds} s"),
            Self::Stall(_) => format!("stall of {seconds} s, nothing forgotten"),
            Self::BlackHole(_) => format!("black hole of {seconds} s, state lost"),
            Self::Address => "address changes".to_owned(),
            Self::RestartFar => "far tunnel is told to end, and starts again".to_owned(),
            Self::KillNear => "near tunnel is killed".to_owned(),
            Self::KillFar => "far tunnel is killed".to_owned(),
            Self::HangNear => "near tunnel hangs".to_owned(),
            Self::HangFar => "far tunnel hangs".to_owned(),
            Self::OomNear => "near tunnel is killed for want of memory".to_owned(),
            Self::OomFar => "far tunnel is killed for want of memory".to_owned(),
            Self::Upgrade => format!("both tunnels are upgraded, {} times each", UPGRADES / 2),
            Self::Rotate => "keys rotate each second, 10 times".to_owned(),
            Self::KeyRoll => "identity key rolls".to_owned(),
            Self::Reload => "configuration reloads".to_owned(),
        }
    }

    /// Applies the fault and heals it.
    ///
    /// # Errors
    /// When the tunnel fails at what it claims to be able to, or the relay at the machine.
    pub(crate) async fn apply(
        self,
        relay: &Relay,
        tunnel: &dyn Tunnel,
        site: &Site,
        started: &mut Started,
    ) -> Result<Applied> {
        match self {
            Self::None => sleep(Duration::from_secs(1)).await,
            Self::Fin => relay.cut(Cut::Fin),
            Self::Rst => relay.cut(Cut::Rst),
            Self::Cut(length) => {
                relay.refuse(true)?;
                relay.cut(Cut::Rst);
                sleep(length).await;
                relay.refuse(false)?;
            }
            Self::Stall(length) => {
                relay.black_hole();
                sleep(length).await;
                relay.heal(Heal::Resume);
            }
            Self::BlackHole(length) => {
                relay.black_hole();
                sleep(length).await;
                relay.heal(Heal::ResumeNew);
            }
            Self::Address => {
                let addr = relay.move_to(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
                if perform(Act::Moved(addr), tunnel, site, started).await? == Applied::Inapplicable {
                    return Ok(Applied::Untold);
                }
            }
            Self::RestartFar => match &mut started.far {
                Some(far) => block_in_place(|| far.restart(Signal::TERM))?,
                None => return Ok(Applied::Inapplicable),
            },
            Self::KillNear | Self::KillFar => {
                let end = if self == Self::KillNear { &mut started.near } else { &mut started.far };
                match end {
                    Some(end) => block_in_place(|| tunnel.crash(end))?,
                    None => return Ok(Applied::Inapplicable),
                }
            }
            Self::OomNear | Self::OomFar => {
                let end = if self == Self::OomNear { &mut started.near } else { &mut started.far };
                match end {
                    Some(end) => block_in_place(|| tunnel.exhaust(end))?,
                    None => return Ok(Applied::Inapplicable),
                }
            }
            Self::HangNear | Self::HangFar => {
                let end = if self == Self::HangNear { &started.near } else { &started.far };
                let Some(end) = end else { return Ok(Applied::Inapplicable) };
                let hung = tunnel.carriers(end);
                started.frozen.push(Frozen::new(&hung)?);
                let until = Instant::now() + HANG_TIMEOUT;
                while hung.iter().any(|pid| is_alive(*pid)) && Instant::now() < until {
                    sleep(HANG_INTERVAL).await;
                }
            }
            Self::Upgrade => {
                for number in 0..UPGRADES {
                    let applied = perform(Act::Upgrade(number), tunnel, site, started).await?;
                    if applied == Applied::Inapplicable {
                        return Ok(applied);
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Self::Rotate => return perform(Act::Rotate, tunnel, site, started).await,
            Self::KeyRoll => return perform(Act::RollKey, tunnel, site, started).await,
            Self::Reload => return perform(Act::Reload, tunnel, site, started).await,
        }
        Ok(Applied::Done)
    }
}

/// Takes every step of an act.
async fn perform(act: Act, tunnel: &dyn Tunnel, site: &Site, started: &mut Started) -> Result<Applied> {
    for step in 0.. {
        match block_in_place(|| tunnel.perform(act, step, site, started))? {
            Answer::Done => break,
            Answer::Unable => return Ok(Applied::Inapplicable),
            Answer::Again(wait) => sleep(wait).await,
        }
    }
    Ok(Applied::Done)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.length().as_secs();
        match self {
            Self::None => f.write_str("none"),
            Self::Fin => f.write_str("fin"),
            Self::Rst => f.write_str("rst"),
            Self::Cut(_) => write!(f, "cut-{seconds}s"),
            Self::Stall(_) => write!(f, "stall-{seconds}s"),
            Self::BlackHole(_) => write!(f, "black-hole-{seconds}s"),
            Self::Address => f.write_str("address"),
            Self::RestartFar => f.write_str("restart-far"),
            Self::KillNear => f.write_str("kill-near"),
            Self::KillFar => f.write_str("kill-far"),
            Self::HangNear => f.write_str("hang-near"),
            Self::HangFar => f.write_str("hang-far"),
            Self::OomNear => f.write_str("oom-near"),
            Self::OomFar => f.write_str("oom-far"),
            Self::Upgrade => f.write_str("upgrade"),
            Self::Rotate => f.write_str("rotate"),
            Self::KeyRoll => f.write_str("key-roll"),
            Self::Reload => f.write_str("reload"),
        }
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let seconds = |prefix: &str| {
            let seconds = text.strip_prefix(prefix)?.strip_suffix('s')?.parse().ok()?;
            Some(Duration::from_secs(seconds))
        };
        let plain = [
            Self::None,
            Self::Fin,
            Self::Rst,
            Self::Address,
            Self::RestartFar,
            Self::KillNear,
            Self::KillFar,
            Self::HangNear,
            Self::HangFar,
            Self::OomNear,
            Self::OomFar,
            Self::Upgrade,
            Self::Rotate,
            Self::KeyRoll,
            Self::Reload,
        ];
        if let Some(fault) = plain.into_iter().find(|fault| fault.to_string() == text) {
            return Ok(fault);
        }
        let timed = seconds("cut-").map(Self::Cut);
        let timed = timed.or_else(|| seconds("stall-").map(Self::Stall));
        match timed.or_else(|| seconds("black-hole-").map(Self::BlackHole)) {
            Some(fault) => Ok(fault),
            None => bail!("no such fault: {text} (known: {}; any number of seconds)", Self::DEFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_fault_is_read_as_it_is_written() {
        for name in Fault::DEFAULT.split(',') {
            assert_eq!(name.parse::<Fault>().unwrap().to_string(), name);
        }
        assert!("cut-1m".parse::<Fault>().is_err());
    }
}
