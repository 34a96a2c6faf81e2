//! The spans of a role, exported as the environment says.

use ferry_trace::Exporting;
use tracing::warn;

/// Spans are exported while this lives, if an endpoint is given. A variable that cannot be used costs the spans, not the role.
#[derive(Debug)]
pub(crate) struct Spans(Option<Exporting>);

impl Spans {
    /// Starts to export those of a service, about which `attributes` say more.
    pub(crate) fn start(service: &'static str, attributes: &[(&'static str, &str)]) -> Self {
        Self(ferry_trace::start(service, attributes).unwrap_or_else(|error| {
            warn!("spans are not exported: {error}");
            None
        }))
    }

    /// Exports the last of them, for two seconds at most.
    pub(crate) async fn finish(self) {
        if let Some(exporting) = self.0 {
            exporting.finish().await;
        }
    }
}
