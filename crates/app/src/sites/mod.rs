//! The far web-apps of this one: any number of sites at a terminator, one at an initiator.
//!
//! A site is the far web-app behind one peer, by the name that the tunnel gives that peer. Each has an outbox of its own, with
//! a sender id of its own, and a connection of its own. The first site has no name until a peer is named: it is the only one
//! of a web-app whose tunnel names none.

mod site;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use crate::message::SenderId;
use crate::outbox::{Depth, Limits, Outbox, Pool};
use crate::peer::PeerName;
use crate::store::StoredSite;
pub(crate) use site::Site;
pub(crate) use target::{Target, TargetError};

/// Sites that a terminator knows.
pub(crate) const MAX_SITES: usize = 1000;
/// The number of the first site, which every store has.
const FIRST: u64 = 0;

pub(crate) struct Sites {
    pool: Arc<Pool>,
    limits: Limits,
    /// A watch is the lock and the wake-up in one.
    state: watch::Sender<State>,
}

struct State {
    /// By their numbers; the first is always there.
    all: Vec<Arc<Site>>,
    next: u64,
    /// Numbers of sites that are to be removed from the store.
    forgotten: BTreeSet<u64>,
}

/// Why a connection is that of no site.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    #[error("peers connect here, but the tunnel names no peer: set proxy_protocol: v2 there")]
    Unnamed,
    #[error("{MAX_SITES} sites are known here already: forget one by DELETE /sites/NAME")]
    TooMany,
    #[error("there is no randomness for the id of a new site: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why a site is not forgotten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForgetError {
    #[error("there is no site {0:?}; GET /status lists them")]
    Unknown(String),
    #[error("site {0} is connected: withdraw its peer from the tunnel first")]
    Connected(PeerName),
}

impl Sites {
    /// The sites that the store holds, the first one included.
    pub(crate) fn new(stored: Vec<StoredSite>, limits: Limits) -> Self {
        let pool = Arc::new(Pool::default());
        let all: Vec<_> = stored.into_iter().map(|site| Arc::new(Site::stored(site, limits, &pool))).collect();
        let next = all.last().map_or(FIRST, |site| site.number) + 1;
        pool.share_between(all.len());
        Self { pool, limits, state: watch::Sender::new(State { all, next, forgotten: BTreeSet::new() }) }
    }

    /// The first site.
    pub(crate) fn first(&self) -> Arc<Site> {
        self.state.borrow().all[0].clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Site>> {
        self.state.borrow().all.clone()
    }

    /// Those that somebody may mean: all that have a name, or else the first.
    pub(crate) fn known(&self) -> Vec<Arc<Site>> {
        self.state.borrow().known().cloned().collect()
    }

    /// Whether senders have to be told apart.
    pub(crate) fn are_several(&self) -> bool {
        self.state.borrow().known().nth(1).is_some()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What all outboxes hold.
    pub(crate) fn depth(&self) -> Depth {
        let held = self.pool.held();
        Depth { messages: held.messages, bytes: held.bytes }
    }

    /// The site behind this peer, which becomes known by it. What was accepted before any peer was named is for the first
    /// that is.
    pub(crate) fn connect(&self, peer: Option<&PeerName>) -> Result<Arc<Site>, SiteError> {
        let sender = SenderId::random()?;
        let mut result = Err(SiteError::TooMany);
        self.state.send_if_modified(|state| {
            let Some(name) = peer else {
                let is_alone = state.all.iter().all(|site| site.name().is_none());
                result = if is_alone { Ok(state.all[0].clone()) } else { Err(SiteError::Unnamed) };
                return false;
            };
            let site = match state.named(name.as_str()) {
                Some(site) => site.clone(),
                None if state.all[0].take_name(name) => state.all[0].clone(),
                None if state.all.len() >= MAX_SITES => return false,
                None => {
                    let outbox =
                        Outbox::new(self.pool.clone(), sender, self.limits, 0, Vec::new(), HashMap::new(), Vec::new());
                    let site = Arc::new(Site::new(state.next, Some(name.clone()), outbox));
                    state.next += 1;
                    state.all.push(site.clone());
                    self.pool.share_between(state.all.len());
                    site
                }
            };
            self.pool.work.notify_one();
            result = Ok(site);
            true
        });
        result
    }

    /// The sites that a trigger is for.
    pub(crate) fn resolve(&self, target: &Target) -> Result<Vec<Arc<Site>>, TargetError> {
        let state = self.state.borrow();
        match target {
            Target::Only => {
                let known: Vec<_> = state.known().collect();
                match known[..] {
                    [site] => Ok(vec![site.clone()]),
                    _ => Err(TargetError::Several(state.names())),
                }
            }
            Target::All => Ok(state.known().cloned().collect()),
            Target::Sites(names) => {
                let find = |name: &String| {
                    let unknown = || TargetError::Unknown { name: name.clone(), known: state.names() };
                    state.named(name).cloned().ok_or_else(unknown)
                };
                names.iter().map(find).collect()
            }
        }
    }

    /// The site with this name, or the first for none.
    pub(crate) fn of(&self, peer: Option<&PeerName>) -> Option<Arc<Site>> {
        let state = self.state.borrow();
        match peer {
            Some(peer) => state.named(peer.as_str()).cloned(),
            None => state.all.first().cloned(),
        }
    }

    /// Forgets a site with what is in its outbox, and returns how many messages that was once the store has none of it.
    pub(crate) async fn forget(&self, name: &str) -> Result<usize, ForgetError> {
        let mut result = Err(ForgetError::Unknown(name.to_owned()));
        let mut number = 0;
        self.state.send_if_modified(|state| {
            let named = |site: &Arc<Site>| site.name().filter(|known| known.as_str() == name).cloned();
            let found = state.all.iter().enumerate().find_map(|(at, site)| Some((at, named(site)?)));
            let Some((at, known)) = found else { return false };
            let site = state.all[at].clone();
            let dropped = site.outbox.depth().messages;
            let Some(_free) = site.slot.try_occupy() else {
                result = Err(ForgetError::Connected(known));
                return false;
            };
            let last = site.outbox.close();
            number = site.number;
            if number == FIRST {
                // The first one stays, as that of nobody.
                let sender = site.outbox.sender().clone();
                let outbox =
                    Outbox::new(self.pool.clone(), sender, self.limits, last, Vec::new(), HashMap::new(), Vec::new());
                state.all[at] = Arc::new(Site::new(FIRST, None, outbox));
            } else {
                state.all.remove(at);
                self.pool.share_between(state.all.len());
            }
            state.forgotten.insert(number);
            self.pool.work.notify_one();
            result = Ok(dropped);
            true
        });
        let dropped = result?;
        // Fails only if the watch's sender is gone, which `self` owns.
        let _ = self.state.subscribe().wait_for(|state| !state.forgotten.contains(&number)).await;
        Ok(dropped)
    }

    /// Whether there is something to store, and whether there is something to free.
    pub(crate) fn are_unstored(&self) -> (bool, bool) {
        let state = self.state.borrow();
        let (mut store, mut free) = (!state.forgotten.is_empty(), false);
        for (more, less) in state.all.iter().map(|site| site.is_unstored()) {
            (store, free) = (store || more, free || less);
        }
        (store, free)
    }

    /// Sites to be removed from the store.
    pub(crate) fn forgotten(&self) -> Vec<u64> {
        self.state.borrow().forgotten.iter().copied().collect()
    }

    /// Call when these are removed from the store.
    pub(crate) fn mark_forgotten(&self, numbers: &[u64]) {
        if !numbers.is_empty() {
            self.state.send_modify(|state| state.forgotten.retain(|number| !numbers.contains(number)));
        }
    }

    /// Waits until everything accepted is acknowledged, where there is somebody to acknowledge it: among several sites, one
    /// that is away is not waited for.
    pub(crate) async fn empty(&self) {
        let several = self.are_several();
        for site in self.known() {
            if !several || site.is_connected() {
                let mut far = site.far.subscribe();
                tokio::select! {
                    () = site.outbox.empty() => {}
                    _ = far.wait_for(|far| several && far.is_none()) => {}
                }
            }
        }
    }
}

impl State {
    fn known(&self) -> impl Iterator<Item = &Arc<Site>> {
        let unnamed = self.all.iter().all(|site| site.name().is_none());
        self.all.iter().filter(move |site| unnamed || site.name().is_some())
    }

    fn named(&self, name: &str) -> Option<&Arc<Site>> {
        self.all.iter().find(|site| site.name().is_some_and(|known| known.as_str() == name))
    }

    fn names(&self) -> Vec<PeerName> {
        self.all.iter().filter_map(|site| site.name().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
