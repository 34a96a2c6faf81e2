//! An arrived message as it is shown.

use serde::Serialize;

use crate::headers::TraceHeaders;
use crate::message::{Arrival, Hop, MessageId};
use crate::payload::Payload;
use crate::peer::PeerName;

/// Where there is one site only, it is not told which.
#[derive(Debug, Serialize)]
pub(super) struct ArrivalRow<'a> {
    id: &'a MessageId,
    payload: &'a Payload,
    trail: &'a [Hop],
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<&'a MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a PeerName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a TraceHeaders>,
}

impl<'a> ArrivalRow<'a> {
    pub(super) fn new(arrival: &'a Arrival, with_site: bool) -> Self {
        let Arrival { id, payload, trail, in_reply_to, site, headers } = arrival;
        let site = site.as_ref().filter(|_| with_site);
        Self { id, payload, trail, in_reply_to: in_reply_to.as_ref(), site, headers: headers.as_deref() }
    }
}
