//! Sessions that come faster than links can be dialled.

use std::time::Duration;

use tokio::time::{Instant, interval, sleep};

use crate::seeds::live;
use crate::world::{NEAR, World, line};

const ROUND_TRIP: Duration = Duration::from_millis(80);

/// What the runtime's timers may add: each step is rounded up to their millisecond.
const COARSE: Duration = Duration::from_millis(4);

/// A hundred sessions a second over a path of 80 ms: how long the first bytes of each took to arrive.
fn arrivals(warm: u32, lasting: Duration) -> Vec<(Duration, Duration)> {
    live(async move {
        let mut world = World::start(line(40), [false, true], |config| config.settings.warm_links.own = warm).await;
        sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let mut due = interval(Duration::from_millis(10));
        let mut sessions = Vec::new();
        while start.elapsed() < lasting {
            due.tick().await;
            let (apps, at) = (world.apps.clone(), Instant::now());
            let near = world.connect(NEAR).await;
            sessions.push(tokio::spawn(async move {
                let ends = apps.play(near).await;
                let arrived = at.elapsed();
                drop(ends);
                (at - start, arrived)
            }));
        }
        let mut seen = Vec::new();
        for session in sessions {
            seen.push(session.await.unwrap());
        }
        world.rest().await;
        seen
    })
}

#[test]
fn sessions_that_come_faster_than_links_are_dialled_find_one_ready_all_the_same() {
    // The first of them show how many are needed; a dial later there are as many.
    let learnt = Duration::from_secs(1);
    let seen = arrivals(4, Duration::from_secs(3));
    let worst = |late: bool| seen.iter().filter(|(at, _)| (*at > learnt) == late).map(|(_, took)| *took).max();
    println!(
        "100 sessions a second over 80 ms: at worst {:?} in the first second, {:?} later",
        worst(false),
        worst(true)
    );
    assert!(worst(true) <= Some(ROUND_TRIP / 2 + COARSE), "{:?}", worst(true));
}
