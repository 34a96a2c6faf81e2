//! WebSockets whose end is known beforehand.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::links::Links;
use crate::seeds::live;
use crate::world::{FAR, NEAR, World, line};

/// What is on the way ends every connection at this age.
const LIFE: Duration = Duration::from_secs(30);

const ROUND_TRIP: Duration = Duration::from_millis(80);

/// The longest wait for an answer in four such lives, of a session that `opener` opens. Only the far end can be dialled.
fn longest_wait(opener: usize, known: bool) -> Duration {
    live(async move {
        let mut world = World::start(line(40), [false, true], |config| {
            Links::WebSockets.carry(config);
            config.settings.rotation.every = Duration::from_secs(3600);
            if known {
                config.ws_max_life = config.listen_ws.map(|_| LIFE);
                for address in config.peers.iter_mut().flat_map(|peer| &mut peer.addresses) {
                    *address = format!("{address}#max_life=30s").parse().unwrap();
                }
            }
        })
        .await;
        let net = world.net.clone();
        let ending = tokio::spawn(async move {
            loop {
                let old = net.carried().into_iter().filter(|connection| connection.age() >= LIFE);
                old.for_each(|connection| connection.cut(true, true));
                sleep(Duration::from_millis(100)).await;
            }
        });
        let [mut near, mut far] = world.apps.play(world.connect(opener).await).await;
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < 4 * LIFE {
            let asked = Instant::now();
            near.write_all(b"?").await.unwrap();
            far.read_exact(&mut [0]).await.unwrap();
            far.write_all(b"!").await.unwrap();
            near.read_exact(&mut [0]).await.unwrap();
            longest = longest.max(asked.elapsed());
            sleep(ROUND_TRIP / 2).await;
        }
        drop((near, far));
        ending.abort();
        world.rest().await;
        longest
    })
}

#[test]
fn a_session_leaves_a_websocket_before_its_known_end_and_never_waits_for_another() {
    for opener in [NEAR, FAR] {
        let waits = [true, false].map(|known| longest_wait(opener, known));
        println!("opened at {opener}: {waits:?}, without being told of the end the latter");
        assert!(waits[0] < 2 * ROUND_TRIP, "{waits:?}");
        assert!(waits[1] >= 2 * ROUND_TRIP, "nothing was cut: {waits:?}");
    }
}
