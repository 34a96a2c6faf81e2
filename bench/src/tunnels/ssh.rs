//! OpenSSH: `ssh -L` to a private sshd, started again whenever it ends, as autossh or a service manager would.

use super::{Act, Answer, Site, Started, Tunnel, need, version};
use crate::process::output;
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// An ssh client and an sshd.
pub(super) struct Ssh;

impl Tunnel for Ssh {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn settings(&self) -> &'static str {
        "`ssh -N -L` started again a second after it ends, to a private sshd; ServerAliveInterval and \
         ClientAliveInterval 15 s x 3"
    }

    fn version(&self) -> Result<String> {
        need("sshd")?;
        version("ssh", "-V")
    }

    // A session costs a channel each in one connection, which neither end is made for in thousands.
    fn most_sessions(&self) -> usize {
        1000
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let host = keygen(site, "host")?;
        let user = keygen(site, "user")?;
        let known = site.write("known_hosts", &format!("far {host}\n"))?;
        let authorized = site.write("authorized_keys", &format!("{user}\n"))?;
        let config = site.write(
            "sshd_config",
            &format!(
                "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nPermitRootLogin prohibit-password\nAllowTcpForwarding local\n\
                 ClientAliveInterval 15\nClientAliveCountMax 3\n",
                site.link.addr(),
                site.dir.join("host").display(),
                authorized.display(),
            ),
        )?;
        if Path::new("/run").is_dir() && !Path::new("/run/sshd").is_dir() {
            // sshd insists on this empty directory, which its service would have made; only root can, and others may
            // find that sshd works for them without.
            let _ = fs::create_dir("/run/sshd");
        }
        let far = site.program(need("sshd")?, "far").args(["-D", "-e", "-f"]).arg(config);
        let again = r#"while :; do "$@"; sleep 1; done"#;
        let near = site
            .program(need("sh")?, "near")
            .args(["-c", again, "sh"])
            .arg(need("ssh")?)
            .args(["-N", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "HostKeyAlias=far", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3", "-o", "ConnectTimeout=5"])
            .args(["-o", "ExitOnForwardFailure=yes"])
            .args(["-o".to_owned(), format!("UserKnownHostsFile={}", known.display())])
            .args(["-o".to_owned(), format!("IdentityFile={}", site.dir.join("user").display())])
            .args(["-L".to_owned(), format!("{}:{}", site.near.addr(), site.app)])
            .args(["-p".to_owned(), site.relay.port().to_string()])
            .arg(format!("{}@{}", output::<&str>(&need("whoami")?, &[])?, site.relay.ip()));
        site.start(near, far)
    }

    fn perform(&self, act: Act, step: u32, _: &Site, started: &mut Started) -> Result<Answer> {
        match (act, step) {
            // The client has no configuration to read again.
            (Act::Reload, 0) => {
                started.far.as_ref().context("no process")?.signal(Signal::HUP)?;
                Ok(Answer::Again(Duration::from_secs(3)))
            }
            (Act::Reload, _) => Ok(Answer::Done),
            _ => Ok(Answer::Unable),
        }
    }
}

/// Generates a key pair and returns the public key.
fn keygen(site: &Site, name: &str) -> Result<String> {
    let path = site.dir.join(name);
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"].map(AsRef::as_ref);
    output(&need("ssh-keygen")?, &[&arguments[..], &[path.as_os_str()]].concat())?;
    Ok(fs::read_to_string(path.with_extension("pub"))?.trim().to_owned())
}
