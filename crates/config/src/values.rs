//! Values that have a text of their own in YAML.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::address::{Address, HostPort};
use crate::congestion::CongestionControl;
use crate::name::{DnsName, Name, ServiceName};
use crate::proxy::Proxy;
use crate::report::{ValueError, quoted};

/// Reads a duration; see [`ferry_units::parse_duration`].
pub(crate) fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let refused = || ValueError::new(format!("{} is not a duration", quoted(text)), ferry_units::DURATION_HINT);
    ferry_units::parse_duration(text).ok_or_else(refused)
}

/// Reads a size in bytes; see [`ferry_units::parse_size`].
pub(crate) fn parse_size(text: &str) -> Result<u64, ValueError> {
    let refused = || ValueError::new(format!("{} is not a size", quoted(text)), ferry_units::SIZE_HINT);
    ferry_units::parse_size(text).ok_or_else(refused)
}

pub(crate) fn as_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ferry_units::render_duration(*duration))
}

#[allow(clippy::ref_option, reason = "serde passes fields by reference")]
pub(crate) fn as_duration_if_any<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_duration(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
pub(crate) fn as_size<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ferry_units::render_size(*bytes))
}

#[allow(clippy::ref_option, reason = "serde passes fields by reference")]
pub(crate) fn as_size_if_any<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => as_size(bytes, serializer),
        None => serializer.serialize_none(),
    }
}

/// Serialises types as the text that they parse from.
macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self as &dyn fmt::Display)
            }
        }
    )*};
}

serialize_as_text!(Address, CongestionControl, DnsName, HostPort, Name, Proxy, ServiceName);
