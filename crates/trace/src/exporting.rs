//! Starting to export, and the end of it.

use ferry_otlp::{Collector, EnvironmentError, FLUSH_TIMEOUT, Signal};
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::RandomIdGenerator;
use tracing::warn;

use crate::environment;
use crate::queue::Queue;
use crate::span::Tracer;

/// Exports spans while this lives.
#[derive(Debug)]
pub struct Exporting(());

/// Starts to export the spans of this process, which is `resource`, if the environment names an endpoint. Must be called
/// within a Tokio runtime, once in a process.
///
/// # Errors
///
/// A variable that cannot be used.
pub fn start(resource: &Resource) -> Result<Option<Exporting>, EnvironmentError> {
    let sampling = environment::sampling(ferry_otlp::variable);
    // Whatever it says, where there is no endpoint nothing is wrong with it.
    let Some(collector) = Collector::from_environment(Signal::Traces)? else { return Ok(None) };
    let sampling = sampling?;
    let queue = match Queue::start(collector, resource) {
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
