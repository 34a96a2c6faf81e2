//! How old the keys of a session become.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::pipe::Line;
use crate::seeds::live;
use crate::world::{NEAR, World, line};

const EVERY: Duration = Duration::from_secs(30);

const ROUND_TRIP: Duration = Duration::from_millis(80);

#[test]
fn the_keys_of_an_idle_session_become_no_older_than_was_asked_for() {
    let gaps: Vec<Duration> = live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.rotation.every = EVERY;
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
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

#[test]
fn a_shorter_life_of_keys_holds_for_sessions_that_are_open() {
    const LONG: Duration = Duration::from_secs(24 * 3600);
    let after: Duration = live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.rotation.every = LONG;
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
        })
        .await;
        let ends = world.apps.play(world.connect(NEAR).await).await;
        sleep(EVERY / 2).await;
        world.net.reset_dials();
        let reloaded = Instant::now();
        world.reload(NEAR, |config| config.settings.rotation.every = EVERY).await;
        sleep(EVERY).await;
        let dials = world.net.dials().started;
        drop(ends);
        world.rest().await;
        *dials.first().expect("the keys were replaced") - reloaded
    });
    println!("a link was dialled {after:?} after the reload");
    // The key was half as old as it may be, within the jitter.
    assert!(after <= EVERY / 2 && after >= EVERY / 4, "{after:?}");
}

#[test]
fn a_key_protects_hardly_more_bytes_than_it_may_in_either_direction() {
    const BYTES: usize = 10_000_000;
    const MOST: u64 = 1_000_000;
    for (up, reloaded) in [(true, false), (false, false), (true, true)] {
        let dials = live(async {
            let slow = Line { rate: 10_000_000, ..line(1) };
            let mut world = World::start(slow, [false, true], |config| {
                config.settings.rotation.every = Duration::from_secs(3600);
                config.settings.rotation.bytes = if reloaded { u64::MAX } else { MOST };
                (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
            })
            .await;
            let [near, far] = world.apps.play(world.connect(NEAR).await).await;
            world.reload(NEAR, |config| config.settings.rotation.bytes = MOST).await;
            world.net.reset_dials();
            let (mut from, mut to) = if up { (near, far) } else { (far, near) };
            let (stream, mut received) = (vec![7; BYTES], vec![0; BYTES]);
            let (written, read) = tokio::join!(from.write_all(&stream), to.read_exact(&mut received));
            written.unwrap();
            read.unwrap();
            let dials = world.net.dials().started.len();
            drop((from, to));
            world.rest().await;
            dials
        });
        println!("{dials} rotations for ten keys' bytes");
        // A key is in use while the next one is made, and for what is on its way by then.
        assert!((6..=10).contains(&dials), "{dials} rotations");
    }
}

#[test]
fn links_that_were_made_together_are_not_renewed_together() {
    const LINKS: usize = 12;
    let starts: Vec<Instant> = live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.rotation.every = EVERY;
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (8, 4);
        })
        .await;
        sleep(EVERY * 10).await;
        let dials = world.net.dials().started;
        world.rest().await;
        dials
    });
    let (together, renewed) = starts.split_at(LINKS);
    assert_eq!(together.iter().collect::<std::collections::BTreeSet<_>>().len(), 1, "{together:?}");
    assert!(renewed.len() >= 9 * LINKS, "{} renewals", renewed.len());
    let most =
        renewed.iter().map(|at| renewed.iter().filter(|other| (*at..*at + ROUND_TRIP).contains(other)).count()).max();
    assert!(most < Some(LINKS / 2), "{most:?} at once");
}

#[test]
fn keys_that_last_a_second_are_made_for_one_ready_link_of_each_kind() {
    const SECONDS: u32 = 60;
    let starts: Vec<Instant> = live(async {
        let mut world = World::start(line(1), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(1);
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (4, 2);
        })
        .await;
        sleep(Duration::from_secs(1) * SECONDS).await;
        let dials = world.net.dials().started;
        world.rest().await;
        dials
    });
    println!("{} dials in {SECONDS} s", starts.len());
    // Each is renewed once it is 0.8 to 1 s old.
    let each = SECONDS as usize..=SECONDS as usize * 5 / 4 + 1;
    assert!((2 * each.start()..=2 * each.end()).contains(&starts.len()), "{} dials", starts.len());
}
