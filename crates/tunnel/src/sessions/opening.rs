//! A new session for an application here: admitted, connected, started.

use std::sync::Arc;
use std::time::Duration;

use ferry_config::{HostPort, Ingress, ProxyProtocol};
use ferry_session::{Hello, Origin, RejectCode, Session};
use ferry_text::Foreign;
use tokio::time::timeout;

use crate::application::proxy_protocol;
use crate::limits::entries::{Entries, Service};
use crate::net::Stream;
use crate::peer::Peer;
use crate::sessions::driver::{Admitted, Driver, FIRST};
use crate::sessions::handle::{SessionHandle, SessionName};
use crate::sessions::intake::{self, Refused};
use crate::sessions::mailbox::Command;
use crate::sessions::{self, NotRegistered};
use crate::shared::Shared;
use crate::telemetry::events::Event;
use crate::telemetry::metrics::{ByRefusal, Refusal};
use crate::telemetry::repeats::{Kind, Line};
use crate::transport::link::Link;
use crate::transport::{dial, tls};
use crate::workers::Load;

/// Longest wait for the application's host to accept the connection.
const APP_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An Open that was not answered for this long may have been sent again: an opener does so after 2 s.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// An application that has not accepted a connection by then holds up no other session.
const CONNECTED_AT_ONCE_TIMEOUT: Duration = Duration::from_millis(10);

/// Opens a session that the peer asks for, or tells it why not.
pub(super) fn open(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    name: SessionName,
    hello: Hello<'static>,
    origin: Option<Origin>,
    link: Link,
) {
    let config = shared.config();
    let admitted = allowed(shared, config.service(&hello.service, &peer.name)).and_then(|ingress| {
        Ok((ingress.clone(), admit(shared, peer, name, (ingress, &config.limits), origin, &link)?))
    });
    match admitted {
        // Another link has just brought its Hello.
        Ok((_, None)) => intake::on_hello(shared, peer, hello, origin, link),
        Ok((ingress, Some(admitted))) => {
            let (opening, worker) = (shared.clone(), admitted.slot.runtime().clone());
            let serve = async move { serve(&opening, admitted, hello, link, &ingress).await };
            shared.spawn_session_at(&worker, serve);
        }
        Err((reason, refused)) => {
            shared.metrics.refused.get_or_create(&ByRefusal { reason }).inc();
            shared.events.tell(Event::SessionRefused {
                peer: peer.name.to_string(),
                service: Foreign(&hello.service).to_string(),
                reason: reason.as_str(),
                text: refused.reason.to_string(),
            });
            let kind = Kind::new(reason.as_str()).peer(&peer.name).service(Foreign(&hello.service));
            let line = Line::info(format!("session refused: {}", refused.reason));
            shared.repeats.tell(kind, line.session(hello.session));
            intake::reject(shared, peer, link, refused);
        }
    }
}

fn allowed<'a>(shared: &Shared, ingress: Option<&'a Ingress>) -> Result<&'a Ingress, (Refusal, Refused)> {
    if shared.draining.is_cancelled() {
        return Err((Refusal::Draining, Refused::new(RejectCode::Draining, "the tunnel is shutting down")));
    }
    ingress.ok_or_else(|| {
        let refused = Refused::new(RejectCode::Service, "no such service, or this peer may not reach it");
        (Refusal::Service, refused)
    })
}

/// What the session needs from before it begins; nothing if it is there already.
fn admit(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    name: SessionName,
    (ingress, limits): (&Ingress, &Entries),
    origin: Option<Origin>,
    link: &Link,
) -> Result<Option<Admitted>, (Refusal, Refused)> {
    let limit = |what: &'static str| (Refusal::Limit, Refused::new(RejectCode::Limit, what));
    let lease = shared.memory.reserve(&peer.name).ok_or_else(|| limit("no memory is left for another session"))?;
    // Only a service that is configured is kept by its name.
    let handle = SessionHandle::new(name, ingress.service.as_str(), Some(link.facts().instance));
    match shared.sessions.register(handle.from(origin)) {
        Ok(registration) => {
            // After that: a Hello that comes twice is not a session more.
            let permits = limits.admit(&peer.name, &Service::Ingress(ingress.service.as_str()));
            let permits = permits
                .map_err(|exceeded| (Refusal::of(&exceeded), Refused::new(RejectCode::Limit, exceeded.to_string())))?;
            Ok(Some(Admitted {
                slot: shared.workers.slot(Load::Light),
                peer: peer.clone(),
                registration,
                lease,
                permits,
            }))
        }
        Err(NotRegistered::Taken) => Ok(None),
        Err(NotRegistered::Full) => Err(limit("the session limit is reached")),
    }
}

/// Connects to the application, then starts the session.
async fn serve(shared: &Arc<Shared>, admitted: Admitted, hello: Hello<'static>, link: Link, ingress: &Ingress) {
    let (peer, forward) = (&admitted.peer, &ingress.forward);
    // Noted before anything is connected to: a process that comes after this one must not connect to it a second time.
    let session = Session::acceptor(shared.now(), &hello, shared.settings(&admitted.lease));
    let preamble = match ingress.proxy_protocol {
        Some(ProxyProtocol::V2) => proxy_protocol::header(&admitted.registration),
        None => Vec::new(),
    };
    let survival = shared.survival.as_ref();
    let kept = survival.and_then(|survival| survival.note(&admitted.registration, &session, preamble.len()));
    let turn = peer.arrivals.turn(hello.session).await;
    let connected = connect_local(shared, forward, &preamble);
    tokio::pin!(connected);
    // Whoever is next waits for an application that accepts at once, and for no other.
    let at_once = timeout(CONNECTED_AT_ONCE_TIMEOUT, &mut connected).await;
    drop(turn);
    let connected = match at_once {
        Ok(connected) => connected,
        Err(_) => connected.await,
    };
    let mut local = match connected {
        Ok(local) => local,
        Err(error) => {
            let reason = format!("the application at {forward} cannot be reached: {error}");
            shared.events.tell(Event::SessionRefused {
                peer: peer.name.to_string(),
                service: admitted.registration.service.to_string(),
                reason: Refusal::Unreachable.as_str(),
                text: reason.clone(),
            });
            let kind =
                Kind::new(Refusal::Unreachable.as_str()).peer(&peer.name).service(&admitted.registration.service);
            let line = Line::warn(format!("session refused: {reason}"));
            shared.repeats.tell(kind, line.session(hello.session));
            shared.metrics.refused.get_or_create(&ByRefusal { reason: Refusal::Unreachable }).inc();
            return refuse_opening(shared, &admitted, &hello, link, &reason);
        }
    };
    if let Some(kept) = &kept {
        kept.hold(&mut *local);
    }
    let mut driver = Driver::new(shared.clone(), admitted, session, local, kept);
    driver.accept(&hello, Box::new(link));
    driver.start();
}

/// Tells the opener over every link that it has sent the Open on: it reads the newest one only.
fn refuse_opening(shared: &Arc<Shared>, admitted: &Admitted, hello: &Hello<'_>, link: Link, reason: &str) {
    let (peer, registration) = (&admitted.peer, &admitted.registration);
    let mut last = hello.epoch;
    let mut links = vec![link];
    for command in registration.mailbox.close() {
        if let Command::Attach(again, link) = command {
            last = last.max(again.epoch);
            links.push(*link);
        }
    }
    // Where one Open was sent again another may be on its way: it must not connect to the application a second time.
    if last > FIRST || registration.opened.elapsed() >= REOPEN_TIMEOUT {
        sessions::bury(shared, registration, 0);
    }
    for link in links {
        intake::reject(shared, peer, link, Refused::new(RejectCode::Unreachable, reason.to_owned()));
    }
}

/// Connects to the application at the first of its addresses that answers, which gets `preamble` first.
async fn connect_local(shared: &Shared, forward: &HostPort, preamble: &[u8]) -> Result<Box<dyn Stream>, String> {
    let connect = async {
        let connected = dial::connect_to_app(&shared.network, &shared.forwards, forward).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        tls::send(&mut *stream, preamble).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(stream)
    };
    let mut stream = match timeout(APP_CONNECT_TIMEOUT, connect).await {
        Ok(connected) => connected?,
        Err(_) => return Err(format!("no connection within {APP_CONNECT_TIMEOUT:?}")),
    };
    stream.reset_unless_ended();
    Ok(stream)
}
