//! Listeners for applications: which are wanted, and which of them are up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::Egress;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::application::egress;
use crate::net::Listener;
use crate::shared::Shared;
use crate::telemetry::events::Event;
use crate::workers::Load;

/// An address that could not be listened on is tried again this soon, then after twice as long each, up to the longest.
const BIND_RETRY_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// Listeners for applications, by what the configuration says of them.
#[derive(Default)]
pub(crate) struct AppListeners(Mutex<Vec<Serving>>);

struct Serving {
    entry: Egress,
    withdrawn: CancellationToken,
    /// Why it cannot be listened on, while that is so.
    problem: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

/// A listener that is not up.
pub(crate) struct Unbound {
    pub(crate) entry: Egress,
    pub(crate) problem: String,
}

impl AppListeners {
    /// Serves another egress, with a listener that is there or as soon as there can be one.
    pub(crate) fn serve(&self, shared: &Arc<Shared>, entry: Egress, bound: io::Result<Box<dyn Listener>>) {
        let (withdrawn, problem) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
        let bound = bound.map_err(|error| report(shared, &entry, &problem, &error)).ok();
        let serve = serve(shared.clone(), entry.clone(), bound, problem.clone(), withdrawn.clone());
        let task = shared.tasks.spawn_on(serve, shared.workers.slot(Load::Light).runtime());
        self.serving().push(Serving { entry, withdrawn, problem, task });
    }

    /// Stops what the configuration no longer has and starts what is new. Sessions are not touched.
    pub(crate) async fn update(&self, shared: &Arc<Shared>, wanted: &[Egress]) {
        let gone: Vec<_> = self
            .serving()
            .extract_if(.., |serving| !wanted.iter().any(|entry| serving.entry.leads_as(entry)))
            .collect();
        for gone in gone {
            gone.withdrawn.cancel();
            // The address is free once the listener is dropped. A task that panicked has dropped it too.
            let _ = gone.task.await;
            if let Some(survival) = &shared.survival {
                survival.unbind(gone.entry.listen);
            }
        }
        for entry in wanted {
            if self.serving().iter().any(|serving| serving.entry.leads_as(entry)) {
                continue;
            }
            let bound = shared.bind(entry.listen).await;
            self.serve(shared, entry.clone(), bound);
        }
    }

    /// Those that are not up, and why.
    pub(crate) fn unbound(&self) -> Vec<Unbound> {
        let unbound = |serving: &Serving| {
            let problem = serving.problem.lock().clone()?;
            Some(Unbound { entry: serving.entry.clone(), problem })
        };
        self.serving().iter().filter_map(unbound).collect()
    }

    fn serving(&self) -> MutexGuard<'_, Vec<Serving>> {
        self.0.lock()
    }
}

/// Notes why the egress is not served, and says so unless it has been said.
fn report(shared: &Shared, entry: &Egress, problem: &Mutex<Option<String>>, failure: &io::Error) {
    let text = failure.to_string();
    if problem.lock().replace(text.clone()).as_ref() != Some(&text) {
        error!("egress {} is not served: {text}; it is tried again until it can be", entry.listen);
        shared.events.tell(Event::ListenerDown { listen: entry.listen.to_string(), problem: text });
    }
}

async fn serve(
    shared: Arc<Shared>,
    entry: Egress,
    mut bound: Option<Box<dyn Listener>>,
    problem: Arc<Mutex<Option<String>>>,
    withdrawn: CancellationToken,
) {
    let mut pause = *BIND_RETRY_INTERVAL.start();
    let listener = loop {
        if let Some(listener) = bound.take() {
            break listener;
        }
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = withdrawn.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(*BIND_RETRY_INTERVAL.end());
        bound = shared.bind(entry.listen).await.map_err(|error| report(&shared, &entry, &problem, &error)).ok();
    };
    if problem.lock().take().is_some() {
        info!("egress {} is served now", entry.listen);
        shared.events.tell(Event::ListenerUp { listen: entry.listen.to_string() });
    }
    egress::listen(shared, listener, entry, withdrawn).await;
}
