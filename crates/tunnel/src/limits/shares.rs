//! What there is a limit of, shared out between peers: one half of all is kept for them, an equal part for each; the other
//! is whoever's comes first.

use std::collections::HashMap;

use ferry_config::Name;

/// So much of something, and who has it.
#[derive(Debug)]
pub(crate) struct Shares {
    limit: u64,
    /// Peers that share it: those of the configuration in force.
    peers: usize,
    total: u64,
    by_peer: HashMap<Name, u64>,
}

impl Shares {
    pub(crate) fn new(limit: u64, peers: usize) -> Self {
        Self { limit, peers, total: 0, by_peer: HashMap::new() }
    }

    /// The configuration has another number of peers.
    pub(crate) fn share_among(&mut self, peers: usize) {
        self.peers = peers;
    }

    /// How much is taken.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Takes `amount` for a peer, if enough is left for the others' parts.
    pub(crate) fn take(&mut self, peer: &Name, amount: u64) -> bool {
        let part = self.limit / 2 / self.peers.max(1) as u64;
        let total = self.total + amount;
        let fits = total + self.kept_from(peer, part) <= self.limit;
        if fits {
            self.total = total;
            match self.by_peer.get_mut(peer) {
                Some(taken) => *taken += amount,
                None => drop(self.by_peer.insert(peer.clone(), amount)),
            }
        }
        fits
    }

    pub(crate) fn give_back(&mut self, peer: &Name, amount: u64) {
        self.total -= amount;
        if let Some(taken) = self.by_peer.get_mut(peer) {
            *taken -= amount;
            if *taken == 0 {
                self.by_peer.remove(peer);
            }
        }
    }

    /// What has to stay free for the other peers, so that each can have `part`.
    fn kept_from(&self, peer: &Name, part: u64) -> u64 {
        let others = self.by_peer.iter().filter(|(name, _)| *name != peer);
        let (present, unclaimed) = others
            .fold((1, 0), |(present, unclaimed), (_, taken)| (present + 1, unclaimed + part.saturating_sub(*taken)));
        unclaimed + part * self.peers.saturating_sub(present) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &mut Shares, peer: &str) -> u64 {
        let peer = peer.parse().expect("a name");
        std::iter::from_fn(|| shares.take(&peer, 1).then_some(1)).sum()
    }

    #[test]
    fn a_greedy_peer_leaves_the_others_their_parts() {
        let mut shares = Shares::new(100, 5);
        assert_eq!(take_all(&mut shares, "greedy"), 60);
        assert_eq!(["b", "c", "d", "e"].map(|peer| take_all(&mut shares, peer)), [10; 4]);
        let greedy = "greedy".parse().expect("a name");
        (0..60).for_each(|_| shares.give_back(&greedy, 1));
        assert_eq!(shares.total(), 40);
        // What is free is whoever's comes first, but for the part of the one that has nothing.
        assert_eq!(take_all(&mut shares, "b"), 50);
        assert_eq!(take_all(&mut shares, "greedy"), 10);
    }

    #[test]
    fn a_single_peer_may_take_all() {
        assert_eq!(take_all(&mut Shares::new(3, 1), "a"), 3);
    }
}
