//! Connections of applications here to services at a peer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferry_config::{Name, ServiceName};
use ferry_session::{Session, SessionId, Side};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::driver::{Admitted, Driver};
use crate::metrics::{ByRefusal, Refusal};
use crate::net::{Listener, Stream};
use crate::order::Series;
use crate::repeats::{Kind, Line};
use crate::sessions::{Added, Entry, Key};
use crate::shared::Shared;
use crate::workers::Place;

/// After an accept that failed for want of something: time for others to end.
const BREATHE: std::time::Duration = std::time::Duration::from_millis(100);

/// Takes applications' connections until the tunnel drains.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    peer: Name,
    service: ServiceName,
    withdrawn: CancellationToken,
) {
    // At a worker, so that a session which stays there wakes nobody else.
    let mut listener = listener.settle();
    let mut series = Series::new();
    loop {
        let accepted = tokio::select! {
            () = shared.draining.cancelled() => return,
            () = withdrawn.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((mut local, _)) => {
                local.reset_unless_ended();
                let (peer, service, place) = (peer.clone(), service.clone(), shared.workers.place());
                let id = next_id(&mut series);
                let (opening, worker) = (shared.clone(), place.handle().clone());
                let open = async move { opening.open_session(place, local.settle(), id, &peer, &service).await };
                shared.spawn_session_at(&worker, open);
            }
            Err(error) => {
                shared.on_accept_failed("an application's", &error);
                tokio::time::sleep(BREATHE).await;
            }
        }
    }
}

/// The id of a session whose application has connected now. Without random numbers for a series it is tried again.
fn next_id(series: &mut Result<Series, getrandom::Error>) -> Result<SessionId, getrandom::Error> {
    if series.is_err() {
        *series = Series::new();
    }
    match series {
        Ok(series) => series.next(),
        Err(error) => Err(*error),
    }
}

impl Shared {
    /// Carries one application's connection, or resets it and says why.
    async fn open_session(
        self: Arc<Self>,
        place: Place,
        mut local: Box<dyn Stream>,
        id: Result<SessionId, getrandom::Error>,
        peer: &Name,
        service: &ServiceName,
    ) {
        let plan = self.plan();
        let wait = plan.config.settings.open_timeout;
        let refused = 'refused: {
            let Some(peer) = plan.peers.get(peer).cloned() else {
                break 'refused (Refusal::Service, "the peer is not configured any more".to_owned());
            };
            let id = match id {
                Ok(id) => id,
                Err(error) => break 'refused (Refusal::Limit, format!("no random numbers: {error}")),
            };
            let entry =
                Arc::new(Entry::new(Key { peer: peer.name.clone(), side: Side::Opener, id }, service.as_str(), None));
            if self.sessions.add(entry.clone()) != Added::New {
                break 'refused (Refusal::Limit, self.sessions.full(peer.sessions.load(Ordering::Relaxed)));
            }
            let Some(lease) = self.memory.reserve(&peer.name) else {
                self.sessions.remove(&entry.key, 0, true, wait);
                break 'refused (Refusal::Limit, "no memory is left for another session (limits.memory)".to_owned());
            };
            let link = tokio::select! {
                biased;
                // Here already, it is reset with the others; cut off by the tunnel's end, it would look to the
                // application as if it had been carried and had ended.
                () = self.draining.cancelled() => {
                    self.sessions.remove(&entry.key, 0, true, wait);
                    break 'refused (Refusal::Draining, "the tunnel is shutting down".to_owned());
                }
                link = timeout(wait, peer.pool.take_first()) => link,
            };
            let Ok(link) = link else {
                self.sessions.remove(&entry.key, 0, true, wait);
                let problem = peer.problem().unwrap_or_else(|| "it has not dialled this end".to_owned());
                break 'refused (Refusal::NoLink, format!("no link within {wait:?}: {problem}"));
            };
            let session = Session::opener(self.now(), id, service.as_str(), self.settings(&lease));
            let admitted = Admitted { place, peer, entry, lease };
            let mut driver = Driver::new(self.clone(), admitted, session, local);
            driver.attach(link, false);
            return driver.start();
        };
        let (reason, text) = refused;
        self.metrics.refused.get_or_create(&ByRefusal { reason }).inc();
        let kind = Kind::new(reason.as_str()).peer(peer).service(service);
        self.repeats.tell(kind, Line::warn(format!("application's connection reset: {text}")));
        local.reset_on_drop();
    }
}
