//! Links that wait for the peer's Hello, and what is done with it.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry_session::{Frame, Hello, Instance, Intent, LinkKind, Origin, Reject, RejectCode, Side};
use tokio::time::timeout;
use tracing::debug;

use crate::peer::Peer;
use crate::sessions::handle::SessionName;
use crate::sessions::mailbox::Command;
use crate::sessions::{Found, opening};
use crate::shared::Shared;
use crate::telemetry::events::Event;
use crate::telemetry::metrics::{LinkFailure, Role};
use crate::telemetry::repeats::{Kind, Line};
use crate::transport;
use crate::transport::link::{Link, LinkError};
use crate::workers::Load;

/// A warm link that nobody uses for this long is closed by the end that waits; its dialler replaces it long before.
const WARM_LINK_MAX_AGE: Duration = Duration::from_secs(25 * 3600);

/// Links of one peer that may wait for its Hello.
const MAX_WAITING: usize = 512;

/// Previous instances that one link may tell of: each is looked for among all sessions.
const MAX_GONE: usize = 16;

/// Why a Hello is refused.
pub(super) struct Refused {
    pub(super) code: RejectCode,
    received: u64,
    pub(super) reason: Cow<'static, str>,
}

impl Refused {
    pub(super) fn new(code: RejectCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, received: 0, reason: reason.into() }
    }
}

/// A link whose Preface is exchanged: the end that does not send the Hello waits for it.
pub(crate) fn take_accepted(shared: &Arc<Shared>, peer: &Arc<Peer>, link: Link) {
    match link.facts().kind {
        LinkKind::Own => await_hello(shared, peer, link),
        LinkKind::Offered => {
            if let Err(link) = peer.pool.give(link, None).map_err(|link| *link) {
                refuse_unused(shared, peer, Role::Listener, link, &LinkError::TooMany);
            }
        }
    }
}

/// Waits for the peer's Hello on this link, in the background.
pub(crate) fn await_hello(shared: &Arc<Shared>, peer: &Arc<Peer>, mut link: Link) {
    // It did not dial an own link of the other end's, and did dial one that it offered.
    let role = if link.facts().kind == LinkKind::Own { Role::Listener } else { Role::Dialler };
    let waiting = Waiting::new(peer.clone());
    if waiting.is_over_limit() {
        return refuse_unused(shared, peer, role, link, &LinkError::TooMany);
    }
    let (shared, tasks) = (shared.clone(), shared.tasks.clone());
    let worker = shared.workers.slot(Load::Light).runtime().clone();
    let wait = async move {
        link = link.register_here();
        let (mut hello, mut told, mut origin, tells_origin) = (None, 0, None, link.tells_origin());
        let take = &mut |frame: Frame<'_>| {
            hello = match frame {
                Frame::Gone { instance } if told < MAX_GONE => {
                    told += 1;
                    gone(&shared, &waiting.0, instance);
                    return ControlFlow::Continue(());
                }
                Frame::Origin(frame) if tells_origin && origin.is_none() => {
                    origin = Some(frame);
                    return ControlFlow::Continue(());
                }
                Frame::Hello(frame) => Some(Ok(owned(&frame))),
                other => Some(Err(other.name())),
            };
            ControlFlow::Break(())
        };
        let (established, every) = (link.facts().established, shared.config().tunnel.settings.rotation.every);
        let max_age = link.max_age(every);
        let offerer = waiting.0.clone();
        let ended = tokio::select! {
            () = shared.stopping() => return,
            () = offerer.offer_is_over(established, max_age), if role == Role::Dialler => return,
            ended = timeout(WARM_LINK_MAX_AGE, link.frames_until_break(take)) => ended,
        };
        let peer = waiting.done();
        if !peer.accepts(&link.facts().key) {
            return;
        }
        let broken = match (ended, hello) {
            (Ok(Ok(())), Some(Ok(hello))) => return on_hello(&shared, &peer, hello, origin, link),
            (Ok(Ok(())), Some(Err(name))) => LinkError::OutOfPlace(name),
            (Ok(Err(error)), _) => error,
            (Err(_), _) | (_, None) => return,
        };
        refuse_unused(&shared, &peer, role, link, &broken);
    };
    tasks.spawn_on(wait, &worker);
}

/// Refuses a link that has not had a Hello. That one has just ended is no news.
pub(crate) fn refuse_unused(shared: &Arc<Shared>, peer: &Peer, role: Role, link: Link, error: &LinkError) {
    if error.failure() == LinkFailure::Closed {
        return;
    }
    let kind = Kind::new(error.failure().as_str()).peer(&peer.name);
    shared.repeats.tell(kind, Line::warn(format!("link refused: {error}")));
    shared.metrics.link_failed(role, error.failure());
    shared.events.tell(Event::link_refused(&peer.name, role, error.failure(), error.to_string()));
    if let Some(reject) = error.to_reject() {
        transport::reject(shared, link, reject);
    }
}

pub(super) fn on_hello(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    hello: Hello<'static>,
    origin: Option<Origin>,
    link: Link,
) {
    let name = SessionName { peer: peer.name.clone(), side: Side::Acceptor, id: hello.session };
    match shared.sessions.find(&name) {
        Found::Live(entry) => {
            if let Err(Command::Attach(_, link)) = entry.mailbox.send(Command::Attach(hello, Box::new(link))) {
                reject(shared, peer, *link, Refused::new(RejectCode::Unknown, "the session has just ended"));
            }
        }
        Found::Ended(received) => {
            let reason = Cow::Borrowed("the session has ended");
            reject(shared, peer, link, Refused { code: RejectCode::Closed, received, reason });
        }
        Found::Unknown if hello.intent == Intent::Open => opening::open(shared, peer, name, hello, origin, link),
        Found::Unknown => reject_unknown(shared, peer, hello.intent, link),
    }
}

/// Another process may have the session, or have had it: the opener is told of those that are known to be dead. A
/// rotation leaves its session where it is, whatever is answered.
fn reject_unknown(shared: &Arc<Shared>, peer: &Peer, intent: Intent, mut link: Link) {
    if intent == Intent::Resume && shared.instance_file.gone().any(|gone| link.push(&gone).is_err()) {
        return;
    }
    reject(
        shared,
        peer,
        link,
        Refused::new(RejectCode::Unknown, "this process of the tunnel does not have the session"),
    );
}

pub(super) fn reject(shared: &Arc<Shared>, peer: &Peer, link: Link, refused: Refused) {
    debug!(peer = %peer.name, "hello rejected: {}", refused.reason);
    let Refused { code, received, reason } = refused;
    shared.metrics.attach_refused(code);
    transport::reject(shared, link, Reject { code, received, reason });
}

/// The peer was restarted: the sessions of its previous process will not come back, nor are its links of use.
fn gone(shared: &Shared, peer: &Peer, instance: Instance) {
    // A session that opens on one of its links would be lost.
    peer.pool.retain(|link| link.facts().instance != instance);
    let sessions = shared.sessions.list(usize::MAX).into_iter();
    let lost = sessions.filter(|entry| entry.name.peer == peer.name && entry.peer_instance() == Some(instance));
    for entry in lost {
        // One that has just ended is gone anyway.
        let _ = entry.mailbox.send(Command::PeerGone);
    }
}

fn owned(hello: &Hello<'_>) -> Hello<'static> {
    Hello { service: Cow::Owned(hello.service.clone().into_owned()), ..*hello }
}

/// A link that waits for a Hello, counted at its peer.
struct Waiting(Arc<Peer>);

impl Waiting {
    fn new(peer: Arc<Peer>) -> Self {
        peer.awaiting_hello.fetch_add(1, Ordering::Relaxed);
        Self(peer)
    }

    fn is_over_limit(&self) -> bool {
        self.0.awaiting_hello.load(Ordering::Relaxed) > MAX_WAITING
    }

    fn done(self) -> Arc<Peer> {
        self.0.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.awaiting_hello.fetch_sub(1, Ordering::Relaxed);
        // An end that does not dial has nothing to replace it by.
        if self.0.is_dialled() {
            self.0.pool.wake();
        }
    }
}
