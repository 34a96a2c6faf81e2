//! Open sessions come before new ones in what runs out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::Heal;
use crate::seeds::live;
use crate::world::{FAR, NEAR, World, line};

/// Applications that wait for a link each.
const WAITING: usize = 100;

#[test]
fn a_session_that_has_lost_its_link_gets_the_next_one_before_those_that_have_waited_longer() {
    // Whether the end that opens dials as well, or waits for links that it is offered.
    for opener in [NEAR, FAR] {
        first_comes_the_open_session(opener);
    }
}

fn first_comes_the_open_session(opener: usize) {
    let (dialled, back) = live(async move {
        let mut world = World::start(line(40), [false, true], |config| {
            (config.settings.warm_links.own, config.settings.warm_links.offered) =
                (0, if opener == FAR { 1 } else { 0 });
            config.settings.open_timeout = Duration::from_secs(60);
        })
        .await;
        let [mut near, mut far] = world.apps.play(world.connect(opener).await).await;
        sleep(Duration::from_secs(1)).await;
        let session = world.net.carried();
        world.net.partition([false, false]);
        let mut waiting = Vec::new();
        for _ in 0..WAITING {
            waiting.push(world.connect(opener).await);
        }
        sleep(Duration::from_secs(5)).await;
        session.into_iter().for_each(|connection| connection.cut(true, true));
        sleep(Duration::from_secs(5)).await;
        world.net.reset_dials();
        world.net.heal(Heal::Silent);
        near.write_all(b"x").await.unwrap();
        timeout(Duration::from_secs(60), far.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
        let back = Instant::now();
        let dialled = world.net.dials().started.first().map_or(back, |first| (*first).min(back));
        drop((near, far, waiting));
        world.rest().await;
        (dialled, back)
    });
    println!("{WAITING} new ones wait: the session went on {:?} after the first dial", back - dialled);
    // Of the first dial that gets through: TCP, TLS, and half a round trip for the byte, or for the Hello of the other end
    // that the dialler has to wait for.
    assert!(back - dialled <= Duration::from_millis(300), "{:?}", back - dialled);
}
