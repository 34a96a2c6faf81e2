//! `prefer: auto`: which kind of a peer's addresses is dialled first, and who is told when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_config::Prefer;
use ferry_session::LinkKind;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

use crate::net::Carrier;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::supply::choice::{Choice, Chosen, Kind, Seen};
use crate::supply::doubt::Doubt;
use crate::telemetry::events::Event;
use crate::transport::dialler::Destination;

/// The choice among a peer's addresses, if there is one to make.
#[derive(Debug, Default)]
pub(super) struct Choosing {
    choice: Mutex<Option<Choice>>,
    /// There were addresses of both kinds when one was dialled last.
    has_both: AtomicBool,
    doubt: Mutex<Doubt>,
}

impl Choosing {
    pub(super) fn new(prefer: Prefer) -> Self {
        let choosing = Self::default();
        choosing.set(prefer);
        choosing
    }

    /// What was measured stays, unless nothing is to be chosen any more.
    pub(super) fn set(&self, prefer: Prefer) {
        let mut choice = self.choice.lock();
        match prefer {
            Prefer::Order => *choice = None,
            Prefer::Auto => drop(choice.get_or_insert_with(|| Choice::new(Instant::now()))),
        }
    }

    /// The kind that a dial for a link of the pool tries first, if it is not to keep to the order of the addresses.
    pub(super) fn first_for_pool(&self, destination: &Destination, link: LinkKind) -> Option<Kind> {
        let doubted = self.doubt.lock().take(Instant::now(), link) && destination.has_both_kinds();
        if doubted { Some(Kind::Tcp) } else { self.first(destination) }
    }

    /// The same of any other dial.
    pub(super) fn first(&self, destination: &Destination) -> Option<Kind> {
        let mut choice = self.choice.lock();
        let choice = choice.as_mut()?;
        let has_both = destination.has_both_kinds();
        self.has_both.store(has_both, Ordering::Relaxed);
        has_both.then(|| choice.first(Instant::now()))
    }
}

impl Peer {
    /// What carries its links is chosen by what is measured: links are to be looked at.
    pub(crate) fn chooses(&self) -> bool {
        self.choosing.has_both.load(Ordering::Relaxed) && self.choosing.choice.lock().is_some()
    }

    /// A link over QUIC has gone silent, and one of this kind is to replace it.
    pub(crate) fn doubt_quic(&self, link: LinkKind) {
        self.choosing.doubt.lock().raise(Instant::now(), link);
    }

    /// What carries a link is not what is chosen: its dial was before the choice, or another address won the race.
    pub(crate) fn prefers_another(&self, carrier: Carrier) -> bool {
        let choice = self.choosing.choice.lock();
        let used = choice.as_ref().filter(|_| self.choosing.has_both.load(Ordering::Relaxed)).map(Choice::used);
        used.is_some_and(|used| used != Kind::of(carrier))
    }

    /// What is chosen, and why, if there is a choice.
    pub(crate) fn chosen(&self) -> Option<Chosen> {
        let choice = self.choosing.choice.lock();
        choice.as_ref().filter(|_| self.choosing.has_both.load(Ordering::Relaxed)).map(Choice::chosen)
    }

    /// A dial that tried `first` first was won by `won`.
    pub(super) fn on_raced(&self, shared: &Arc<Shared>, first: Kind, won: Carrier) {
        let change = self.change(|choice| choice.on_dialled(Instant::now(), first, Kind::of(won)));
        change.into_iter().for_each(|chosen| self.on_chosen(shared, &chosen));
    }

    /// The path of a link was looked at.
    pub(crate) fn on_seen(&self, shared: &Arc<Shared>, carrier: Carrier, seen: &Seen) {
        let change = self.change(|choice| choice.on_seen(Instant::now(), Kind::of(carrier), seen));
        change.into_iter().for_each(|chosen| self.on_chosen(shared, &chosen));
    }

    fn change(&self, on: impl FnOnce(&mut Choice) -> Option<Chosen>) -> Option<Chosen> {
        self.choosing.choice.lock().as_mut().and_then(on)
    }

    /// Tells of it, and has warm links follow. Sessions do so for themselves once they carry something; over what is blocked
    /// they resume.
    fn on_chosen(&self, shared: &Arc<Shared>, chosen: &Chosen) {
        let Chosen { kind, reason, .. } = chosen;
        info!(peer = %self.name, "links are carried by {kind} now: {reason}");
        shared.events.tell(Event::CarrierChosen {
            peer: self.name.to_string(),
            carrier: kind.as_str(),
            reason: reason.clone(),
        });
        self.pool.retain(|link| Kind::of(link.facts().carrier) == *kind);
        self.pool.wake();
        self.renew_offers();
    }
}
