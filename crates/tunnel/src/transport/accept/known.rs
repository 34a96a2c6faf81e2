//! Where peers have proved themselves from lately.

use std::collections::HashMap;
use std::time::Duration;

use ferry_config::Name;
use tokio::time::Instant;

use super::source::Source;

/// How long a source is known after the last proof from there: longer than any path is down.
const KNOWN_AGE: Duration = Duration::from_secs(24 * 3600);

/// Sources kept for one peer: a peer that moves a lot takes nothing from another.
const MAX_SOURCES: usize = 16;

/// The sources from which each peer has proved a listed key.
#[derive(Debug, Default)]
pub(super) struct Known {
    of_peers: HashMap<Name, Vec<(Source, Instant)>>,
}

impl Known {
    /// The peer has proved itself from here; the source longest ago makes way.
    pub(super) fn note(&mut self, peer: &Name, source: Source, now: Instant) {
        let sources = match self.of_peers.get_mut(peer) {
            Some(sources) => sources,
            None => self.of_peers.entry(peer.clone()).or_default(),
        };
        sources.retain(|(of, _)| *of != source);
        if sources.len() >= MAX_SOURCES {
            sources.remove(0);
        }
        sources.push((source, now));
    }

    pub(super) fn contains(&self, source: Source, now: Instant) -> bool {
        let is_fresh = |noted: Instant| now.saturating_duration_since(noted) < KNOWN_AGE;
        self.of_peers.values().flatten().any(|(of, noted)| *of == source && is_fresh(*noted))
    }

    /// Forgets the peers that are not listed any more.
    pub(super) fn retain(&mut self, listed: impl Fn(&Name) -> bool) {
        self.of_peers.retain(|peer, _| listed(peer));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn a_source_is_known_for_a_day_after_the_last_proof() {
        let (mut known, begun) = (Known::default(), Instant::now());
        assert!(!known.contains(source(1), begun));
        known.note(&name("a"), source(1), begun);
        known.note(&name("a"), source(2), begun);
        known.note(&name("a"), source(1), begun + KNOWN_AGE / 2);
        let later = begun + KNOWN_AGE;
        assert_eq!((known.contains(source(1), later), known.contains(source(2), later)), (true, false));
        assert!(!known.contains(source(1), later + KNOWN_AGE / 2));
    }

    #[test]
    fn a_peer_that_moves_a_lot_takes_nothing_from_another() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.note(&name("still"), source(0), now);
        (1..1000).for_each(|number| known.note(&name("moves"), source(number), now));
        assert!(known.contains(source(0), now) && known.contains(source(999), now));
        assert_eq!(known.of_peers.values().flatten().count(), 1 + MAX_SOURCES);
        known.retain(|peer| *peer == name("still"));
        assert!(known.contains(source(0), now) && !known.contains(source(999), now));
    }
}
