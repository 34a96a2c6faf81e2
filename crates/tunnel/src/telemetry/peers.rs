//! What the metrics tell of each peer: read when they are asked for, because peers come and go with the configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::peer::Peer;
use crate::shared::Shared;

/// Collector for `ferry_peer_…`, each with the peer's name as label.
pub(crate) struct Peers(pub(crate) Arc<Shared>);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

impl Collector for Peers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let config = self.0.config();
        let mut gauge = |name, help, value: &dyn Fn(&Peer) -> i64| -> Result<(), fmt::Error> {
            let zero = ConstGauge::new(0_i64);
            let mut family = encoder.encode_descriptor(name, help, None, zero.metric_type())?;
            for peer in config.peers.values() {
                let labels = [("peer", peer.name.as_str())];
                ConstGauge::new(value(peer)).encode(family.encode_family(&labels)?)?;
            }
            Ok(())
        };
        gauge("ferry_peer_reachable", "Whether the peer can be reached now, as far as is known", &|peer| {
            i64::from(peer.is_reachable())
        })?;
        gauge("ferry_peer_sessions", "Sessions with the peer alive now", &|peer| {
            i64::try_from(peer.sessions.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
        })
    }
}
