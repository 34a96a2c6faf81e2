//! stunnel: TLS with a certificate at both ends, each pinned by the other.

use super::certificates::generate;
use super::{Act, Answer, Site, Started, Tunnel, need, version};
use anyhow::Result;
use rustix::process::Signal;
use std::time::Duration;

/// A pair of stunnel processes.
pub(super) struct Stunnel;

const COMMON: &str = "\
foreground = yes
debug = notice
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
socket = l:SO_KEEPALIVE=1
socket = r:SO_KEEPALIVE=1
socket = r:TCP_KEEPIDLE=10
socket = r:TCP_KEEPINTVL=5
socket = r:TCP_KEEPCNT=3
";

impl Tunnel for Stunnel {
    fn name(&self) -> &'static str {
        "stunnel"
    }

    fn settings(&self) -> &'static str {
        "mutual TLS, peers pinned (`verifyPeer`); TCP keep-alive 10 s + 3 x 5 s; idle time-out 12 h (default)"
    }

    fn version(&self) -> Result<String> {
        version("stunnel", "-version")
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let (near, far) = (generate(site, "near")?, generate(site, "far")?);
        let section = |identity: &std::path::Path, trusted: &std::path::Path, accept, connect, client| {
            format!(
                "{COMMON}[app]\nclient = {client}\naccept = {accept}\nconnect = {connect}\ncert = {}\nCAfile = {}\n\
                 verifyPeer = yes\nTIMEOUTconnect = 5\n",
                identity.display(),
                trusted.display(),
            )
        };
        let near_conf = section(&near.pem, &far.certificate, site.near.addr(), site.relay, "yes");
        let far_conf = section(&far.pem, &near.certificate, site.link.addr(), site.app, "no");
        let stunnel = need("stunnel")?;
        site.start(
            site.program(&stunnel, "near").arg(site.write("near.conf", &near_conf)?),
            site.program(&stunnel, "far").arg(site.write("far.conf", &far_conf)?),
        )
    }

    fn perform(&self, act: Act, step: u32, _: &Site, started: &mut Started) -> Result<Answer> {
        started.signal_reload(act, step, Signal::HUP, Duration::from_secs(3))
    }
}
