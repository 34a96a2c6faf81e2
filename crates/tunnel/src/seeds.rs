//! Lives by seed, for tests of policies on a clock of their own. A failure prints its seed; `FERRY_SEED=n` runs just that
//! one, `FERRY_SEEDS=n` that many.

use std::panic::{RefUnwindSafe, catch_unwind};

/// Randomness that a seed repeats (SplitMix64).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }
}

/// Runs `usual` lives, or those that the environment asks for, and names the seeds of all that failed.
pub(crate) fn each_seed(usual: u64, life: impl Fn(&mut Rng) + RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = number("FERRY_SEED").map_or(0..number("FERRY_SEEDS").unwrap_or(usual), |seed| seed..seed + 1);
    let failed: Vec<_> = seeds.filter(|seed| catch_unwind(|| life(&mut Rng(*seed))).is_err()).collect();
    assert!(failed.is_empty(), "failed; run again with FERRY_SEED= one of {failed:?}");
}
