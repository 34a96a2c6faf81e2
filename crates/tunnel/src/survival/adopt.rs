//! What a process does with the sessions of the one before it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use socket2::SockRef;
use tracing::warn;

use super::{Estate, Kept, Step, Survival, tag};
use crate::application::egress;
use crate::application::local::{Local, MAX_READ};
use crate::memory::Lease;
use crate::peer::Peer;
use crate::sessions;
use crate::sessions::driver::{Admitted, Driver};
use crate::sessions::handle::{SessionHandle, SessionName};
use crate::shared::Shared;
use crate::telemetry::events::{EndFacts, Event, SessionFacts};
use crate::telemetry::metrics::{ByStart, Ending};
use crate::workers::Load;
use ferry_arena::{Counters, Found, Identity, Progress};
use ferry_session::{Origin, ResetCode, Session, Side, Snapshot, Survivor};

/// This many processes may crash in the midst of adopting a session, if crashes come one soon after another.
const MAX_ATTEMPTS: u64 = 2;

/// Adopts every session that can be. The others are reset at both ends.
pub(crate) fn adopt_all(shared: &Arc<Shared>, survival: &Arc<Survival>, estate: Estate) {
    let Estate { start, sessions, mut sockets, crash_loop } = estate;
    shared.metrics.engine_starts.get_or_create(&ByStart { start }).inc();
    let (found, damaged) = sessions.map_or((Vec::new(), 0), |sessions| (sessions.sessions, sessions.damaged));
    if damaged > 0 {
        warn!("{damaged} records of sessions are damaged");
    }
    for found in found.into_iter().map(Box::new) {
        let socket = sockets.remove(&found.record.key());
        let attempts = found.record.begin_adoption();
        Step::Adopting.pass();
        let lost = if crash_loop && attempts >= MAX_ATTEMPTS {
            Err((found, socket, format!("{attempts} processes crashed while they adopted it")))
        } else {
            Adoption::of(shared, survival, found, socket)
        };
        match lost {
            Ok(Some(adoption)) => adoption.start(shared),
            Ok(None) => {}
            Err((found, socket, reason)) => give_up(shared, survival, &found, socket, &reason),
        }
    }
    for (key, socket) in sockets {
        shared.metrics.sessions_dropped.inc();
        reset(survival, key, socket);
    }
}

/// Its application sees a reset, though the keeper has its connection, too.
fn reset(survival: &Survival, key: u64, socket: OwnedFd) {
    // One that is reset already cannot be once more.
    let _ = ferry_arena::reset(socket.as_fd());
    survival.remove(&tag::session(key));
}

/// A session that can be adopted.
struct Adoption {
    admitted: Admitted,
    session: Session,
    state: ferry_arena::State,
    kept: Kept,
    socket: OwnedFd,
    progress: Progress,
}

/// One that cannot be, and why.
type Lost = (Box<Found>, Option<OwnedFd>, String);

impl Adoption {
    /// Nothing if there is nothing left to do for it.
    fn of(
        shared: &Arc<Shared>,
        survival: &Arc<Survival>,
        mut found: Box<Found>,
        socket: Option<OwnedFd>,
    ) -> Result<Option<Self>, Lost> {
        if found.state.snapshot.ended {
            end(shared, survival, &found, socket);
            return Ok(None);
        }
        let Some(socket) = socket else { return Err((found, None, "its connection is not in the keeper".to_owned())) };
        let admitted = admit(shared, &found);
        let (peer, lease) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => return Err((found, Some(socket), reason.to_owned())),
        };
        let progress = match progress(&found, &socket) {
            Ok(progress) => progress,
            Err(reason) => return Err((found, Some(socket), reason)),
        };
        let session = match take_over(shared, &lease, &mut found, progress) {
            Ok(session) => session,
            Err(reason) => return Err((found, Some(socket), reason)),
        };
        let name = SessionName { peer: peer.name.clone(), side: found.identity.side, id: found.identity.id };
        let handle = SessionHandle::adopted(name, &found.identity.service, found.state.peer);
        let handle = handle.from(found.identity.origin.or_else(|| origin(&found, &socket)));
        let Ok(registration) = shared.sessions.register(handle) else {
            return Err((found, Some(socket), "there are more sessions than may be now".to_owned()));
        };
        let permits = shared.config().limits.adopt(&peer.name, found.identity.side, &found.identity.service);
        let admitted = Admitted { slot: shared.workers.slot(Load::Light), peer, registration, lease, permits };
        let written = if progress.was_reset { found.written } else { progress.written };
        let kept = Kept::adopted(survival.clone(), found.record, progress.read, written, progress.shut_down);
        Ok(Some(Self { admitted, session, state: found.state, kept, socket, progress }))
    }

    /// At the worker where it lives from now on.
    fn start(self, shared: &Arc<Shared>) {
        let Self { admitted, mut session, state, kept, socket, progress } = self;
        let (opening, worker) = (shared.clone(), admitted.slot.runtime().clone());
        shared.metrics.sessions_adopted.inc();
        let handle = &admitted.registration;
        // Its pause began with the process before; from here on it is measured.
        handle.set_link(None);
        let session_facts = SessionFacts::new(&handle.name, &handle.service);
        shared.events.tell(Event::SessionAdopted { session: session_facts });
        shared.spawn_session_at(&worker, async move {
            let local = match opening.network.adopt(socket, progress.was_reset) {
                Ok(mut stream) => {
                    stream.share();
                    if !progress.shut_down {
                        stream.reset_unless_ended();
                    }
                    Local::adopted(stream, progress.finished, progress.shut_down)
                }
                Err(error) => {
                    let reason = format!("the application's connection could not be adopted: {error}");
                    session.reset(ResetCode::Application, &reason);
                    Local::gone()
                }
            };
            Driver::adopted(opening, admitted, session, local, Some(kept), &state).start();
        });
    }
}

/// What a session needs now.
fn admit(shared: &Arc<Shared>, found: &Found) -> Result<(Arc<Peer>, Lease), &'static str> {
    let config = shared.config();
    let peer = found.identity.peer.parse().ok().and_then(|name| config.peers.get(&name).cloned());
    let peer = peer.ok_or("the peer is not configured any more")?;
    let lease = shared.memory.reserve(&peer.name).ok_or("no memory is left for it (limits.memory)")?;
    Ok((peer, lease))
}

/// Where the application of an opener connected from and to, which the first format of an arena does not tell.
fn origin(found: &Found, socket: &OwnedFd) -> Option<Origin> {
    if found.identity.side == Side::Acceptor {
        return None;
    }
    let socket = SockRef::from(socket);
    let [source, destination] =
        [socket.peer_addr(), socket.local_addr()].map(|address| address.ok().and_then(|address| address.as_socket()));
    Some(egress::origin(source?, destination?))
}

/// How far its connection was read and written, by the kernel. It must agree with what the process before had noted.
fn progress(found: &Found, socket: &OwnedFd) -> Result<Progress, String> {
    let counters = Counters::of(socket.as_fd()).map_err(|error| format!("the kernel does not tell: {error}"))?;
    let connected = found.identity.side == Side::Acceptor;
    let progress = counters.progress(connected, found.state.shut_down, found.read);
    let progress = progress.and_then(|progress| progress.behind(found.identity.preamble));
    let progress = progress.ok_or_else(|| format!("the kernel counts what cannot be: {counters:?}"))?;
    let read = found.read..=found.read + MAX_READ as u64;
    let written = found.written..=found.state.snapshot.granted;
    let agrees = read.contains(&progress.read) && (progress.was_reset || written.contains(&progress.written));
    if agrees {
        return Ok(progress);
    }
    Err(format!("the kernel counts {progress:?}, and noted were {} and {}", found.read, found.written))
}

fn take_over(shared: &Shared, lease: &Lease, found: &mut Found, progress: Progress) -> Result<Session, String> {
    let kept = found.kept(progress.read).map_err(|damage| damage.to_string())?;
    let survivor = Survivor {
        side: found.identity.side,
        id: found.identity.id,
        service: found.identity.service.clone(),
        snapshot: found.state.snapshot,
        base: kept.base,
        kept: kept.blocks,
        finished: progress.finished,
        // Of a connection that was reset the kernel may have forgotten it, and nobody waits for it.
        delivered: if progress.was_reset { found.written } else { progress.written },
        finish_delivered: progress.shut_down,
    };
    let session = Session::adopt(shared.now(), shared.settings(lease), survivor);
    let mut session = session.map_err(|error| error.to_string())?;
    if progress.was_reset {
        session.discard_received();
    }
    Ok(session)
}

/// It had ended, and only its record was left. What its application was given it may still be taking.
fn end(shared: &Shared, survival: &Survival, found: &Found, socket: Option<OwnedFd>) {
    bury(shared, found);
    let Some(socket) = socket else { return };
    if found.state.shut_down {
        survival.remove(&tag::session(found.record.key()));
    } else {
        reset(survival, found.record.key(), socket);
    }
}

/// A Hello for it is answered that it has ended, and does not open it a second time.
fn bury(shared: &Shared, found: &Found) {
    let Ok(peer) = found.identity.peer.parse() else { return };
    let name = SessionName { peer, side: found.identity.side, id: found.identity.id };
    if found.identity.side == Side::Acceptor
        && let Ok(registration) = shared.sessions.register(SessionHandle::new(name, &found.identity.service, None))
    {
        sessions::bury(shared, &registration, found.state.snapshot.received);
    }
}

/// Both applications are reset: the one here now, the other one as soon as there is a link.
fn give_up(shared: &Arc<Shared>, survival: &Survival, found: &Found, socket: Option<OwnedFd>, reason: &str) {
    let (identity, key) = (&found.identity, found.record.key());
    warn!(session = %identity.id, peer = %identity.peer, service = %identity.service, "session not adopted: {reason}");
    shared.metrics.sessions_dropped.inc();
    if let Some(socket) = socket {
        reset(survival, key, socket);
    }
    if reset_at_peer(shared, found).is_none() {
        bury(shared, found);
        tell_lost(shared, found, format!("session not adopted: {reason}"));
    }
}

/// Of a session that no driver ends.
fn tell_lost(shared: &Shared, found: &Found, reason: String) {
    let Identity { id, side, peer, service, .. } = &found.identity;
    let Ok(peer) = peer.parse() else { return };
    let handle = SessionHandle::adopted(SessionName { peer, side: *side, id: *id }, service, found.state.peer);
    let (session, end) = (SessionFacts::new(&handle.name, service), EndFacts::new(&handle, Ending::ResetHere, reason));
    shared.events.tell(Event::SessionLost { session, end });
}

/// An opener has the application at the other end reset, unless it has told nobody of itself.
fn reset_at_peer(shared: &Arc<Shared>, found: &Found) -> Option<()> {
    let identity = &found.identity;
    if identity.side == Side::Acceptor || found.state.snapshot.epoch == ferry_session::Epoch::NONE {
        return None;
    }
    let (peer, lease) = admit(shared, found).ok()?;
    let Snapshot { granted, received, .. } = found.state.snapshot;
    let survivor = Survivor {
        side: identity.side,
        id: identity.id,
        service: identity.service.clone(),
        snapshot: Snapshot {
            reset: Some(ResetCode::Application),
            discarding: true,
            received: received.min(granted),
            received_finish: false,
            sent_all: true,
            ..found.state.snapshot
        },
        base: found.read.saturating_add(MAX_READ as u64),
        kept: Vec::new(),
        finished: true,
        delivered: 0,
        finish_delivered: false,
    };
    let session = Session::adopt(shared.now(), shared.settings(&lease), survivor).ok()?;
    let name = SessionName { peer: peer.name.clone(), side: identity.side, id: identity.id };
    let handle = SessionHandle::adopted(name, &identity.service, found.state.peer);
    let registration = shared.sessions.register(handle).ok()?;
    let permits = shared.config().limits.adopt(&peer.name, identity.side, &identity.service);
    let admitted = Admitted { slot: shared.workers.slot(Load::Light), peer, registration, lease, permits };
    let (opening, worker) = (shared.clone(), admitted.slot.runtime().clone());
    let state = found.state;
    shared.spawn_session_at(&worker, async move {
        Driver::adopted(opening, admitted, session, Local::gone(), None, &state).start();
    });
    Some(())
}
