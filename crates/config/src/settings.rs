//! The settings of a tunnel that have defaults, which a `tunnel.yaml` and a blueprint share.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use crate::congestion::CongestionControl;
use crate::fields::{Field, Fields, Position, Problems};
use crate::report::{ValueError, quoted};
use crate::values::{as_duration, as_size, as_size_if_any, parse_duration, parse_size};
use ferry_units::{render_duration, render_size};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const KIB: u64 = 1 << 10;

/// The settings, each under the key that is its field's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// When a session moves to a fresh link.
    pub rotation: Rotation,
    /// How a session outlives its links.
    pub resume: Resume,
    /// A link is given up after this long without a byte from the peer; at least 1 s.
    #[serde(serialize_with = "as_duration")]
    pub liveness: Duration,
    /// How long an egress connection waits for a link before it is reset.
    #[serde(serialize_with = "as_duration")]
    pub open_timeout: Duration,
    /// How long live sessions have on SIGTERM before they are reset; may be zero.
    #[serde(serialize_with = "as_duration")]
    pub drain: Duration,
    /// What this process takes on at most.
    pub limits: Limits,
    /// The links kept ready for each peer that we dial.
    pub warm_links: WarmLinks,
    /// TCP's congestion control for links; the host's default if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub congestion: Option<CongestionControl>,
}

/// When a session moves to a fresh link, with fresh keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// The age at which a link is replaced, 1 s to 24 h.
    #[serde(serialize_with = "as_duration")]
    pub every: Duration,
    /// The bytes after which a link is replaced; at least 64 KiB.
    #[serde(serialize_with = "as_size")]
    pub bytes: u64,
    /// Rotations that all sessions together may start in a second; at least 1.
    pub max_per_second: u32,
}

/// How a session outlives its links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resume {
    /// How long a session may be without a link, 1 s to 24 h.
    #[serde(serialize_with = "as_duration")]
    pub window: Duration,
    /// The largest replay buffer of a session in bytes, 64 KiB to [`Limits::memory`]; what the path needs if there is none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_size_if_any")]
    pub buffer: Option<u64>,
}

/// What a process takes on at most; each is at least 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions: u32,
    /// Bytes in the buffers of all sessions together.
    #[serde(serialize_with = "as_size")]
    pub memory: u64,
    /// Handshakes of accepted links at a time.
    pub handshakes: u32,
}

/// The links kept ready for each peer that we dial; each is at most 256. Where keys last less than 5 s fewer are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WarmLinks {
    /// Links for sessions that we open.
    pub own: u32,
    /// Links for sessions that the peer opens.
    pub offered: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rotation: Rotation::default(),
            resume: Resume::default(),
            liveness: Duration::from_secs(15),
            open_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(15),
            limits: Limits::default(),
            warm_links: WarmLinks::default(),
            congestion: None,
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self { every: Duration::from_secs(30), bytes: 64 << 30, max_per_second: 200 }
    }
}

impl Default for Resume {
    fn default() -> Self {
        Self { window: Duration::from_secs(600), buffer: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 20_000, memory: 512 << 20, handshakes: 256 }
    }
}

impl Default for WarmLinks {
    fn default() -> Self {
        Self { own: 4, offered: 2 }
    }
}

/// Settings as they were read, with the places of those that are held against each other.
#[derive(Debug, Default)]
pub struct RawSettings {
    /// The settings.
    pub settings: Settings,
    /// Where `resume.buffer` stands, if it does.
    buffer: Option<Position>,
}

impl Settings {
    /// Takes the settings out of a mapping. The caller finishes the mapping, and calls [`RawSettings::check`].
    pub fn read(top: &mut Fields<'_>) -> RawSettings {
        let mut raw = RawSettings::default();
        let settings = &mut raw.settings;
        if let Some(mut fields) = top.optional("rotation").and_then(|field| field.fields()) {
            let rotation = &mut settings.rotation;
            fields.read("every", &mut rotation.every, duration(SECOND..=DAY));
            fields.read("bytes", &mut rotation.bytes, size(64 * KIB));
            fields.read("max_per_second", &mut rotation.max_per_second, |field| field.number(1..=u32::MAX));
            fields.finish();
        }
        if let Some(mut fields) = top.optional("resume").and_then(|field| field.fields()) {
            fields.read("window", &mut settings.resume.window, duration(SECOND..=DAY));
            fields.read("buffer", &mut settings.resume.buffer, |field| {
                raw.buffer = Some(field.position.clone());
                let located =
                    field.scalar(|text| if text == "auto" { Ok(None) } else { at_least(64 * KIB, text).map(Some) });
                located.map(|located| located.value)
            });
            fields.finish();
        }
        top.read("liveness", &mut settings.liveness, duration(SECOND..=HOUR));
        top.read("open_timeout", &mut settings.open_timeout, duration(Duration::from_millis(1)..=HOUR));
        top.read("drain", &mut settings.drain, duration(Duration::ZERO..=DAY));
        if let Some(mut fields) = top.optional("limits").and_then(|field| field.fields()) {
            let limits = &mut settings.limits;
            fields.read("sessions", &mut limits.sessions, |field| field.number(1..=u32::MAX));
            fields.read("memory", &mut limits.memory, size(64 * KIB));
            fields.read("handshakes", &mut limits.handshakes, |field| field.number(1..=u32::MAX));
            fields.finish();
        }
        if let Some(mut fields) = top.optional("warm_links").and_then(|field| field.fields()) {
            let warm_links = &mut settings.warm_links;
            fields.read("own", &mut warm_links.own, |field| field.number(0..=256));
            fields.read("offered", &mut warm_links.offered, |field| field.number(0..=256));
            fields.finish();
        }
        settings.congestion = top.optional("congestion").and_then(congestion);
        raw
    }
}

impl RawSettings {
    /// Reports settings that do not go together.
    pub fn check(&self, problems: &Problems) {
        let Settings { resume, limits, .. } = &self.settings;
        if let (Some(buffer), Some(position)) = (resume.buffer, self.buffer.as_ref())
            && buffer > limits.memory
        {
            let (buffer, memory) = (render_size(buffer), render_size(limits.memory));
            let message = format!("a `resume.buffer` of {buffer} does not fit into a `limits.memory` of {memory}");
            let hint = "lower the buffer of a session or raise the memory for all";
            problems.add(position, ValueError::new(message, hint));
        }
    }
}

fn congestion(field: Field<'_>) -> Option<CongestionControl> {
    field.scalar(str::parse).map(|located| located.value)
}

/// Reads a duration within `range`.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(Field<'_>) -> Option<Duration> {
    move |field| {
        let located = field.scalar(|text| match parse_duration(text)? {
            value if range.contains(&value) => Ok(value),
            _ => {
                let (least, most) = (render_duration(*range.start()), render_duration(*range.end()));
                let hint = format!("write a duration from {least} to {most}");
                Err(ValueError::new(format!("{} is out of range", quoted(text)), hint))
            }
        });
        located.map(|located| located.value)
    }
}

/// Reads a size in bytes that is not below `least`.
pub fn size(least: u64) -> impl Fn(Field<'_>) -> Option<u64> {
    move |field| field.scalar(|text| at_least(least, text)).map(|located| located.value)
}

fn at_least(least: u64, text: &str) -> Result<u64, ValueError> {
    match parse_size(text)? {
        value if value >= least => Ok(value),
        _ => {
            let hint = format!("write a size of at least {}", render_size(least));
            Err(ValueError::new(format!("{} is too small", quoted(text)), hint))
        }
    }
}
