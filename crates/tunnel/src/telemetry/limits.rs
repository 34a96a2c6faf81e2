//! What `/status` and the metrics tell of the limits of single entries: read when they are asked for.

use std::fmt;
use std::sync::Arc;

use ferry_session::Time;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;

use crate::limits::bucket::Bucket;
use crate::limits::entries::{Limit, Rate};
use crate::shared::Shared;
use crate::telemetry::metrics::Direction;

/// One entry that has a limit.
#[derive(Serialize)]
pub(crate) struct LimitStatus {
    scope: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<SessionsStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<RateStatus>,
}

#[derive(Serialize)]
struct SessionsStatus {
    used: u32,
    limit: u32,
    refused: u64,
}

#[derive(Serialize)]
struct RateStatus {
    limit: u64,
    sent: PaceStatus,
    received: PaceStatus,
}

/// Bytes in the last second, and the sessions that are held back now.
#[derive(Serialize)]
struct PaceStatus {
    used: u64,
    waiting: u64,
}

impl PaceStatus {
    fn of(bucket: &Mutex<Bucket>, now: Time) -> Self {
        let bucket = bucket.lock();
        Self { used: bucket.used(now), waiting: bucket.held_back() }
    }
}

impl RateStatus {
    fn of(rate: &Rate, now: Time) -> Self {
        let (sent, received) = (PaceStatus::of(&rate.sent, now), PaceStatus::of(&rate.received, now));
        Self { limit: rate.sent.lock().rate(), sent, received }
    }

    fn pace(&self, direction: Direction) -> &PaceStatus {
        match direction {
            Direction::Sent => &self.sent,
            Direction::Received => &self.received,
        }
    }
}

/// Of each entry that has a limit.
pub(crate) fn limits(shared: &Shared) -> Vec<LimitStatus> {
    let (config, now) = (shared.config(), shared.now());
    let of = |limit: &Arc<Limit>| {
        let usage = limit.usage();
        let sessions = usage.max_sessions;
        let sessions = sessions.map(|limit| SessionsStatus { used: usage.sessions, limit, refused: usage.refused });
        let bytes_per_second = usage.rate.map(|rate| RateStatus::of(&rate, now));
        let (scope, name) = (limit.scope.as_str(), limit.name.clone());
        LimitStatus { scope, name, sessions, bytes_per_second }
    };
    let limited = |status: &LimitStatus| status.sessions.is_some() || status.bytes_per_second.is_some();
    config.limits.iter().map(of).filter(limited).collect()
}

/// Collector for `ferry_limit_…`, each with the entry as labels.
pub(crate) struct Limits(pub(crate) Arc<Shared>);

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Limits")
    }
}

/// One value for each limited entry that has one.
fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    limits: &[LimitStatus],
    zero: &M,
    value: impl Fn(&LimitStatus) -> Option<M>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, zero.metric_type())?;
    for limit in limits {
        if let Some(value) = value(limit) {
            value.encode(family.encode_family(&[("scope", limit.scope), ("name", &limit.name)])?)?;
        }
    }
    Ok(())
}

/// As [`family`], for each direction of those that have a pace.
fn by_direction(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    limits: &[LimitStatus],
    value: impl Fn(&PaceStatus) -> u64,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, gauge(0).metric_type())?;
    for limit in limits {
        for direction in [Direction::Sent, Direction::Received] {
            let Some(rate) = &limit.bytes_per_second else { continue };
            let labels = [("scope", limit.scope), ("name", &limit.name), ("direction", direction.as_str())];
            gauge(value(rate.pace(direction))).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Limits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (limits, encoder) = (limits(&self.0), &mut encoder);
        let sessions = ("ferry_limit_sessions", "Sessions of an entry that limits them");
        family(encoder, sessions, &limits, &gauge(0), |limit| Some(gauge(limit.sessions.as_ref()?.used.into())))?;
        let most = ("ferry_limit_sessions_max", "Most sessions that the entry may have");
        family(encoder, most, &limits, &gauge(0), |limit| Some(gauge(limit.sessions.as_ref()?.limit.into())))?;
        let refused = ("ferry_limit_refused", "Sessions refused because the entry had as many as it may");
        family(encoder, refused, &limits, &ConstCounter::new(0_u64), |limit| {
            Some(ConstCounter::new(limit.sessions.as_ref()?.refused))
        })?;
        let used =
            ("ferry_limit_bytes_per_second", "Application bytes in the last second, of an entry that limits them");
        by_direction(encoder, used, &limits, |pace| pace.used)?;
        let most = ("ferry_limit_bytes_per_second_max", "Most application bytes in a second, in each direction");
        family(encoder, most, &limits, &gauge(0), |limit| Some(gauge(limit.bytes_per_second.as_ref()?.limit)))?;
        let waiting = ("ferry_limit_sessions_waiting", "Sessions that are held back by the entry's pace now");
        by_direction(encoder, waiting, &limits, |pace| pace.waiting)
    }
}
