//! Connections of applications here to services at a peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferry_config::Egress;
use ferry_session::{Origin, Session, SessionId, Side};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::entries::Service;
use crate::net::{Listener, Stream};
use crate::peer::arrivals::Series;
use crate::sessions::driver::{Admitted, Driver};
use crate::sessions::handle::{SessionHandle, SessionName};
use crate::shared::Shared;
use crate::supply::pool::Need;
use crate::survival::Kept;
use crate::telemetry::events::Event;
use crate::telemetry::metrics::{ByRefusal, Refusal};
use crate::telemetry::repeats::{Kind, Line};
use crate::transport::accept;
use crate::transport::link::Link;
use crate::workers::{Load, WorkerSlot};

/// After an accept that failed for want of something: time for others to end.
const ACCEPT_RETRY_DELAY: std::time::Duration = std::time::Duration::from_millis(100);

/// Takes applications' connections until the tunnel drains.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    entry: Egress,
    withdrawn: CancellationToken,
) {
    // At a worker, so that a session which stays there wakes nobody else.
    let mut listener = listener.register_here();
    let mut series = Series::new();
    loop {
        let accepted = tokio::select! {
            () = shared.draining.cancelled() => return,
            () = withdrawn.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((mut local, source)) => {
                local.reset_unless_ended();
                // Where this end has no address, as in a simulated network, the other one stands for both.
                let origin = origin(source, local.local_addr().unwrap_or(source));
                let (slot, id) = (shared.workers.slot(Load::Light), next_id(&mut series));
                let worker = slot.runtime().clone();
                let opening = Opening { shared: shared.clone(), slot, id, entry: entry.clone(), origin };
                shared.spawn_session_at(&worker, async move { opening.open(local.register_here()).await });
            }
            Err(error) => {
                accept::on_accept_failed(&shared, "an application's", &error);
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Where an application has connected from and to.
pub(crate) fn origin(source: SocketAddr, destination: SocketAddr) -> Origin {
    Origin { source: canonical(source), destination: canonical(destination) }
}

/// An IPv4 address as one, also at a socket for both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
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

/// An application's connection on its way to being a session.
struct Opening {
    shared: Arc<Shared>,
    slot: WorkerSlot,
    id: Result<SessionId, getrandom::Error>,
    entry: Egress,
    /// Where the application connected from and to.
    origin: Origin,
}

impl Opening {
    /// Carries the application's connection, or resets it and says why.
    async fn open(self, mut local: Box<dyn Stream>) {
        let (shared, Egress { peer, service, .. }) = (self.shared.clone(), self.entry.clone());
        let source = Some(self.origin.source);
        match self.admit(&mut *local).await {
            Ok((admitted, session, kept, link)) => {
                let mut driver = Driver::new(shared, admitted, session, local, kept);
                driver.attach(link, Need::Open);
                driver.start();
            }
            Err((reason, text)) => {
                shared.metrics.refused.get_or_create(&ByRefusal { reason }).inc();
                shared.events.tell(Event::ConnectionRefused {
                    peer: peer.to_string(),
                    service: service.to_string(),
                    source,
                    reason: reason.as_str(),
                    text: text.clone(),
                });
                let kind = Kind::new(reason.as_str()).peer(&peer).service(&service);
                shared.repeats.tell(kind, Line::warn(format!("application's connection reset: {text}")));
                local.reset_on_drop();
            }
        }
    }

    /// What the session needs from before it begins, and its first link.
    async fn admit(self, local: &mut dyn Stream) -> Result<(Admitted, Session, Option<Kept>, Link), (Refusal, String)> {
        let Self { shared, slot, id, entry: Egress { listen, peer, service, .. }, origin } = self;
        let config = shared.config();
        let wait = config.tunnel.settings.open_timeout;
        let peer = config.peers.get(&peer).cloned();
        let peer = peer.ok_or_else(|| (Refusal::Service, "the peer is not configured any more".to_owned()))?;
        let id = id.map_err(|error| (Refusal::Limit, format!("no random numbers: {error}")))?;
        let name = SessionName { peer: peer.name.clone(), side: Side::Opener, id };
        let registration = shared
            .sessions
            .register(SessionHandle::new(name, service.as_str(), None).from(Some(origin)))
            .map_err(|_| (Refusal::Limit, shared.sessions.full(peer.sessions.load(Ordering::Relaxed))))?;
        let permits = config.limits.admit(&peer.name, &Service::Egress(listen, service.as_str()));
        let permits = permits.map_err(|exceeded| (Refusal::of(&exceeded), exceeded.to_string()))?;
        let lease = shared.memory.reserve(&peer.name);
        let lease = lease
            .ok_or_else(|| (Refusal::Limit, "no memory is left for another session (limits.memory)".to_owned()))?;
        let session = Session::opener(shared.now(), id, service.as_str(), shared.settings(&lease));
        let kept = shared.survival.as_ref().and_then(|survival| survival.note(&registration, &session, 0));
        if let Some(kept) = &kept {
            kept.hold(local);
        }
        let link = tokio::select! {
            biased;
            // Here already, it is reset with the others; cut off by the tunnel's end, it would look to the
            // application as if it had been carried and had ended.
            () = shared.draining.cancelled() => {
                return Err((Refusal::Draining, "the tunnel is shutting down".to_owned()));
            }
            link = timeout(wait, peer.pool.take_first()) => link,
        };
        let link = link.map_err(|_| {
            let problem = peer.problem().unwrap_or_else(|| "it has not connected yet".to_owned());
            (Refusal::NoLink, format!("no link within {wait:?}: {problem}"))
        })?;
        Ok((Admitted { slot, peer, registration, lease, permits }, session, kept, link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_also_at_a_socket_for_both_families() {
        let [mapped, plain] = ["[::ffff:192.0.2.1]:7", "192.0.2.1:7"].map(|text| text.parse().expect("an address"));
        let v6 = "[2001:db8::1]:7".parse().expect("an address");
        assert_eq!(origin(mapped, v6), Origin { source: plain, destination: v6 });
    }
}
