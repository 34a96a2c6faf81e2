//! socat, plaintext: one process per end, one fork per connection.

use super::{Site, Started, Tunnel, need, version};
use anyhow::Result;
use std::net::SocketAddr;

/// A pair of socat processes.
pub(super) struct Socat;

impl Tunnel for Socat {
    fn name(&self) -> &'static str {
        "socat"
    }

    fn settings(&self) -> &'static str {
        "plaintext pair, buffers of 64 KiB (`-b 65536`); `TCP-LISTEN,fork` (backlog 4096) to `TCP` with keepalive, connects retried each second; half-close kept for 60 s"
    }

    fn encrypted(&self) -> bool {
        false
    }

    fn version(&self) -> Result<String> {
        version("socat", "-V")
    }

    // A session costs two processes each.
    fn most_sessions(&self) -> usize {
        1000
    }

    fn start(&self, site: &Site) -> Result<Started> {
        let socat = need("socat")?;
        let pair = |name, listen: SocketAddr, to: SocketAddr| {
            site.program(&socat, name)
                // With its default of 8 KiB it is three times slower.
                .args(["-b", "65536", "-t", "60"])
                .arg(format!(
                    "TCP-LISTEN:{},bind={},fork,reuseaddr,backlog=4096,nodelay,keepalive",
                    listen.port(),
                    listen.ip()
                ))
                .arg(format!("TCP:{to},nodelay,keepalive,keepidle=10,keepintvl=5,keepcnt=3,retry=30,interval=1"))
        };
        site.start(pair("near", site.near.addr(), site.relay), pair("far", site.link.addr(), site.app))
    }
}
