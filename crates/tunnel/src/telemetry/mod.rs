//! What the tunnel says of itself: metrics, the admin endpoint and log lines whose rate others decide.

pub(crate) mod admin;
pub(crate) mod events;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod peers;
pub(crate) mod presence;
pub(crate) mod repeats;
pub(crate) mod scrape;
