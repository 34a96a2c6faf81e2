//! A bounded room: when it is full, whoever takes most of it makes way.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::source::{Network, Source};

/// A connection, in the order of arrival.
pub(super) type Guest = u64;

/// Connections from anywhere, at most so many.
#[derive(Debug)]
pub(super) struct Room {
    places: usize,
    taken: usize,
    networks: HashMap<Network, Crowd>,
    /// The networks by what they take; of those that take as much, the one that was here first is last.
    ranking: BTreeSet<(usize, Reverse<Guest>, Network)>,
}

/// The connections from one network.
#[derive(Debug, Default)]
struct Crowd {
    all: BTreeSet<Guest>,
    by_source: HashMap<Source, BTreeSet<Guest>>,
}

impl Crowd {
    fn rank(&self, network: Network) -> Option<(usize, Reverse<Guest>, Network)> {
        Some((self.all.len(), Reverse(*self.all.first()?), network))
    }

    /// The oldest connection of the sender that has most of them.
    fn first_to_go(&self) -> Option<(Guest, Source)> {
        let (source, guests) =
            self.by_source.iter().max_by_key(|(_, guests)| (guests.len(), Reverse(guests.first())))?;
        Some((*guests.first()?, *source))
    }
}

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self { places: places.max(1), taken: 0, networks: HashMap::new(), ranking: BTreeSet::new() }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// More than a quarter of the places are taken: nobody is waited for longer than has to be.
    pub(super) fn is_crowded(&self) -> bool {
        self.taken > self.places / 4
    }

    /// Another connection; it may be that one makes way for it.
    pub(super) fn enter(&mut self, guest: Guest, source: Source) -> Option<Guest> {
        let evicted = if self.taken >= self.places { self.evict() } else { None };
        self.change(source, |guests| guests.insert(guest));
        evicted
    }

    pub(super) fn leave(&mut self, guest: Guest, source: Source) {
        self.change(source, |guests| guests.remove(&guest));
    }

    /// The oldest connection of the sender with most of them, in the network with most of them, has to go.
    pub(super) fn evict(&mut self) -> Option<Guest> {
        let (_, _, network) = self.ranking.last()?;
        let (guest, source) = self.networks.get(network)?.first_to_go()?;
        self.leave(guest, source);
        Some(guest)
    }

    fn change(&mut self, source: Source, change: impl Fn(&mut BTreeSet<Guest>) -> bool) {
        let network = source.network();
        let crowd = self.networks.entry(network).or_default();
        if let Some(rank) = crowd.rank(network) {
            self.ranking.remove(&rank);
        }
        let before = crowd.all.len();
        let of_source = crowd.by_source.entry(source).or_default();
        change(of_source);
        if of_source.is_empty() {
            crowd.by_source.remove(&source);
        }
        change(&mut crowd.all);
        self.taken = self.taken + crowd.all.len() - before;
        match crowd.rank(network) {
            Some(rank) => drop(self.ranking.insert(rank)),
            None => drop(self.networks.remove(&network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    #[test]
    fn the_oldest_makes_way_where_all_come_from_afar_of_each_other() {
        let mut room = Room::new(3);
        for guest in 0..3 {
            assert_eq!(room.enter(guest, source(&format!("10.0.{guest}.1"))), None);
        }
        assert_eq!(room.enter(3, source("10.0.3.1")), Some(0));
        // One that has left makes room by itself.
        room.leave(1, source("10.0.1.1"));
        assert_eq!(room.enter(4, source("10.0.4.1")), None);
        assert_eq!(room.enter(5, source("10.0.5.1")), Some(2));
        assert_eq!(room.taken(), 3);
    }

    #[test]
    fn a_sender_of_many_makes_way_before_a_sender_of_one() {
        for (many, one) in
            [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "2001:db8::1")]
        {
            let mut room = Room::new(8);
            assert_eq!(room.enter(0, source(one)), None);
            for guest in 1..8 {
                assert_eq!(room.enter(guest, source(many)), None);
            }
            for guest in 8..100 {
                assert_eq!(room.enter(guest, source(many)), Some(guest - 7), "{one} stays");
            }
        }
    }

    #[test]
    fn a_network_of_many_senders_makes_way_before_a_sender_elsewhere() {
        for [many, one] in [["192.0.2.X", "198.51.100.1"], ["2001:db8:1:X::1", "2001:db8:2::1"]] {
            let mut room = Room::new(8);
            assert_eq!(room.enter(0, source(one)), None);
            let of_many = |guest: Guest| source(&many.replace('X', &guest.to_string()));
            for guest in 1..8 {
                assert_eq!(room.enter(guest, of_many(guest)), None);
            }
            for guest in 8..100 {
                assert_eq!(room.enter(guest, of_many(guest)), Some(guest - 7), "{one} stays");
            }
        }
    }

    #[test]
    fn what_leaves_is_forgotten() {
        let mut room = Room::new(4);
        for guest in 0..4 {
            room.enter(guest, source("192.0.2.1"));
        }
        // Evicted and gone: its leaving once more changes nothing.
        assert_eq!(room.evict(), Some(0));
        room.leave(0, source("192.0.2.1"));
        assert_eq!(room.taken(), 3);
        (1..4).for_each(|guest| room.leave(guest, source("192.0.2.1")));
        assert_eq!((room.taken(), room.networks.len(), room.ranking.len()), (0, 0, 0));
        assert_eq!(room.evict(), None);
    }
}
