//! Limits of bytes a second on single entries of the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferry_config as config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::apps::Part;
use crate::seeds::live;
use crate::world::{FAR, NEAR, World, line};

const MB: u64 = 1_000_000;

fn per_second(bytes: u64) -> config::EntryLimits {
    config::EntryLimits { sessions: None, bytes_per_second: Some(bytes) }
}

/// Keys that last, so that time goes into nothing else.
fn at_rest(config: &mut config::Tunnel) {
    config.settings.rotation.every = Duration::from_secs(3600);
}

/// How long so many sessions take to move so many bytes each way, all of them and in order.
async fn moving(world: &World, sessions: u64, bytes: u64) -> f64 {
    world.apps.quiet();
    let before = Instant::now();
    let mut talks = Vec::new();
    for key in 0..sessions {
        talks.push(world.apps.talk(world.connect(NEAR).await, 100 + key, [Part::eager(bytes); 2]));
    }
    for talk in talks {
        talk.ends_whole().await;
    }
    before.elapsed().as_secs_f64()
}

/// An end, and how its configuration limits what it carries to a megabyte a second.
type Place = (usize, fn(&mut config::Tunnel));

#[test]
fn a_limit_at_either_end_paces_both_directions_and_loses_nothing() {
    let places: [Place; 4] = [
        (NEAR, |config| config.peers[0].limits = per_second(MB)),
        (FAR, |config| config.peers[0].limits = per_second(MB)),
        (NEAR, |config| config.egress[0].limits = per_second(MB)),
        (FAR, |config| config.ingress[0].limits = per_second(MB)),
    ];
    for (end, limit) in places {
        live(async {
            let mut world = World::start(line(20), [false, true], at_rest).await;
            let unlimited = moving(&world, 2, 4 * MB).await;
            world.reload(end, limit).await;
            let limited = moving(&world, 2, 4 * MB).await;
            println!("8 MB each way took {unlimited:.1} s, and with 1 MB/s at end {end} {limited:.1} s");
            assert!(unlimited < 2.0, "{unlimited}");
            // A tenth of a second may be ahead of the rate, and a round behind it.
            assert!((7.8..8.6).contains(&limited), "{limited}");
            world.rest().await;
        });
    }
}

#[test]
fn the_lowest_of_several_limits_holds_and_one_that_goes_lets_sessions_go_on_at_once() {
    live(async {
        let mut world = World::start(line(20), [false, true], |config| {
            at_rest(config);
            config.peers[0].limits = per_second(50 * MB);
            config.egress[0].limits = per_second(10_000);
            config.ingress[0].limits = per_second(20 * MB);
        })
        .await;
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        let reader = tokio::spawn(async move {
            let mut bytes = vec![0; 2 * MB as usize];
            far.read_exact(&mut bytes).await.unwrap();
            (far, bytes)
        });
        let sent: Vec<u8> = (0..2 * MB).map(|i| (i % 251) as u8).collect();
        let writer = tokio::spawn(async move {
            near.write_all(&sent).await.unwrap();
            (near, sent)
        });
        sleep(Duration::from_secs(20)).await;
        assert!(!reader.is_finished(), "two megabytes at 10 kB a second take longer");
        let before = Instant::now();
        world.reload(NEAR, |config| config.egress[0].limits = config::EntryLimits::default()).await;
        let (near, sent) = writer.await.unwrap();
        let (far, received) = reader.await.unwrap();
        assert!(sent == received, "something else has arrived");
        println!("without the limit the rest has passed in {:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn sessions_of_a_limit_get_equal_parts_and_a_quiet_one_is_not_held_up() {
    live(async {
        let mut world = World::start(line(5), [false, true], |config| {
            at_rest(config);
            config.peers[0].limits = per_second(MB);
        })
        .await;
        let mut taken = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
            let count = Arc::new(AtomicU64::new(0));
            taken.push(count.clone());
            tasks.spawn(async move { while near.write_all(&[7; 50_000]).await.is_ok() {} });
            tasks.spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = far.read(&mut buffer).await {
                    count.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
        }
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        sleep(Duration::from_secs(2)).await;
        let before: Vec<_> = taken.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let mut longest = Duration::ZERO;
        for _ in 0..80 {
            let asked = Instant::now();
            near.write_all(b"?").await.unwrap();
            let answered = timeout(Duration::from_secs(60), far.read_exact(&mut [0])).await;
            answered.expect("it is held up").unwrap();
            longest = longest.max(asked.elapsed());
            sleep(Duration::from_millis(200)).await;
        }
        let taken: Vec<_> =
            taken.iter().zip(before).map(|(count, before)| count.load(Ordering::Relaxed) - before).collect();
        let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        println!("five busy sessions took {taken:?}; a byte beside them arrived within {longest:?}");
        assert!(most - least < most / 20, "{taken:?}");
        assert!(longest < Duration::from_millis(150), "{longest:?}");
        tasks.shutdown().await;
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn a_paced_session_that_is_reset_ends_for_both() {
    live(async {
        let mut world = World::start(line(5), [false, true], |config| {
            at_rest(config);
            config.peers[0].limits = per_second(20_000);
        })
        .await;
        world.apps.quiet();
        let part = Part { resets: true, ..Part::eager(MB) };
        let talk = world.apps.talk(world.connect(NEAR).await, 7, [part, Part::eager(0)]);
        talk.ends_reset(&world.apps, Duration::from_secs(300)).await;
        world.rest().await;
    });
}
