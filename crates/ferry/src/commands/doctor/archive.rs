//! `ferry doctor --bundle`: what somebody who helps needs to know of a tunnel, in one archive, without a secret.
//!
//! Nothing is copied from a file of the user's. Each part is made from values that hold no secret: the configuration as it
//! was understood, whose identity is its public key and whose credentials are paths, and what the admin endpoint tells
//! everybody.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use ferry_config::Tunnel;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::places;

/// The directory in the archive.
const ROOT: &str = "ferry-support";

/// How long the running tunnel may take for one of its answers. The stream of events is read for this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Most of one answer.
const MAX_ANSWER: usize = 16 << 20;

/// An archive that is being written. A file of its name must not exist.
pub(super) struct Archive(tar::Builder<GzEncoder<File>>);

impl Archive {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(tar::Builder::new(GzEncoder::new(file, Compression::default()))))
    }

    pub(super) fn add(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o600);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        header.set_mtime(now.as_secs());
        self.0.append_data(&mut header, format!("{ROOT}/{name}"), contents)
    }

    /// The configuration in force, with the public key in the place of the identity.
    pub(super) fn add_configuration(&mut self, tunnel: &Tunnel) -> anyhow::Result<()> {
        let public = tunnel.clone().with_identity(tunnel.identity.public_key());
        Ok(self.add("configuration.json", &serde_json::to_vec_pretty(&public)?)?)
    }

    /// What the tunnel of this name says, if it runs here.
    pub(super) async fn add_answers(&mut self, tunnel: &Tunnel) -> anyhow::Result<()> {
        let Some(admin) = places::admin(tunnel) else { return Ok(()) };
        let client = reqwest::Client::builder().no_proxy().build()?;
        for (path, name) in [("status", "status.json"), ("metrics", "metrics.txt"), ("events", "events.txt")] {
            let answer = answer(&client, &format!("http://{admin}/{path}")).await;
            self.add(name, &answer)?;
        }
        Ok(())
    }

    /// Of this host: versions, and the limits that a tunnel meets.
    pub(super) fn add_host(&mut self) -> io::Result<()> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}\n"));
        let mut text = format!("ferry {}\n", ferry_tunnel::VERSION);
        for path in ["/proc/version", "/proc/meminfo", "/proc/self/limits", "/proc/net/sockstat"] {
            text += &format!("\n{path}\n{}", read(path));
        }
        for name in ["tcp_rmem", "tcp_wmem", "ip_local_port_range", "tcp_congestion_control"] {
            text += &format!("\n{name} {}", read(&format!("/proc/sys/net/ipv4/{name}")));
        }
        self.add("host.txt", text.as_bytes())
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.0.into_inner()?.finish()?.flush()
    }
}

/// As much of an answer as comes in time, or why there is none.
async fn answer(client: &reqwest::Client, url: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        let mut response = client.get(url).send().await?;
        while let Some(chunk) = response.chunk().await? {
            answer.extend_from_slice(&chunk);
            if answer.len() >= MAX_ANSWER {
                break;
            }
        }
        Ok::<_, reqwest::Error>(())
    };
    let read = tokio::time::timeout(ANSWER_TIMEOUT, read).await;
    match read {
        Ok(Err(error)) if answer.is_empty() => format!("no answer: {error}\n").into_bytes(),
        Err(_) if answer.is_empty() => b"no answer in time\n".to_vec(),
        _ => answer,
    }
}
