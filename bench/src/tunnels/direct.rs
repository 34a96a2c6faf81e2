//! No tunnel: the application's own TCP connection, through the relay alone.

use super::{Site, Started, Tunnel};
use anyhow::Result;

/// What TCP itself survives.
pub(super) struct Direct;

impl Tunnel for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn settings(&self) -> &'static str {
        "no tunnel: the application's TCP connection itself"
    }

    fn encrypted(&self) -> bool {
        false
    }

    fn version(&self) -> Result<String> {
        Ok("TCP".to_owned())
    }

    fn start(&self, site: &Site) -> Result<Started> {
        Ok(Started { near_addr: site.relay, target: site.app, near: None, far: None, frozen: Vec::new() })
    }
}
