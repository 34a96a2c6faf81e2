//! Sessions that the end opens which cannot dial: they live on links that the other end offers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::apps::Part;
use crate::net::Heal;
use crate::seeds::live;
use crate::world::{FAR, World, line};

/// A session from the far end, which only the near end can dial, is back this long after the path is.
async fn back_after(world: &World, cause: impl AsyncFnOnce(&World)) -> Duration {
    let end = world.connect(FAR).await;
    let talk = world.apps.talk(end, 2, [Part::eager(100_000); 2]);
    sleep(Duration::from_secs(5)).await;
    cause(world).await;
    let healed = Instant::now();
    world.apps.quiet();
    talk.ends_whole().await;
    healed.elapsed()
}

#[test]
fn a_black_hole_that_swallows_the_offered_links_too_is_left_behind() {
    live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            // So long that nothing comes from the rotation.
            config.settings.rotation.every = Duration::from_secs(24 * 3600);
        })
        .await;
        let took = back_after(&world, async |world| world.net.heal(Heal::Silent)).await;
        assert!(took < Duration::from_secs(12), "{took:?}");
        world.rest().await;
    });
}

#[test]
fn an_offered_link_that_died_unnoticed_delays_a_new_session_by_seconds() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        sleep(Duration::from_secs(5)).await;
        world.net.heal(Heal::Silent);
        let opened = Instant::now();
        let end = world.connect(FAR).await;
        world.apps.quiet();
        let talk = world.apps.talk(end, 2, [Part::eager(100_000); 2]);
        talk.ends_whole().await;
        let took = opened.elapsed();
        assert!(took < Duration::from_secs(31), "{took:?}");
        world.rest().await;
    });
}
