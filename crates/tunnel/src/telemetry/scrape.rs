//! The text of `/metrics`, for whoever asks: the admin endpoint, and what exports it.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::shared::Shared;
use crate::telemetry::limits::Limits;
use crate::telemetry::peers::Peers;

/// Every metric, with what is read when it is asked for.
pub(crate) struct Scrape {
    shared: Arc<Shared>,
    registry: Registry,
}

impl Scrape {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mut registry = Registry::default();
        shared.metrics.register(&mut registry);
        registry.register_collector(Box::new(Peers(shared.clone())));
        registry.register_collector(Box::new(Limits(shared.clone())));
        Self { shared, registry }
    }

    /// In the format of OpenMetrics.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let shared = &self.shared;
        let warm: usize = shared.config().peers.values().map(|peer| peer.pool.counts().ready).sum();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let metrics = &shared.metrics;
        metrics.links_warm.set(gauge(warm as u64));
        metrics.unauthenticated.set(gauge(shared.lobby.taken() as u64));
        metrics.listeners_down.set(gauge(shared.app_listeners.unbound().len() as u64));
        let sessions = shared.sessions.list(usize::MAX);
        let ages = sessions.iter().filter_map(|entry| Some(entry.link()?.1.established.elapsed().as_secs_f64()));
        metrics.oldest_key.set(ages.fold(0.0, f64::max));
        metrics.key_bytes.set(gauge(sessions.iter().map(|entry| entry.key_bytes()).max().unwrap_or(0)));
        metrics.rotation_delay.set(shared.rotations.delay().as_secs_f64());
        metrics.memory_lent.set(gauge(shared.memory.used()));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
