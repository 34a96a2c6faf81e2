//! Buffers are as large as the path takes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::Heal;
use crate::pipe::Line;
use crate::seeds::live;
use crate::stream::End;
use crate::world::{NEAR, World, line};

const RATE: usize = 10_000_000;

/// 10 MB/s, `latency` milliseconds one way.
fn path(latency: u64) -> Line {
    Line { rate: RATE as u64, buffer: 8 * 1024 * 1024, ..line(latency) }
}

async fn world(latency: u64) -> World {
    World::start(path(latency), [false, true], |config| config.settings.rotation.every = Duration::from_secs(3600))
        .await
}

/// How long this many bytes take, one way.
async fn carry(from: &mut End, to: &mut End, bytes: usize) -> Duration {
    let begun = Instant::now();
    let write = async {
        let chunk = [7; 50_000];
        for _ in 0..bytes / chunk.len() {
            from.write_all(&chunk).await.unwrap();
        }
    };
    let read = async {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let read = timeout(Duration::from_secs(60), to.read(&mut buffer)).await.expect("it has got stuck").unwrap();
            assert!(read > 0);
            left -= read;
        }
    };
    tokio::join!(write, read);
    begun.elapsed()
}

/// Once it has had time to gain speed, a stream takes no more than a fifth longer than the path itself.
async fn fills_the_path(from: &mut End, to: &mut End) {
    const BYTES: usize = 2 * RATE;
    carry(from, to, BYTES).await;
    let took = carry(from, to, BYTES).await;
    println!("20 MB at 10 MB/s over a round trip of 200 ms in {took:?}");
    assert!(took < Duration::from_secs_f64(1.2 * BYTES as f64 / RATE as f64), "{took:?}");
}

#[test]
fn a_long_path_is_filled() {
    live(async {
        let mut world = world(100).await;
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        fills_the_path(&mut near, &mut far).await;
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn so_is_one_that_has_become_long_while_the_session_was_without_a_link() {
    live(async {
        let mut world = world(1).await;
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        carry(&mut near, &mut far, 5_000_000).await;
        world.cut_off();
        world.net.set_line(path(100));
        world.net.heal(Heal::Reset);
        fills_the_path(&mut near, &mut far).await;
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn a_path_with_more_than_16_mib_on_it_is_filled_unless_a_buffer_is_configured() {
    const MIB: usize = 1024 * 1024;
    const BYTES: usize = 60_000_000;
    let took = |buffer: Option<u64>| {
        live(async {
            // 32 MiB within a round trip.
            let wide = Line { rate: 160 * MIB as u64, buffer: 64 * MIB, ..line(100) };
            let mut world = World::start(wide, [false, true], |config| {
                config.settings.rotation.every = Duration::from_secs(3600);
                config.settings.resume.buffer = buffer;
            })
            .await;
            let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
            carry(&mut near, &mut far, 2 * BYTES).await;
            let took = carry(&mut near, &mut far, BYTES).await;
            drop((near, far));
            world.rest().await;
            took
        })
    };
    let [followed, bounded] = [None, Some(16 << 20)].map(took);
    println!("60 MB at 160 MiB/s over a round trip of 200 ms: in {followed:?}, with 16 MiB in {bounded:?}");
    // One way, and the bytes; or a round trip for each 16 MiB.
    assert!(followed < Duration::from_millis(600), "{followed:?}");
    assert!(bounded > Duration::from_millis(700), "{bounded:?}");
}

#[test]
fn one_handshake_that_took_long_does_not_make_buffers_large() {
    const PATIENCE: Duration = Duration::from_secs(10);
    let held = live(async {
        let wide = |latency| Line { rate: 0, ..path(latency) };
        let mut world = World::start(wide(100), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(3600);
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (1, 0);
        })
        .await;
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        world.net.set_line(wide(1));
        world.reload(NEAR, |config| config.settings.warm_links.own = 2).await;
        sleep(Duration::from_secs(5)).await;
        carry(&mut near, &mut far, 50_000_000).await;
        let mut held = 0;
        while let Ok(written) = timeout(PATIENCE, near.write(&[7; 50_000])).await {
            held += written.unwrap();
        }
        drop((near, far));
        world.rest().await;
        held
    });
    println!("{held} bytes are held for an application that does not read");
    assert!(held < 10_000_000, "{held}");
}
