//! How old the keys of a session become.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::seeds::live;
use crate::world::{NEAR, World, line};

const EVERY: Duration = Duration::from_secs(30);

const ROUND_TRIP: Duration = Duration::from_millis(80);

#[test]
fn the_keys_of_an_idle_session_become_no_older_than_was_asked_for() {
    let gaps: Vec<Duration> = live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.rotation.every = EVERY;
            (config.warm_links.own, config.warm_links.offered) = (0, 0);
        })
        .await;
        let ends = world.apps.play(world.connect(NEAR).await).await;
        sleep(EVERY * 20).await;
        let mut dials = world.net.dials().started;
        dials.push(Instant::now());
        drop(ends);
        world.rest().await;
        dials.windows(2).map(|pair| pair[1] - pair[0]).collect()
    });
    println!("a link was dialled after {gaps:?}");
    assert!(gaps.len() >= 20, "{} rotations", gaps.len());
    // A key counts from its handshake, which is over some round trips after the dial began.
    let oldest = gaps.into_iter().max();
    assert!(oldest <= Some(EVERY + 4 * ROUND_TRIP), "{oldest:?}");
}
