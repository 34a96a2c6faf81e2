//! Which congestion control links have.

use std::time::Duration;

use tokio::time::sleep;

use crate::seeds::live;
use crate::world::{NEAR, World, line};

#[test]
fn both_ends_of_every_link_have_the_congestion_control_that_is_asked_for_and_no_other_by_default() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| {}).await;
        for wanted in [None, Some("bbr")] {
            for end in crate::world::BOTH {
                world.reload(end, |config| config.settings.congestion = wanted.map(|name| name.parse().unwrap())).await;
            }
            // A session's links, and the warm ones, are by then all younger than the reload.
            let ends = world.apps.play(world.connect(NEAR).await).await;
            sleep(2 * world.configs[NEAR].settings.rotation.every).await;
            let carried = world.net.carried();
            assert!(carried.len() >= 2, "{} links", carried.len());
            for connection in carried {
                assert_eq!(*connection.congestion(), [wanted, wanted].map(|name| name.map(str::to_owned)));
            }
            drop(ends);
            sleep(Duration::from_secs(1)).await;
        }
        world.rest().await;
    });
}
