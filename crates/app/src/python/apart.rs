//! Where the calls of sites run that would hold up those of others.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::worker::Worker;

/// The longest that a receiving call may hold up those of other sites. Then it is ended, and run again apart.
pub(super) const HOLD_LIMIT: Duration = Duration::from_secs(1);
/// How long a site is kept apart after a call that took too long.
const APART_TIME: Duration = Duration::from_secs(60);

/// The sites that are kept apart, and the worker that their calls share. It is started when it is needed first.
#[derive(Default)]
pub(super) struct Apart {
    pub(super) worker: OnceCell<Worker>,
    sites: Mutex<HashMap<String, Instant>>,
}

impl Apart {
    /// Whether this site is kept apart now.
    pub(super) fn holds(&self, site: &str) -> bool {
        let mut sites = self.sites.lock();
        let now = Instant::now();
        sites.retain(|_, until| *until > now);
        sites.contains_key(site)
    }

    /// Keeps this site apart from now on. Returns whether that is news.
    pub(super) fn put(&self, site: &str) -> bool {
        let mut sites = self.sites.lock();
        sites.insert(site.to_owned(), Instant::now() + APART_TIME).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_site_is_kept_apart_for_a_minute_after_its_last_slow_call() {
        let apart = Apart::default();
        assert!(!apart.holds("east"));
        assert!(apart.put("east"));
        tokio::time::advance(APART_TIME / 2).await;
        assert!(!apart.put("east"));
        tokio::time::advance(APART_TIME * 3 / 4).await;
        assert!(apart.holds("east") && !apart.holds("west"));
        tokio::time::advance(APART_TIME / 4).await;
        assert!(!apart.holds("east"));
    }
}
