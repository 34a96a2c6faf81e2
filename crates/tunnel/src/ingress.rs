//! Links that wait for the peer's Hello, and what is done with it.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferry_config::HostPort;
use ferry_session::{Frame, Hello, Instance, Intent, LinkKind, Reject, RejectCode, Session, Side};
use ferry_text::Foreign;
use tokio::time::timeout;
use tracing::debug;

use crate::dial;
use crate::driver::{Admitted, Driver, FIRST};
use crate::link::{Link, LinkError};
use crate::mailbox::Command;
use crate::metrics::{ByRefusal, LinkFailure, Refusal, Role};
use crate::net::Stream;
use crate::peer::Peer;
use crate::repeats::{Kind, Line};
use crate::sessions::{Added, Entry, Found, Key};
use crate::shared::Shared;

/// A warm link that nobody uses for this long is closed by the end that waits; its dialler replaces it long before.
const IDLE: Duration = Duration::from_secs(25 * 3600);

/// Longest wait for the application's host to accept the connection.
const FORWARD: Duration = Duration::from_secs(5);

/// An Open that was not answered for this long may have been sent again: an opener does so after 2 s.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// An application that has not accepted a connection by then holds up no other session.
const CONNECTED_AT_ONCE_TIMEOUT: Duration = Duration::from_millis(10);

/// Links of one peer that may wait for its Hello.
const MAX_WAITING: usize = 512;

/// Former instances that one link may tell of: each is looked for among all sessions.
const MAX_GONE: usize = 16;

/// Why a Hello is refused.
struct Refused {
    code: RejectCode,
    received: u64,
    reason: Cow<'static, str>,
}

impl Refused {
    fn new(code: RejectCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, received: 0, reason: reason.into() }
    }
}

impl Shared {
    /// A link whose Preface is exchanged: the end that does not send the Hello waits for it.
    pub(crate) fn take_accepted(self: &Arc<Self>, peer: &Arc<Peer>, link: Link) {
        match link.facts().kind {
            LinkKind::Own => self.await_hello(peer, link),
            LinkKind::Offered => {
                if let Err(link) = peer.pool.give(link).map_err(|link| *link) {
                    self.refuse_unused(peer, Role::Acceptor, link, &LinkError::TooMany);
                }
            }
        }
    }

    /// Waits for the peer's Hello on this link, in the background.
    pub(crate) fn await_hello(self: &Arc<Self>, peer: &Arc<Peer>, mut link: Link) {
        // It did not dial an own link of the other end's, and did dial one that it offered.
        let role = if link.facts().kind == LinkKind::Own { Role::Acceptor } else { Role::Dialler };
        let waiting = Waiting::new(peer.clone());
        if waiting.is_over_limit() {
            return self.refuse_unused(peer, role, link, &LinkError::TooMany);
        }
        let shared = self.clone();
        let worker = self.workers.place().handle().clone();
        let wait = async move {
            link = link.settle();
            let (mut hello, mut former) = (None, 0);
            let take = &mut |frame: Frame<'_>| {
                hello = match frame {
                    Frame::Gone { instance } if former < MAX_GONE => {
                        former += 1;
                        gone(&shared, &waiting.0, instance);
                        return ControlFlow::Continue(());
                    }
                    Frame::Hello(frame) => Some(Ok(owned(&frame))),
                    other => Some(Err(other.name())),
                };
                ControlFlow::Break(())
            };
            let (established, every) = (link.facts().established, shared.plan().config.settings.rotation.every);
            let offerer = waiting.0.clone();
            let ended = tokio::select! {
                () = shared.stopping() => return,
                () = offerer.offer_is_over(established, every), if role == Role::Dialler => return,
                ended = timeout(IDLE, link.frames_until_break(take)) => ended,
            };
            let peer = waiting.done();
            if !peer.accepts(&link.facts().key) {
                return;
            }
            let broken = match (ended, hello) {
                (Ok(Ok(())), Some(Ok(hello))) => return shared.on_hello(&peer, hello, link),
                (Ok(Ok(())), Some(Err(name))) => LinkError::OutOfPlace(name),
                (Ok(Err(error)), _) => error,
                (Err(_), _) | (_, None) => return,
            };
            shared.refuse_unused(&peer, role, link, &broken);
        };
        self.tasks.spawn_on(wait, &worker);
    }

    /// Refuses a link that has not had a Hello. That one has just ended is no news.
    pub(crate) fn refuse_unused(self: &Arc<Self>, peer: &Peer, role: Role, link: Link, error: &LinkError) {
        if error.failure() == LinkFailure::Closed {
            return;
        }
        let kind = Kind::new(error.failure().as_str()).peer(&peer.name);
        self.repeats.tell(kind, Line::warn(format!("link refused: {error}")));
        self.metrics.link_failed(role, error.failure());
        if let Some(reject) = error.to_reject() {
            self.reject_link(link, reject);
        }
    }

    fn on_hello(self: &Arc<Self>, peer: &Arc<Peer>, hello: Hello<'static>, link: Link) {
        let key = Key { peer: peer.name.clone(), side: Side::Acceptor, id: hello.session };
        match self.sessions.find(&key) {
            Found::Live(entry) => {
                if let Err(Command::Attach(_, link)) = entry.mailbox.send(Command::Attach(hello, Box::new(link))) {
                    self.reject(peer, *link, Refused::new(RejectCode::Unknown, "the session has just ended"));
                }
            }
            Found::Ended(received) => {
                let reason = Cow::Borrowed("the session has ended");
                self.reject(peer, link, Refused { code: RejectCode::Closed, received, reason });
            }
            Found::Unknown if hello.intent == Intent::Open => self.open(peer, key, hello, link),
            Found::Unknown => self.reject_unknown(peer, hello.intent, link),
        }
    }

    /// Another process may have the session, or have had it: the opener is told of those that are known to be dead. A
    /// rotation leaves its session where it is, whatever is answered.
    fn reject_unknown(self: &Arc<Self>, peer: &Peer, intent: Intent, mut link: Link) {
        if intent == Intent::Resume && self.memoir.gone().any(|gone| link.push(&gone).is_err()) {
            return;
        }
        self.reject(
            peer,
            link,
            Refused::new(RejectCode::Unknown, "this process of the tunnel does not have the session"),
        );
    }

    /// A new session for an application here.
    fn open(self: &Arc<Self>, peer: &Arc<Peer>, key: Key, hello: Hello<'static>, link: Link) {
        let plan = self.plan();
        let ingress = match plan.service(&hello.service, &peer.name) {
            _ if self.draining.is_cancelled() => {
                Err((Refusal::Draining, Refused::new(RejectCode::Draining, "the tunnel is shutting down")))
            }
            None => Err((
                Refusal::Service,
                Refused::new(RejectCode::Service, "no such service, or this peer may not reach it"),
            )),
            Some(ingress) => Ok(ingress),
        };
        let instance = link.facts().instance;
        let opened = ingress.and_then(|ingress| {
            // Only a service that is configured is kept by its name.
            let entry = Arc::new(Entry::new(key, ingress.service.as_str(), Some(instance)));
            let limit = |what: &'static str| (Refusal::Limit, Refused::new(RejectCode::Limit, what));
            let lease =
                self.memory.reserve(&peer.name).ok_or_else(|| limit("no memory is left for another session"))?;
            match self.sessions.add(entry.clone()) {
                Added::New => Ok(Some((ingress.forward.clone(), lease, entry))),
                Added::Taken => Ok(None),
                Added::Full => Err(limit("the session limit is reached")),
            }
        });
        match opened {
            // Another link has just brought its Hello.
            Ok(None) => self.on_hello(peer, hello, link),
            Ok(Some((forward, lease, entry))) => {
                let place = self.workers.place();
                let (shared, worker) = (self.clone(), place.handle().clone());
                let admitted = Admitted { place, peer: peer.clone(), entry, lease };
                let serve = async move { shared.serve(admitted, hello, link, forward).await };
                self.spawn_session_at(&worker, serve);
            }
            Err((reason, refused)) => {
                self.metrics.refused.get_or_create(&ByRefusal { reason }).inc();
                let kind = Kind::new(reason.as_str()).peer(&peer.name).service(Foreign(&hello.service));
                let line = Line::info(format!("session refused: {}", refused.reason));
                self.repeats.tell(kind, line.session(hello.session));
                self.reject(peer, link, refused);
            }
        }
    }

    /// Connects to the application, then starts the session.
    async fn serve(self: Arc<Self>, admitted: Admitted, hello: Hello<'static>, link: Link, forward: HostPort) {
        let peer = &admitted.peer;
        let turn = peer.arrivals.turn(hello.session).await;
        let connected = self.connect_local(&forward);
        tokio::pin!(connected);
        // Whoever is next waits for an application that accepts at once, and for no other.
        let at_once = timeout(CONNECTED_AT_ONCE_TIMEOUT, &mut connected).await;
        drop(turn);
        let connected = match at_once {
            Ok(connected) => connected,
            Err(_) => connected.await,
        };
        let local = match connected {
            Ok(local) => local,
            Err(error) => {
                let reason = format!("the application at {forward} cannot be reached: {error}");
                let kind = Kind::new(Refusal::Unreachable.as_str()).peer(&peer.name).service(&admitted.entry.service);
                let line = Line::warn(format!("session refused: {reason}"));
                self.repeats.tell(kind, line.session(hello.session));
                self.metrics.refused.get_or_create(&ByRefusal { reason: Refusal::Unreachable }).inc();
                return self.refuse_opening(&admitted, &hello, link, &reason);
            }
        };
        let session = Session::acceptor(self.now(), &hello, self.settings(&admitted.lease));
        let mut driver = Driver::new(self.clone(), admitted, session, local);
        driver.accept(&hello, Box::new(link));
        driver.start();
    }

    /// Tells the opener over every link that it has sent the Open on: it reads the newest one only.
    fn refuse_opening(self: &Arc<Self>, admitted: &Admitted, hello: &Hello<'_>, link: Link, reason: &str) {
        let (peer, entry) = (&admitted.peer, &admitted.entry);
        let mut last = hello.epoch;
        let mut links = vec![link];
        for command in entry.mailbox.close() {
            if let Command::Attach(again, link) = command {
                last = last.max(again.epoch);
                links.push(*link);
            }
        }
        let window = self.plan().config.settings.resume.window;
        // Where one Open was sent again another may be on its way: it must not connect to the application anew.
        let forgotten = last <= FIRST && entry.opened.elapsed() < OPEN_AGAIN;
        self.sessions.remove(&entry.key, 0, forgotten, window);
        for link in links {
            self.reject(peer, link, Refused::new(RejectCode::Unreachable, reason.to_owned()));
        }
    }

    /// Connects to the application at the first of its addresses that answers.
    async fn connect_local(&self, forward: &HostPort) -> Result<Box<dyn Stream>, String> {
        let connect = dial::connect_to(&self.network, &self.forwards, std::slice::from_ref(forward), None);
        let mut stream = match timeout(FORWARD, connect).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no connection within {FORWARD:?}")),
        };
        stream.reset_unless_ended();
        Ok(stream)
    }

    fn reject(self: &Arc<Self>, peer: &Peer, link: Link, refused: Refused) {
        debug!(peer = %peer.name, "hello rejected: {}", refused.reason);
        let Refused { code, received, reason } = refused;
        self.metrics.attach_refused(code);
        self.reject_link(link, Reject { code, received, reason });
    }
}

/// The peer was restarted: the sessions of its former process will not come back, nor are its links of use.
fn gone(shared: &Shared, peer: &Peer, instance: Instance) {
    // A session that opens on one of its links would be lost.
    peer.pool.retain(|link| link.facts().instance != instance);
    let sessions = shared.sessions.list(usize::MAX).into_iter();
    let orphans = sessions.filter(|entry| entry.key.peer == peer.name && entry.peer_instance() == Some(instance));
    for entry in orphans {
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
        peer.offered.fetch_add(1, Ordering::Relaxed);
        Self(peer)
    }

    fn is_over_limit(&self) -> bool {
        self.0.offered.load(Ordering::Relaxed) > MAX_WAITING
    }

    fn done(self) -> Arc<Peer> {
        self.0.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.offered.fetch_sub(1, Ordering::Relaxed);
        // An end that does not dial has nothing to replace it by.
        if self.0.is_dialled() {
            self.0.pool.wake();
        }
    }
}
