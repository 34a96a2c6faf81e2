//! The headers that travel with a message: those of W3C Trace Context and Baggage, and no others.
//!
//! They come with the request that triggers the message, go to the receiving hook, and come back with its reply. What is not
//! as the specifications have it is left out, and never costs the message.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_trace::Place;
use serde::{Deserialize, Serialize};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// What every system has to pass on at least (Trace Context 3.3.1.5, Baggage 3.3.2), and this one at most.
const MAX_TRACESTATE_BYTES: usize = 512;
const MAX_BAGGAGE_BYTES: usize = 8192;
/// That of a later version of Trace Context may be longer than that of this one.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// The headers of one message; at least one is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TraceHeaders {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    baggage: Option<String>,
}

impl TraceHeaders {
    /// Those among the headers of a request, whose names are in lower case.
    pub(crate) fn of_request(headers: &BTreeMap<String, String>) -> Option<Self> {
        let header = |name| headers.get(name).cloned();
        Self { traceparent: header(TRACEPARENT), tracestate: header(TRACESTATE), baggage: header(BAGGAGE) }.checked()
    }

    /// Those that came with a message, or that are stored with one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok()?.checked()
    }

    /// Where in its trace it comes from.
    pub(crate) fn place(&self) -> Option<Place> {
        Place::parse(self.traceparent.as_deref()?)
    }

    /// Those of what a span leads to that has these.
    pub(crate) fn at(place: Place, headers: Option<&Self>) -> Self {
        Self { traceparent: Some(place.traceparent()), ..headers.cloned().unwrap_or_default() }
    }

    /// As JSON.
    pub(crate) fn to_text(&self) -> Arc<str> {
        // Three texts cannot fail to be JSON.
        serde_json::to_string(self).unwrap_or_default().into()
    }

    /// As a hook gets them.
    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        let Self { traceparent, tracestate, baggage } = self;
        [(TRACEPARENT, traceparent), (TRACESTATE, tracestate), (BAGGAGE, baggage)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
            .collect()
    }

    /// The length of their values.
    pub(crate) fn bytes(&self) -> usize {
        [&self.traceparent, &self.tracestate, &self.baggage].into_iter().flatten().map(String::len).sum()
    }

    /// Without what cannot be used, if there is anything else.
    fn checked(self) -> Option<Self> {
        let traceparent = self.traceparent.filter(|value| is_traceparent(value));
        // On its own it says nothing.
        let tracestate = self.tracestate.filter(|value| traceparent.is_some() && is_text(value, MAX_TRACESTATE_BYTES));
        let baggage = self.baggage.filter(|value| is_text(value, MAX_BAGGAGE_BYTES));
        let any = traceparent.is_some() || baggage.is_some();
        any.then_some(Self { traceparent, tracestate, baggage })
    }
}

/// Trace Context 3.2: version, trace id, parent id and flags. A later version may have more behind them.
fn is_traceparent(value: &str) -> bool {
    let is_hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let mut parts = value.splitn(5, '-');
    let mut part = || parts.next().unwrap_or_default();
    let (version, trace, parent, flags) = (part(), part(), part(), part());
    let is_short = parts.next().is_none();
    is_text(value, MAX_TRACEPARENT_BYTES)
        && (is_hex(version, 2) && version != "ff" && (is_short || version != "00"))
        && (is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2))
}

fn is_text(value: &str, max: usize) -> bool {
    !value.is_empty() && value.len() <= max && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(headers: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Some(TraceHeaders::of_request(&headers)?.to_map())
    }

    #[test]
    fn of_the_headers_of_a_request_these_three_travel() {
        let three = [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("baggage", "user=7;kind=test")];
        let with_others = [&three[..], &[("authorization", "Bearer x"), ("cookie", "y")]].concat();
        assert_eq!(of(&with_others), of(&three));
        assert_eq!(of(&three).unwrap().len(), 3);
        assert_eq!(of(&[("authorization", "Bearer x")]), None);
    }

    #[test]
    fn what_is_not_as_specified_is_left_out() {
        let baggage = ("baggage", "a=1");
        for wrong in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &PARENT.replace("00-", "ff-"),
            &PARENT.replace("00-", "0-"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &PARENT.replace("-01", "-1"),
            &format!("{PARENT}-more"),
            &format!("{PARENT}, {PARENT}"),
        ] {
            let found = of(&[("traceparent", wrong), ("tracestate", "a=1"), baggage]);
            assert_eq!(found, of(&[baggage]), "{wrong:?}");
        }
        let later = PARENT.replace("00-", "01-") + "-more";
        assert!(of(&[("traceparent", &later)]).is_some());
        let long = "x".repeat(MAX_BAGGAGE_BYTES + 1);
        for wrong in ["", "a=\u{7}", "a=ü", &long] {
            assert_eq!(of(&[("traceparent", PARENT), ("tracestate", wrong), ("baggage", wrong)]).unwrap().len(), 1);
        }
    }

    #[test]
    fn they_are_read_as_they_were_written_and_from_what_a_later_version_writes() {
        let headers =
            TraceHeaders { traceparent: Some(PARENT.into()), baggage: Some("a=\"1\"".into()), tracestate: None };
        assert_eq!(TraceHeaders::parse(&headers.to_text()).unwrap(), headers);
        let later = headers.to_text().replacen('{', r#"{"more":[1],"#, 1);
        assert_eq!(TraceHeaders::parse(&later).unwrap(), headers);
        for wrong in ["", "null", "[]", "{}", r#"{"baggage":1}"#, r#"{"tracestate":"a=1"}"#] {
            assert_eq!(TraceHeaders::parse(wrong), None, "{wrong}");
        }
    }
}
