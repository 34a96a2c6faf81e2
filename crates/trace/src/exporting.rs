//! Starting to export, and the end of it.

use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::RandomIdGenerator;
use tracing::{info, warn};

use crate::environment::{self, EnvironmentError, Settings};
use crate::queue::Queue;
use crate::span::Tracer;

/// How long the end of the process waits for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Exports spans while this lives.
#[derive(Debug)]
pub struct Exporting(());

/// Starts to export the spans of this process, if the environment names an endpoint. `service` is its name unless the
/// environment gives another; `attributes` say more of it. Must be called within a Tokio runtime, once in a process.
///
/// # Errors
///
/// A variable that cannot be used.
pub fn start(
    service: &'static str,
    attributes: &[(&'static str, &str)],
) -> Result<Option<Exporting>, EnvironmentError> {
    let Some(settings) = environment::read(|name| std::env::var(name).ok())? else { return Ok(None) };
    let Settings { endpoint, timeout, sampling, is_named } = settings;
    let queue = match Queue::start(&endpoint, timeout, &resource(service, is_named, attributes)) {
        Ok(queue) => queue,
        Err(error) => {
            warn!(%error, "spans are not exported");
            return Ok(None);
        }
    };
    let scope = InstrumentationScope::builder("ferry").with_version(env!("CARGO_PKG_VERSION")).build();
    let ids = RandomIdGenerator::default();
    if crate::TRACER.set(Tracer { sampling, ids, scope, queue }).is_err() {
        return Ok(None);
    }
    // A password may be in front of the host.
    let collector = endpoint.rsplit_once('@').map_or(endpoint.as_str(), |(_, rest)| rest);
    info!(collector, "spans are exported over OTLP");
    Ok(Some(Exporting(())))
}

impl Exporting {
    /// Exports what waits, and ends: within two seconds, whatever the collector does.
    pub async fn finish(self) {
        let flush = || crate::tracer().into_iter().for_each(|tracer| tracer.queue.finish(FLUSH_TIMEOUT));
        // It waits for the exporting thread, which waits for this runtime.
        let _ = tokio::task::spawn_blocking(flush).await;
    }
}

fn resource(service: &'static str, is_named: bool, attributes: &[(&'static str, &str)]) -> Resource {
    let attributes = attributes.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned()));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let own = Resource::builder_empty().with_attributes(attributes).with_attribute(version);
    let own = if is_named { own } else { own.with_service_name(service) };
    // What the environment says comes last, and wins; without a name of its own it has only a guess.
    let said = Resource::builder().build();
    let guess = |name: &opentelemetry::Key| !is_named && name.as_str() == "service.name";
    let said =
        said.iter().filter(|(name, _)| !guess(name)).map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    own.with_attributes(said.collect::<Vec<_>>()).build()
}
