//! rathole: its server stands beside the application that connects, its client beside the one that is connected to,
//! and the client dials.

use super::certificates::generate;
use super::{Act, Answer, Site, Started, Tunnel, need};
use crate::process::{Program, find, output};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A rathole server and client.
pub(super) struct Rathole {
    pub(super) transport: Transport,
}

/// What is between the two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transport {
    Noise,
    Tls,
    Plain,
}

/// Under the build directory: it is not installed for anybody else.
fn root() -> Result<PathBuf> {
    let bench = std::env::current_exe()?;
    let target = bench.parent().and_then(Path::parent).context("the bench lies in no build directory")?;
    Ok(target.join("peers"))
}

fn program() -> Result<PathBuf> {
    let installed = root()?.join("bin/rathole");
    if installed.is_file() {
        return Ok(installed);
    }
    find("rathole").context("rathole is not installed (--install-peers does it)")
}

/// Compiles rathole from crates.io, gently, unless it is there. Its TLS needs OpenSSL's headers (Debian: libssl-dev).
///
/// # Errors
/// When cargo fails.
pub(crate) fn install() -> Result<()> {
    if program().is_ok() {
        return Ok(());
    }
    // Not `--locked`: what its lock file names no longer compiles with today's Rust.
    let status = Command::new("nice")
        .args(["-n", "10", "cargo", "install", "rathole", "--version", "0.5.0", "-j", "1"])
        .args(["--no-default-features", "--features", "server,client,noise,tls,hot-reload"])
        .arg("--root")
        .arg(root()?)
        .status()?;
    ensure!(status.success(), "cargo install rathole failed");
    Ok(())
}

impl Transport {
    /// The transport's tables of the server's file and of the client's, with fresh keys.
    fn tables(self, rathole: &Path, site: &Site) -> Result<[String; 2]> {
        Ok(match self {
            Self::Noise => {
                let keys = output(rathole, &["--genkey"])?;
                let mut keys = keys.lines().filter(|line| !line.is_empty() && !line.ends_with(':'));
                let (Some(private), Some(public)) = (keys.next(), keys.next()) else { bail!("rathole made no key") };
                [
                    format!("type = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{private}\"\n"),
                    format!("type = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{public}\"\n"),
                ]
            }
            Self::Tls => {
                let identity = generate(site, "near")?;
                let bundle = site.dir.join("near.p12");
                let [pem, out] = [&identity.pem, &bundle].map(|path| path.as_os_str());
                let [export, input, output_to, password] =
                    ["-export", "-in", "-out", "-passout"].map(std::ffi::OsStr::new);
                let arguments =
                    ["pkcs12".as_ref(), export, input, pem, output_to, out, password, "pass:bench".as_ref()];
                output(&need("openssl")?, &arguments)?;
                [
                    format!(
                        "type = \"tls\"\n[server.transport.tls]\npkcs12 = \"{}\"\npkcs12_password = \"bench\"\n",
                        bundle.display()
                    ),
                    format!(
                        "type = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"near\"\n",
                        identity.certificate.display()
                    ),
                ]
            }
            Self::Plain => ["type = \"tcp\"\n".to_owned(), "type = \"tcp\"\n".to_owned()],
        })
    }
}

impl Tunnel for Rathole {
    fn name(&self) -> &'static str {
        match self.transport {
            Transport::Noise => "rathole",
            Transport::Tls => "rathole-tls",
            Transport::Plain => "rathole-plain",
        }
    }

    fn settings(&self) -> &'static str {
        match self.transport {
            Transport::Noise => {
                "noise transport; heartbeat 5 s with a time-out of 15 s, retry each second; the far end dials"
            }
            Transport::Tls => "TLS, the server's certificate checked, the client known by its token; else as `rathole`",
            Transport::Plain => "plaintext; else as `rathole`",
        }
    }

    fn encrypted(&self) -> bool {
        !matches!(self.transport, Transport::Plain)
    }

    fn version(&self) -> Result<String> {
        let text = output(&program()?, &["--version"])?;
        Ok(text.lines().find(|line| line.contains("Version")).unwrap_or(&text).trim().to_owned())
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let rathole = program()?;
        let [server_transport, client_transport] = self.transport.tables(&rathole, site)?;
        let server = format!(
            "[server]\nbind_addr = \"{}\"\ndefault_token = \"bench\"\nheartbeat_interval = 5\n\
             [server.transport]\n{server_transport}[server.services.app]\nbind_addr = \"{}\"\nnodelay = true\n",
            site.link.addr(),
            site.near.addr(),
        );
        let client = format!(
            "[client]\nremote_addr = \"{}\"\ndefault_token = \"bench\"\nheartbeat_timeout = 15\nretry_interval = 1\n\
             [client.transport]\n{client_transport}[client.services.app]\nlocal_addr = \"{}\"\nnodelay = true\n",
            site.relay, site.app,
        );
        let end = |name: &str, text: &str| -> Result<Program> {
            Ok(site.program(&rathole, name).arg(site.write(&format!("{name}.toml"), text)?))
        };
        site.start(end("near", &server)?, end("far", &client)?)
    }

    /// It watches its file and takes up services, without touching the others.
    fn perform(&self, act: Act, step: u32, site: &Site, _: &mut Started) -> Result<Answer> {
        match (act, step) {
            (Act::Reload, 0) => {
                add_service(site, "near", "bind_addr = \"127.0.0.1:0\"")?;
                add_service(site, "far", &format!("local_addr = \"{}\"", site.app))?;
                Ok(Answer::Again(Duration::from_secs(3)))
            }
            (Act::Reload, _) => Ok(Answer::Done),
            _ => Ok(Answer::Unable),
        }
    }
}

fn add_service(site: &Site, end: &str, field: &str) -> Result<()> {
    let role = if end == "near" { "server" } else { "client" };
    let name = format!("{end}.toml");
    let text = fs::read_to_string(site.dir.join(&name))?;
    site.write(&name, &format!("{text}[{role}.services.another]\n{field}\n"))?;
    Ok(())
}
