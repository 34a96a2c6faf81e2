//! The web-app's metrics.

use std::time::Duration;

use ferry_log::LostLines;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::peer::PeerName;

/// What became of a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TriggerResult {
    Accepted,
    Invalid,
    Denied,
    Failed,
    TooLarge,
    Full,
    Unstored,
    Draining,
}

/// Which hook failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HookName {
    OnTrigger,
    OnReceive,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TriggerLabels {
    pub(crate) result: TriggerResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HookLabels {
    pub(crate) hook: HookName,
}

/// A site that has a name; there are at most as many as a terminator knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SiteLabels {
    site: String,
}

impl From<&PeerName> for SiteLabels {
    fn from(name: &PeerName) -> Self {
        Self { site: name.as_str().to_owned() }
    }
}

impl TriggerResult {
    const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Invalid,
        Self::Denied,
        Self::Failed,
        Self::TooLarge,
        Self::Full,
        Self::Unstored,
        Self::Draining,
    ];
}

impl HookName {
    const ALL: [Self; 2] = [Self::OnTrigger, Self::OnReceive];
}

impl EncodeLabelValue for TriggerResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::Accepted => "accepted",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Full => "full",
            Self::Unstored => "unstored",
            Self::Draining => "draining",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl EncodeLabelValue for HookName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::OnTrigger => "on_trigger",
            Self::OnReceive => "on_receive",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

/// Every metric of a web-app. Help texts are where they are registered, in [`Metrics::new`].
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) triggers: Family<TriggerLabels, Counter>,
    pub(crate) hook_failures: Family<HookLabels, Counter>,
    pub(crate) sent_messages: Counter,
    pub(crate) resent_messages: Counter,
    pub(crate) delivered_messages: Counter,
    pub(crate) refused_messages: Counter,
    pub(crate) received_messages: Counter,
    pub(crate) dead_messages: Counter,
    pub(crate) duplicate_messages: Counter,
    pub(crate) dropped_results: Counter,
    pub(crate) far_connects: Counter,
    pub(crate) turned_away_connections: Counter,
    pub(crate) far_websockets: Gauge,
    pub(crate) stream_websockets: Gauge,
    pub(crate) outbox_messages: Gauge,
    pub(crate) outbox_bytes: Gauge,
    pub(crate) output_messages: Gauge,
    pub(crate) delivery_seconds: Histogram,
    site_connected: Family<SiteLabels, Gauge>,
    site_outbox_messages: Family<SiteLabels, Gauge>,
    site_received_messages: Family<SiteLabels, Counter>,
    site_dead_messages: Family<SiteLabels, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            triggers: Family::default(),
            hook_failures: Family::default(),
            sent_messages: Counter::default(),
            resent_messages: Counter::default(),
            delivered_messages: Counter::default(),
            refused_messages: Counter::default(),
            received_messages: Counter::default(),
            dead_messages: Counter::default(),
            duplicate_messages: Counter::default(),
            dropped_results: Counter::default(),
            far_connects: Counter::default(),
            turned_away_connections: Counter::default(),
            far_websockets: Gauge::default(),
            stream_websockets: Gauge::default(),
            outbox_messages: Gauge::default(),
            outbox_bytes: Gauge::default(),
            output_messages: Gauge::default(),
            delivery_seconds: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
            ]),
            site_connected: Family::default(),
            site_outbox_messages: Family::default(),
            site_received_messages: Family::default(),
            site_dead_messages: Family::default(),
        };
        metrics.register();
        // Each label is there from the start: a rate over a series that appears with its first event misses that event.
        for result in TriggerResult::ALL {
            drop(metrics.triggers.get_or_create(&TriggerLabels { result }));
        }
        for hook in HookName::ALL {
            drop(metrics.hook_failures.get_or_create(&HookLabels { hook }));
        }
        metrics
    }

    /// The one list of names and meanings. Counters get `_total` from the encoder.
    fn register(&mut self) {
        self.registry.register_collector(Box::new(LostLines));
        let r = self.registry.sub_registry_with_prefix("ferry_app");
        r.register("trigger_requests", "Triggers taken or refused, by result", self.triggers.clone());
        r.register("hook_failures", "Runs of a hook that ended in an error", self.hook_failures.clone());
        r.register("sent_messages", "Messages sent for the first time", self.sent_messages.clone());
        r.register("resent_messages", "Messages sent again after a lost WebSocket", self.resent_messages.clone());
        r.register("delivered_messages", "Messages in the far output", self.delivered_messages.clone());
        r.register("refused_messages", "Messages that the far hook kept refusing", self.refused_messages.clone());
        r.register("received_messages", "Messages that entered the output here", self.received_messages.clone());
        r.register("dead_messages", "Messages that the hook here kept refusing", self.dead_messages.clone());
        r.register("duplicate_messages", "Messages received again and ignored", self.duplicate_messages.clone());
        r.register("dropped_results", "Old results dropped from the full output", self.dropped_results.clone());
        r.register("far_connects", "Times the far web-app has been connected", self.far_connects.clone());
        r.register(
            "turned_away_connections",
            "HTTP connections closed at once because too many were open",
            self.turned_away_connections.clone(),
        );
        r.register("far_websockets", "WebSockets to far web-apps: at most one for each", self.far_websockets.clone());
        r.register("stream_websockets", "Clients on /stream", self.stream_websockets.clone());
        r.register("outbox_messages", "Messages accepted and not acknowledged", self.outbox_messages.clone());
        r.register("outbox_bytes", "What the outbox holds, in bytes of its messages", self.outbox_bytes.clone());
        r.register("output_messages", "Results kept in the output", self.output_messages.clone());
        r.register("site_connected", "Whether a site is connected: 1 or 0", self.site_connected.clone());
        r.register("site_outbox_messages", "The part of the outbox for a site", self.site_outbox_messages.clone());
        r.register(
            "site_received_messages",
            "Messages of a site that entered the output here",
            self.site_received_messages.clone(),
        );
        r.register(
            "site_dead_messages",
            "Messages of a site that the hook here kept refusing",
            self.site_dead_messages.clone(),
        );
        r.register("delivery_seconds", "From acceptance to acknowledgement", self.delivery_seconds.clone());
    }

    pub(crate) fn trigger(&self, result: TriggerResult) {
        self.triggers.get_or_create(&TriggerLabels { result }).inc();
    }

    pub(crate) fn hook_failure(&self, hook: HookName) {
        self.hook_failures.get_or_create(&HookLabels { hook }).inc();
    }

    /// A message has entered the output.
    pub(crate) fn received(&self, site: Option<&PeerName>) {
        self.received_messages.inc();
        if let Some(site) = site {
            self.site_received_messages.get_or_create(&site.into()).inc();
        }
    }

    /// A message is dead.
    pub(crate) fn dead(&self, site: Option<&PeerName>) {
        self.dead_messages.inc();
        if let Some(site) = site {
            self.site_dead_messages.get_or_create(&site.into()).inc();
        }
    }

    /// What a site is like now.
    pub(crate) fn show_site(&self, site: &PeerName, connected: bool, outbox: usize) {
        let labels = SiteLabels::from(site);
        self.site_connected.get_or_create(&labels).set(i64::from(connected));
        self.site_outbox_messages.get_or_create(&labels).set(i64::try_from(outbox).unwrap_or(i64::MAX));
        // There from the start, as above.
        drop((self.site_received_messages.get_or_create(&labels), self.site_dead_messages.get_or_create(&labels)));
    }

    pub(crate) fn forget_site(&self, site: &str) {
        let labels = SiteLabels { site: site.to_owned() };
        self.site_connected.remove(&labels);
        self.site_outbox_messages.remove(&labels);
        self.site_received_messages.remove(&labels);
        self.site_dead_messages.remove(&labels);
    }

    pub(crate) fn delivery(&self, age: Duration) {
        self.delivery_seconds.observe(age.as_secs_f64());
    }

    /// The OpenMetrics text of all of them.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
