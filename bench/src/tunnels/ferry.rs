//! Ferry: two `ferry tunnel` processes, the near end dialling.

use super::{Act, Answer, Site, Started, Tunnel};
use crate::cgroup::exhaust_memory;
use crate::process::{Process, output};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Two tunnel processes of ours.
pub(super) struct Ferry {
    name: &'static str,
    /// `rotation.every`, where it is not the default.
    every: Option<&'static str>,
    /// With a keeper, as by default.
    kept: bool,
    /// `congestion`, where it is not the host's default.
    congestion: Option<String>,
    /// What carries its links.
    carrier: Carrier,
    /// How it is watched, if that is what is measured.
    watched: Option<Watched>,
}

/// The far end has an admin endpoint, too.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// Where spans are exported to.
    collector: Option<SocketAddr>,
}

/// What carries the links of a ferry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Tcp,
    WebSocket,
    Quic,
    /// TCP or QUIC, by what is measured.
    Auto,
}

impl Carrier {
    /// The addresses of the far end, as a file has them.
    fn addresses(self, at: SocketAddr) -> String {
        match self {
            Self::Tcp => format!("{at}\n"),
            Self::WebSocket => format!("ws://{at}\n"),
            Self::Quic => format!("quic://{at}\n"),
            Self::Auto => format!("{at}\nquic://{at}\n"),
        }
    }

    /// The keys with which the far end listens.
    fn listens(self, at: SocketAddr) -> String {
        match self {
            Self::Tcp => format!("listen: {at}\n"),
            Self::WebSocket => format!("listen_ws: {at}\n"),
            Self::Quic | Self::Auto => format!("listen: {at}\nlisten_quic: {at}\n"),
        }
    }
}

impl Ferry {
    /// With the defaults.
    pub(super) const DEFAULT: Self =
        Self { name: "ferry", every: None, kept: true, congestion: None, carrier: Carrier::Tcp, watched: None };

    /// Without a keeper.
    pub(super) const BARE: Self = Self { name: "ferry-bare", kept: false, ..Self::DEFAULT };

    /// Rotates `every` so often.
    pub(super) fn rotating(name: &'static str, every: &'static str) -> Self {
        Self { name, every: Some(every), ..Self::DEFAULT }
    }

    /// The key `keeper`, if it is needed.
    fn keeper(&self) -> &'static str {
        if self.kept { "" } else { "keeper: off\n" }
    }

    /// Its links have this congestion control.
    pub(super) fn with_congestion(name: &'static str, congestion: &str) -> Self {
        Self { name, congestion: Some(congestion.to_owned()), ..Self::DEFAULT }
    }

    /// Its links are over QUIC.
    pub(super) fn over_quic(name: &'static str) -> Self {
        Self { name, carrier: Carrier::Quic, ..Self::DEFAULT }
    }

    /// Its links are WebSockets.
    pub(super) fn over_websockets(name: &'static str) -> Self {
        Self { name, carrier: Carrier::WebSocket, ..Self::DEFAULT }
    }

    /// What carries its links is chosen by what is measured.
    pub(super) fn choosing(name: &'static str) -> Self {
        Self { name, carrier: Carrier::Auto, ..Self::DEFAULT }
    }

    /// Both ends may be asked about themselves, and export spans to a collector, if there is one.
    pub(super) fn watched(name: &'static str, collector: Option<SocketAddr>) -> Self {
        Self { name, watched: Some(Watched { collector }), ..Self::DEFAULT }
    }

    /// The keys that are not the defaults.
    fn keys(&self) -> String {
        let rotation = self.every.map(|every| format!("rotation: {{every: {every}}}\n"));
        let congestion = self.congestion.as_ref().map(|name| format!("congestion: {name}\n"));
        rotation.into_iter().chain(congestion).collect()
    }
}

/// A changed file is read within two seconds; this is enough for it and for what follows from it.
const RELOADED: Duration = Duration::from_secs(3);

const ROTATIONS: u32 = 10;

/// `FERRY_BIN`, or the binary that was built beside the bench.
///
/// # Errors
/// When there is none.
pub(crate) fn program() -> Result<PathBuf> {
    let built = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("ferry"));
    let ferry = std::env::var_os("FERRY_BIN").map_or_else(built, |path| Ok(path.into()))?;
    ferry
        .is_file()
        .then_some(ferry)
        .context("ferry is not built (cargo build --release -p ferry, or name it in FERRY_BIN)")
}

/// `FERRY_OTHER_BIN`, which upgrades lead to and back from; without it, they lead from one file to another of the same.
fn other_program() -> Result<PathBuf> {
    std::env::var_os("FERRY_OTHER_BIN").map_or_else(program, |path| Ok(path.into()))
}

/// Puts a program where the tunnels of a site are started from, as package managers do: under another name first.
fn install(site: &Site, program: PathBuf) -> Result<PathBuf> {
    let [new, installed] = ["ferry.new", "ferry"].map(|name| site.dir.join(name));
    std::fs::copy(program, &new)?;
    std::fs::rename(new, &installed)?;
    Ok(installed)
}

impl Tunnel for Ferry {
    fn name(&self) -> &'static str {
        self.name
    }

    fn settings(&self) -> &'static str {
        if self.kept {
            "defaults (rotation 30 s, resume window 10 min, replay buffer 16 MiB, liveness 15 s); the peer's address from a file"
        } else {
            "defaults, with `keeper: off`; the peer's address from a file"
        }
    }

    fn version(&self) -> Result<String> {
        output(&program()?, &["--version"])
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let far = keygen(site, "far")?;
        let near = keygen(site, "near")?;
        site.write("addresses", &self.carrier.addresses(site.relay))?;
        let program = if self.kept { install(site, program()?)? } else { program()? };
        let end = |name: &str, config: PathBuf| -> Result<_> {
            let program = site.program(&program, name).args(["tunnel", "--config"]).arg(config);
            Ok(match self.watched.and_then(|watched| watched.collector) {
                Some(collector) => program.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
                None => program,
            })
        };
        site.start(
            end("near", self.write_near(site, "near", &[&far])?)?,
            end("far", self.write_far(site, &[&near], &["app"])?)?,
        )
    }

    fn rotations(&self, site: &Site) -> Result<Option<u64>> {
        let mut admin = TcpStream::connect(site.admin.addr()).context("the admin endpoint")?;
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        admin.read_to_string(&mut text)?;
        let count = text.lines().find_map(|line| line.strip_prefix("ferry_rotations_total{result=\"done\"} "));
        ensure!(text.starts_with("HTTP/1.1 200"), "the admin endpoint does not tell its metrics");
        // A metric may be absent until it first counts.
        Ok(Some(count.map_or(Ok(0), |count| count.trim().parse())?))
    }

    fn crash(&self, end: &mut Process) -> Result<()> {
        if self.kept { end.kill_children() } else { end.restart(Signal::KILL) }
    }

    fn carriers(&self, end: &Process) -> Vec<u32> {
        if self.kept { end.children() } else { end.family() }
    }

    fn exhaust(&self, end: &mut Process) -> Result<()> {
        exhaust_memory(&self.carriers(end))?;
        if self.kept { Ok(()) } else { end.restart(Signal::KILL) }
    }

    fn perform(&self, act: Act, step: u32, site: &Site, started: &mut Started) -> Result<Answer> {
        match (act, step) {
            (Act::Moved(addr), _) => {
                site.write("addresses", &self.carrier.addresses(addr))?;
                return Ok(Answer::Done);
            }
            (Act::Rotate, ROTATIONS) => return Ok(Answer::Done),
            (Act::Rotate, _) => {
                started.near.as_ref().context("no process")?.signal(Signal::USR1)?;
                return Ok(Answer::Again(Duration::from_secs(1)));
            }
            (Act::RollKey, 0) => {
                let rolled = keygen(site, "rolled")?;
                self.write_far(site, &[&pubkey(site, "near")?, &rolled], &["app"])?;
            }
            (Act::RollKey, 1) => drop(self.write_near(site, "rolled", &[&pubkey(site, "far")?])?),
            (Act::RollKey, 2) => drop(self.write_far(site, &[&pubkey(site, "rolled")?], &["app"])?),
            (Act::Reload, 0) => {
                let more = keygen(site, "more")?;
                self.write_near(site, "near", &[&pubkey(site, "far")?, &more])?;
                self.write_far(site, &[&pubkey(site, "near")?], &["app", "another"])?;
            }
            (Act::Reload, 1) => {
                self.write_near(site, "near", &[&pubkey(site, "far")?])?;
                self.write_far(site, &[&pubkey(site, "near")?], &["app"])?;
            }
            (Act::Upgrade(_), _) if !self.kept => return Ok(Answer::Unable),
            (Act::Upgrade(number), _) => {
                let end = if number.is_multiple_of(2) { &started.near } else { &started.far };
                install(site, if number % 4 < 2 { other_program()? } else { program()? })?;
                end.as_ref().context("no process")?.signal(Signal::USR2)?;
                return Ok(Answer::Done);
            }
            (Act::RollKey | Act::Reload, _) => return Ok(Answer::Done),
            (Act::RotateEvery(every), _) => {
                let changed = Self { every: Some(every), congestion: self.congestion.clone(), ..*self };
                changed.write_near(site, "near", &[&pubkey(site, "far")?])?;
                changed.write_far(site, &[&pubkey(site, "near")?], &["app"])?;
                for end in [&started.near, &started.far].into_iter().flatten() {
                    end.signal(Signal::HUP)?;
                }
                return Ok(Answer::Done);
            }
        }
        Ok(Answer::Again(RELOADED))
    }
}

fn keygen(site: &Site, name: &str) -> Result<String> {
    let key = site.dir.join(format!("{name}.key"));
    output(&program()?, &["keygen".as_ref(), "--out".as_ref(), key.as_os_str()])
}

fn pubkey(site: &Site, name: &str) -> Result<String> {
    output(&program()?, &["pubkey".as_ref(), site.dir.join(format!("{name}.key")).as_os_str()])
}

impl Ferry {
    fn write_near(&self, site: &Site, identity: &str, keys: &[&str]) -> Result<PathBuf> {
        let text = format!(
            "name: bench/near\nidentity: {identity}.key\nadmin: {}\n{}peers:\n  - name: bench/far\n    keys: {keys:?}\n    \
         addresses: [\"file:{}\"]\n{}egress:\n  - {{listen: \"{}\", peer: bench/far, service: app}}\n{}",
            site.admin.addr(),
            self.keeper(),
            site.dir.join("addresses").display(),
            if self.carrier == Carrier::Auto { "    prefer: auto\n" } else { "" },
            site.near.addr(),
            self.keys(),
        );
        site.write("near.yaml", &text)
    }

    fn write_far(&self, site: &Site, keys: &[&str], services: &[&str]) -> Result<PathBuf> {
        let admin = self.watched.map_or(String::new(), |_| format!("admin: {}\n", site.far_admin.addr()));
        let ingress: String = services
            .iter()
            .map(|service| format!("  - {{service: {service}, forward: \"{}\", allow: [bench/near]}}\n", site.app))
            .collect();
        let text = format!(
            "name: bench/far\nidentity: far.key\n{0}{1}{admin}peers:\n  - name: bench/near\n    keys: {keys:?}\n\
         ingress:\n{ingress}{2}",
            self.carrier.listens(site.link.addr()),
            self.keeper(),
            self.keys(),
        );
        site.write("far.yaml", &text)
    }
}
