//! Many sessions lose their links at once.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::Heal;
use crate::seeds::live;
use crate::stream::End;
use crate::world::{FAR, NEAR, World, line};

/// Dials of one peer that are under way at once, and a few probes.
const BUDGET: usize = 64 + 12;

/// Sends a byte each way; when the later one was there.
async fn exchange(pair: &mut [End; 2]) -> Instant {
    let [near, far] = pair;
    let (mut up, mut down) = ([0; 1], [0; 1]);
    let both = async {
        near.write_all(b"u").await.unwrap();
        far.write_all(b"d").await.unwrap();
        tokio::try_join!(far.read_exact(&mut up), near.read_exact(&mut down)).unwrap();
    };
    timeout(Duration::from_secs(300), both).await.expect("a session is starved");
    Instant::now()
}

/// `count` sessions from `end` are cut off, and back again: what the dials came to at most, and how long it took after
/// the heal until half of them and until all of them had moved a byte each way.
fn storm(count: usize, end: usize, outage: Duration) -> (usize, Duration, Duration) {
    live(async move {
        let mut world = World::start(line(20), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(24 * 3600);
            config.settings.limits.memory = 4 << 30;
        })
        .await;
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push(world.apps.play(world.connect(end).await).await);
        }
        sleep(Duration::from_secs(1)).await;
        world.net.reset_dials();
        world.cut_off();
        sleep(outage).await;
        let healed = Instant::now();
        world.net.heal(Heal::Silent);
        let apps = world.apps.clone();
        let new = world.connect(end).await;
        let newcomer = tokio::spawn(async move { exchange(&mut apps.play(new).await).await });
        let tasks: Vec<_> =
            pairs.into_iter().map(|mut pair| tokio::spawn(async move { (exchange(&mut pair).await, pair) })).collect();
        let mut back = Vec::new();
        let mut kept = Vec::new();
        for task in tasks {
            let (at, pair) = task.await.unwrap();
            back.push(at - healed);
            kept.push(pair);
        }
        newcomer.await.unwrap();
        back.sort();
        let most = world.net.dials().most;
        drop(kept);
        world.rest().await;
        (most, back[count / 2], back[count - 1])
    })
}

/// `FERRY_STORM=5000` makes it that many.
fn storm_size() -> usize {
    std::env::var("FERRY_STORM").map_or(500, |size| size.parse().expect("a number"))
}

#[test]
fn five_hundred_sessions_that_lose_their_links_are_all_back_within_the_budget_of_dials() {
    let size = storm_size();
    let (most, half, all) = storm(size, NEAR, Duration::from_secs(20));
    println!("{size} sessions: at most {most} dials under way; half back after {half:?}, all after {all:?}");
    assert!(most <= BUDGET, "{most} dials at once");
    assert!(all <= Duration::from_secs(2) + Duration::from_millis(10) * size as u32, "{all:?}");
}

#[test]
fn sessions_of_the_end_that_cannot_dial_come_back_as_soon() {
    let (most, half, all) = storm(200, FAR, Duration::from_secs(20));
    println!("200 sessions over offered links: at most {most} dials; half back after {half:?}, all after {all:?}");
    assert!(most <= BUDGET, "{most} dials at once");
    assert!(all <= Duration::from_secs(10), "{all:?}");
}
