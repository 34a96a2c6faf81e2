//! The applications next to this tunnel: listeners for them, and their connections.

pub(crate) mod egress;
pub(crate) mod listeners;
pub(crate) mod local;
pub(crate) mod proxy_protocol;
