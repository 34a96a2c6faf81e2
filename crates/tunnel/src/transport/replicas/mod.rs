//! The other replicas of this tunnel: which process is where, as each says itself. `docs/decisions/0088`.

pub(crate) mod mark;
pub(crate) mod splice;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::HostPort;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use crate::net::Network;
use crate::shared::Shared;
use crate::transport::hint::Hint;
use crate::transport::lookup::Lookups;
use crate::transport::tls::{TlsError, send};
use mark::MarkKey;

/// How often the others are asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// They are asked no sooner than this after the last time, whatever asks for them.
const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A replica has answered by then, or does not answer this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// One that has not answered for this long is forgotten. An engine that is restarted by its keeper is back long before.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Addresses that are asked at most.
const MAX_REPLICAS: usize = 64;

/// Where the other replicas are, and the connections that are led there.
pub(crate) struct Replicas {
    known: Mutex<Vec<Replica>>,
    lookups: Lookups,
    /// A process was asked for that is not known.
    missed: Notify,
    /// Connections that may be spliced at once.
    pub(crate) places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Replica {
    address: SocketAddr,
    /// Which process it is, then those that it was.
    hints: Vec<Hint>,
    answered: Instant,
}

impl Replicas {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            known: Mutex::default(),
            lookups: Lookups::default(),
            missed: Notify::new(),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// Where the process is, or the one that knows that it is gone.
    pub(crate) fn find(&self, hint: Hint) -> Option<SocketAddr> {
        let known = self.known.lock();
        let is = known.iter().find(|replica| replica.hints.first() == Some(&hint));
        let found = is.or_else(|| known.iter().find(|replica| replica.hints.contains(&hint)));
        if found.is_none() {
            self.missed.notify_one();
        }
        found.map(|replica| replica.address)
    }

    /// Takes what some have answered. Says how many there are.
    fn update(&self, answers: Vec<Replica>, now: Instant) -> usize {
        let mut known = self.known.lock();
        known.retain(|replica| {
            let is_over = |answer: &Replica| {
                // The same address, or the process that came after it elsewhere.
                answer.address == replica.address || replica.hints.first().is_some_and(|is| answer.hints.contains(is))
            };
            now.saturating_duration_since(replica.answered) < MAX_SILENCE && !answers.iter().any(is_over)
        });
        known.extend(answers);
        known.len()
    }
}

/// This process, and those that it was: who asks for one of them is answered here.
pub(crate) fn own_hints(shared: &Shared) -> impl Iterator<Item = Hint> {
    shared.instance_file.instances().into_iter().map(Hint::of)
}

/// Asks the others again and again, until the tunnel stops.
pub(crate) async fn keep_asking(shared: Arc<Shared>) {
    let asking = async {
        loop {
            shared.config_where(|config| config.marks.is_some()).await;
            look(&shared).await;
            sleep(MIN_LOOK_INTERVAL).await;
            tokio::select! {
                () = sleep(LOOK_INTERVAL - MIN_LOOK_INTERVAL) => {}
                () = shared.replicas.missed.notified() => {}
            }
        }
    };
    tokio::select! {
        () = shared.stopping() => {}
        () = asking => {}
    }
}

/// Asks each once.
async fn look(shared: &Arc<Shared>) {
    let config = shared.config();
    let Some(marks) = &config.marks else { return };
    let own = Hint::of(shared.instance);
    let addresses = resolve(shared, &config.tunnel.replicas).await;
    let asks = addresses.into_iter().take(MAX_REPLICAS).map(async |address| {
        let answer = timeout(ASK_TIMEOUT, ask(&*shared.network, marks, address)).await;
        match answer {
            Ok(Ok(hints)) => Some(Replica { address, hints, answered: Instant::now() }),
            Ok(Err(error)) => {
                debug!(%address, "a replica does not answer: {error}");
                None
            }
            Err(_) => None,
        }
    });
    let answers = join_all(asks).await.into_iter().flatten();
    // One of the addresses is this end's own.
    let others: Vec<_> = answers.filter(|replica| replica.hints.first() != Some(&own)).collect();
    let known = shared.replicas.update(others, Instant::now());
    if shared.metrics.replicas.set(known as i64) != known as i64 {
        info!(replicas = known, "other replicas that answer");
    }
}

async fn resolve(shared: &Shared, targets: &[HostPort]) -> BTreeSet<SocketAddr> {
    let lookups = &shared.replicas.lookups;
    lookups.retain(|name| targets.contains(name));
    let found = targets.iter().map(async |target| {
        let found = lookups.find(&shared.network, target);
        match found.asking {
            // A lookup has an end, with or without an answer: then what is known already has to do.
            Some(asking) => asking.answer().await.unwrap_or(found.addresses),
            None => found.addresses,
        }
    });
    join_all(found).await.into_iter().flatten().collect()
}

/// Which process a replica is, and was.
async fn ask(network: &dyn Network, marks: &MarkKey, address: SocketAddr) -> Result<Vec<Hint>, TlsError> {
    let mut stream = network.connect(address).await?;
    let (ask, nonce) = marks.ask()?;
    send(&mut *stream, &ask).await?;
    marks.receive_answer(&mut *stream, &nonce).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(port: u16, hints: &[u8], answered: Instant) -> Replica {
        let hints = hints.iter().map(|hint| Hint([*hint; Hint::LENGTH])).collect();
        Replica { address: SocketAddr::from(([10, 0, 0, 1], port)), hints, answered }
    }

    fn port_of(replicas: &Replicas, hint: u8) -> Option<u16> {
        replicas.find(Hint([hint; Hint::LENGTH])).map(|address| address.port())
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_leads_to_who_is_it_before_who_was_it() {
        let (replicas, now) = (Replicas::new(1), Instant::now());
        // A state directory that was copied: the second one says that it was what the first one is.
        replicas.update(vec![replica(1, &[9, 2], now), replica(2, &[2, 7], now)], now);
        assert_eq!([9, 2, 7, 5].map(|hint| port_of(&replicas, hint)), [Some(1), Some(2), Some(2), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_silent_for_a_moment_is_still_known_and_its_new_process_takes_its_place() {
        let (replicas, now) = (Replicas::new(1), Instant::now());
        assert_eq!(replicas.update(vec![replica(1, &[1], now), replica(2, &[2], now)], now), 2);
        let later = now + MAX_SILENCE / 2;
        assert_eq!(replicas.update(vec![replica(2, &[3, 2], later)], later), 2);
        assert_eq!([1, 2, 3].map(|hint| port_of(&replicas, hint)), [Some(1), Some(2), Some(2)]);
        // The first one comes back elsewhere, with its memory and without its keeper.
        assert_eq!(replicas.update(vec![replica(4, &[4, 1], later)], later), 2);
        assert_eq!(port_of(&replicas, 1), Some(4));
        assert_eq!(replicas.update(Vec::new(), later + MAX_SILENCE), 0, "all have been silent for too long");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_hint_has_the_others_asked_and_leaves_nothing_behind() {
        let replicas = Replicas::new(1);
        (0..=255).for_each(|hint| assert_eq!(port_of(&replicas, hint), None));
        timeout(Duration::from_secs(1), replicas.missed.notified()).await.expect("it is told");
        assert!(timeout(Duration::from_secs(1), replicas.missed.notified()).await.is_err(), "once for all of them");
    }
}
