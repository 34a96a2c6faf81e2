//! Whether a peer that dials this end is there: the log says when its first link comes and when its last one goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_config::Name;

use crate::telemetry::events::{Event, Events};
use crate::telemetry::repeats::{Kind, Line, Repeats};

/// The links of one peer that it has dialled.
#[derive(Debug, Default)]
pub(crate) struct Presence(AtomicUsize);

/// One of them.
#[derive(Debug)]
pub(crate) struct Present {
    presence: Arc<Presence>,
    repeats: Arc<Repeats>,
    events: Arc<Events>,
    peer: Name,
}

impl Present {
    pub(crate) fn new(presence: &Arc<Presence>, peer: &Name, repeats: &Arc<Repeats>, events: &Arc<Events>) -> Self {
        if presence.0.fetch_add(1, Ordering::Relaxed) == 0 {
            repeats.tell(Kind::new("connected").peer(peer), Line::info("peer connected"));
            events.tell(Event::PeerConnected { peer: peer.to_string() });
        }
        Self { presence: presence.clone(), repeats: repeats.clone(), events: events.clone(), peer: peer.clone() }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if self.presence.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            let line = Line::info("peer lost: none of its links is left");
            self.events.tell(Event::PeerLost { peer: self.peer.to_string() });
            self.repeats.tell(Kind::new("lost").peer(&self.peer), line);
        }
    }
}
