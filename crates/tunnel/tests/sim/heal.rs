//! How soon a session goes on once the path is back, and how soon it is noticed that the path is gone.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::Heal;
use crate::seeds::live;
use crate::stream::End;
use crate::world::{NEAR, World, line};

/// A session that the test plays itself.
async fn pair(world: &World) -> [End; 2] {
    let pair = world.apps.play(world.connect(NEAR).await).await;
    // It is established at both ends.
    sleep(Duration::from_secs(1)).await;
    pair
}

async fn read_one(end: &mut End) -> Instant {
    timeout(Duration::from_secs(60), end.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
    Instant::now()
}

/// A path of 80 milliseconds there and back.
const ROUND_TRIP: Duration = Duration::from_millis(80);

/// What the runtime's timers may add to it: each step is rounded up to their millisecond.
const COARSE: Duration = Duration::from_millis(6);

#[test]
fn after_a_heal_a_dial_starts_within_a_second_and_is_what_the_first_bytes_wait_for() {
    let mut worst = [Duration::ZERO; 3];
    for phase in 0..20 {
        let seen = live(async {
            let mut world = World::start(line(40), [false, true], |_| ()).await;
            let [mut near, mut far] = pair(&world).await;
            world.net.carried().iter().for_each(|connection| connection.cut(true, true));
            world.net.partition([true, true]);
            near.write_all(b"u").await.unwrap();
            far.write_all(b"d").await.unwrap();
            sleep(Duration::from_millis(7_000 + phase * 53)).await;
            world.net.reset_dials();
            let healed = Instant::now();
            world.net.heal(Heal::Silent);
            let (up, down) = tokio::join!(read_one(&mut far), read_one(&mut near));
            // A SYN from before may get through first.
            let dialled = world.net.dials().started.first().map_or(healed, |first| (*first).min(up));
            drop((near, far));
            world.rest().await;
            [dialled - healed, up - dialled, down - dialled]
        });
        worst = std::array::from_fn(|index| worst[index].max(seen[index]));
    }
    let [dial, up, down] = worst;
    println!("after a heal: a dial within {dial:?}, the first byte up {up:?} and down {down:?} later");
    assert!(dial <= Duration::from_secs(1), "{dial:?}");
    assert!(up <= ROUND_TRIP * 9 / 2 + COARSE, "{up:?}");
    assert!(down <= ROUND_TRIP * 4 + COARSE, "{down:?}");
}
