//! Peers that dial this end: strangers cost no more than a handshake.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::dial::HANDSHAKE;
use crate::link::LinkError;
use crate::metrics::{LinkFailure, Role};
use crate::net::{Listener, Stream};
use crate::shared::Shared;
use crate::tls::{Acceptor, TlsError};

/// A whole ClientHello has to be here after this long.
const CLIENT_HELLO: Duration = Duration::from_secs(2);

/// Sockets that have not sent their ClientHello; the oldest makes way for a new one.
const MAX_SILENT: usize = 1024;

/// How long a handshake waits for its turn: its dialler waits about as long.
const TURN: Duration = HANDSHAKE;

/// After an accept that failed for want of something: time for others to end.
const BREATHE: Duration = Duration::from_millis(100);

/// Takes peers' connections until the tunnel stops: a draining end still lets its sessions resume.
pub(crate) async fn listen(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    let silent = Arc::new(Silent::default());
    let turns = Arc::new(Turns::new(shared.plan().config.limits.handshakes as usize));
    loop {
        let accepted = tokio::select! {
            () = shared.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (shared, silent, turns) = (shared.clone(), silent.clone(), turns.clone());
                shared.clone().tasks.spawn(async move {
                    tokio::select! {
                        () = shared.stopping() => {}
                        () = accept(&shared, &silent, &turns, stream, from) => {}
                    }
                });
            }
            Err(error) => {
                warn!("cannot accept a peer's connection: {error}");
                tokio::time::sleep(BREATHE).await;
            }
        }
    }
}

async fn accept(shared: &Arc<Shared>, silent: &Silent, turns: &Turns, mut stream: Box<dyn Stream>, from: SocketAddr) {
    let fail = |reason: LinkFailure, text: &dyn std::fmt::Display| {
        debug!(%from, "link not made: {text}");
        shared.metrics.link_failed(Role::Acceptor, reason);
    };
    let mut evicted = silent.enter();
    let hello = tokio::select! {
        hello = timeout(CLIENT_HELLO, Acceptor::client_hello(&mut *stream)) => hello,
        _ = &mut evicted => return fail(LinkFailure::Limit, &"too many silent connections"),
    };
    drop(evicted);
    let hello = match hello {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return fail(error.failure(), &error),
        Err(_) => return fail(LinkFailure::Timeout, &"no ClientHello in time"),
    };
    let plan = shared.plan();
    let Ok(turn) = timeout(TURN, turns.enter(from.ip())).await else {
        return fail(LinkFailure::Limit, &"too many handshakes at once");
    };
    let handshake = async {
        let established = plan.acceptor.handshake(stream, hello).await?;
        // The plan that accepted the key: another may be in force by now.
        let key = established.proven.key;
        let peer = plan.peer_of(&key).ok_or(TlsError::Unlisted(key))?;
        peer.round_trip.note(established.round_trip);
        let link = shared.establish(established, None).await?;
        Ok::<_, LinkError>((peer, link))
    };
    let made = timeout(HANDSHAKE, handshake).await;
    drop(turn);
    match made {
        Ok(Ok((peer, link))) => {
            shared.metrics.link_made(Role::Acceptor);
            shared.take_accepted(peer, link);
        }
        Ok(Err(error)) => fail(error.failure(), &error),
        Err(_) => fail(LinkFailure::Timeout, &"no handshake in time"),
    }
}

/// Connections that have said nothing yet, oldest first.
#[derive(Default)]
struct Silent(Mutex<VecDeque<oneshot::Sender<()>>>);

impl Silent {
    /// One more; resolves when it has to make way.
    fn enter(&self) -> oneshot::Receiver<()> {
        let (evict, evicted) = oneshot::channel();
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.len() >= MAX_SILENT {
            silent.retain(|evict| !evict.is_closed());
        }
        if silent.len() >= MAX_SILENT
            && let Some(oldest) = silent.pop_front()
        {
            // It may have spoken in this moment: then there is nobody to tell.
            let _ = oldest.send(());
        }
        silent.push_back(evict);
        evicted
    }
}

/// Handshakes under way: a bound, and for no source address more than half of it.
struct Turns {
    limit: usize,
    state: Mutex<HashMap<IpAddr, usize>>,
    freed: tokio::sync::Notify,
}

impl Turns {
    fn new(limit: usize) -> Self {
        Self { limit: limit.max(2), state: Mutex::default(), freed: tokio::sync::Notify::new() }
    }

    async fn enter(&self, from: IpAddr) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            if self.try_enter(from) {
                return Turn { turns: self, from };
            }
            freed.await;
        }
    }

    fn try_enter(&self, from: IpAddr) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = state.values().sum();
        let own = state.get(&from).copied().unwrap_or_default();
        let room = total < self.limit && own < self.limit / 2;
        if room {
            state.insert(from, own + 1);
        }
        room
    }
}

/// A handshake's place.
struct Turn<'a> {
    turns: &'a Turns,
    from: IpAddr,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = state.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                state.remove(&self.from);
            }
        }
        drop(state);
        self.turns.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_silent_connection_makes_way() {
        let silent = Silent::default();
        let mut waiting: Vec<_> = (0..MAX_SILENT).map(|_| silent.enter()).collect();
        // One that has spoken makes room by itself.
        drop(waiting.remove(1));
        let _next = silent.enter();
        assert!(waiting[0].try_recv().is_err(), "nobody has to make way yet");
        let _another = silent.enter();
        assert!(waiting[0].try_recv().is_ok(), "the oldest has to make way");
        assert!(waiting[1..].iter_mut().all(|evicted| evicted.try_recv().is_err()), "and nobody else");
    }

    #[test]
    fn no_source_takes_more_than_half_of_the_handshakes() {
        let turns = Turns::new(8);
        let [near, far] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let granted = |from| (0..8).filter(|_| turns.try_enter(from)).count();
        assert_eq!((granted(near), granted(near)), (4, 0));
        assert_eq!(granted(far), 4, "the other half is there for others");
        drop(Turn { turns: &turns, from: near });
        assert_eq!((granted(far), granted(near)), (0, 1));
    }
}
