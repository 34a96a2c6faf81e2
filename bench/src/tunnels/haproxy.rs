//! HAProxy in TCP mode: TLS with a certificate at both ends, each trusted by the other alone.

use super::certificates::generate;
use super::{Act, Answer, Site, Started, Tunnel, need, version};
use anyhow::Result;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// A pair of HAProxy masters with a worker each.
pub(super) struct Haproxy {
    /// Without it, what is between the two ends is plaintext.
    pub(super) tls: bool,
}

const COMMON: &str = "\
global
  tune.bufsize 65536
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  retries 30
  option clitcpka
  option srvtcpka
  srvtcpka-idle 10s
  srvtcpka-intvl 5s
  srvtcpka-cnt 3
";

impl Tunnel for Haproxy {
    fn name(&self) -> &'static str {
        if self.tls { "haproxy" } else { "haproxy-plain" }
    }

    fn settings(&self) -> &'static str {
        if self.tls {
            "TCP mode, mutual TLS (`verify required`), `tune.bufsize 65536`; time-outs 1 h, 30 connect retries; TCP keep-alive 10 s + 3 x 5 s"
        } else {
            "TCP mode, plaintext, `splice-auto`; otherwise as `haproxy`"
        }
    }

    fn encrypted(&self) -> bool {
        self.tls
    }

    fn version(&self) -> Result<String> {
        version("haproxy", "-v")
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let (near, far) = (generate(site, "near")?, generate(site, "far")?);
        let secured = |own: &Path, other: &Path| {
            let secured = format!(" ssl verify required crt {} ca-file {}", own.display(), other.display());
            if self.tls { secured } else { String::new() }
        };
        // The kernel moves plaintext from socket to socket.
        let common = if self.tls { COMMON.to_owned() } else { format!("{COMMON}  option splice-auto\n") };
        let near_conf = format!(
            "{common}listen app\n  bind {}\n  server far {}{}\n",
            site.near.addr(),
            site.relay,
            secured(&near.pem, &far.certificate),
        );
        let far_conf = format!(
            "{common}listen app\n  bind {}{}\n  server app {}\n",
            site.link.addr(),
            secured(&far.pem, &near.certificate),
            site.app,
        );
        let haproxy = need("haproxy")?;
        site.start(
            site.program(&haproxy, "near").args(["-W", "-f"]).arg(site.write("near.cfg", &near_conf)?),
            site.program(&haproxy, "far").args(["-W", "-f"]).arg(site.write("far.cfg", &far_conf)?),
        )
    }

    fn perform(&self, act: Act, step: u32, _: &Site, started: &mut Started) -> Result<Answer> {
        started.signal_reload(act, step, Signal::USR2, Duration::from_secs(3))
    }
}
