//! How soon a session goes on once the path is back, and how soon it is noticed that the path is gone.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::Heal;
use crate::seeds::live;
use crate::stream::End;
use crate::world::{FAR, NEAR, World, line};

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
            world.cut_off();
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
    assert!(up <= ROUND_TRIP * 5 / 2, "{up:?}");
    assert!(down <= ROUND_TRIP * 3, "{down:?}");
}

/// A link that has been idle for a minute becomes a black hole; how long after that, and after it was written, a byte
/// of the near application's arrives.
fn black_hole(wait: Duration, rotates: bool) -> [Duration; 2] {
    live(async move {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(3600);
        })
        .await;
        let [mut near, mut far] = pair(&world).await;
        sleep(Duration::from_secs(60)).await;
        if rotates {
            // The new link is there, and the old one waits for its last frame.
            world.tunnel(NEAR).rotate_all();
            sleep(ROUND_TRIP * 7 / 2 + COARSE).await;
        }
        let lost = Instant::now();
        world.net.heal(Heal::Silent);
        sleep(wait).await;
        let written = Instant::now();
        near.write_all(b"u").await.unwrap();
        let up = read_one(&mut far).await;
        drop((near, far));
        world.rest().await;
        [up - lost, up - written]
    })
}

#[test]
fn a_black_hole_is_left_behind_within_the_liveness_time_when_idle_and_faster_with_data_under_way() {
    let liveness = Duration::from_secs(15);
    let [_, idle] = black_hole(liveness + ROUND_TRIP * 5, false);
    assert!(idle <= ROUND_TRIP / 2 + COARSE, "not on another link within the liveness time: {idle:?}");
    let [busy, _] = black_hole(Duration::ZERO, false);
    println!("a black hole: left behind {busy:?} after the next byte, within {liveness:?} when idle");
    assert!(busy <= Duration::from_secs(3), "{busy:?}");
}

#[test]
fn a_black_hole_in_the_middle_of_a_rotation_is_left_behind_as_fast() {
    let [busy, _] = black_hole(Duration::ZERO, true);
    println!("a black hole in a rotation: left behind {busy:?} after the next byte");
    assert!(busy <= Duration::from_secs(3), "{busy:?}");
}

#[test]
fn an_open_hopes_for_no_link_that_a_resume_has_taken() {
    live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
        })
        .await;
        let first = pair(&world).await;
        world.net.reset_dials();
        world.net.heal(Heal::Reset);
        // The resume has its link, and the peer's Preface is on its way.
        sleep(ROUND_TRIP * 11 / 4).await;
        assert_eq!(world.net.dials().started.len(), 1);
        let opened = Instant::now();
        let second = pair(&world).await;
        let waited = world.net.dials().started[1] - opened;
        assert!(waited <= COARSE, "{waited:?}");
        drop((first, second));
        world.rest().await;
    });
}

#[test]
fn a_session_whose_key_is_refused_tries_on_once_a_second_and_goes_on_when_it_is_let_in() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        let [mut near, mut far] = pair(&world).await;
        let listed = world.configs[FAR].peers[0].keys.clone();
        let other = ferry_config::Identity::generate().unwrap().public_key();
        world.reload(FAR, |config| config.peers[0].keys = [other].into()).await;
        sleep(Duration::from_secs(2)).await;
        world.net.reset_dials();
        near.write_all(b"u").await.unwrap();
        sleep(Duration::from_secs(60)).await;
        let dials = world.net.dials().started.len();
        println!("a minute of refused keys: {dials} dials");
        assert!((30..=75).contains(&dials), "{dials}");
        world.reload(FAR, |config| config.peers[0].keys = listed).await;
        let let_in = Instant::now();
        read_one(&mut far).await;
        assert!(let_in.elapsed() <= Duration::from_secs(2), "{:?}", let_in.elapsed());
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn when_the_resume_window_is_over_both_applications_are_reset() {
    live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.resume.window = Duration::from_secs(60);
        })
        .await;
        let [mut near, mut far] = pair(&world).await;
        world.cut_off();
        let cut = Instant::now();
        let (mut byte, mut other) = ([0; 1], [0; 1]);
        let (near, far) = tokio::join!(near.read(&mut byte), far.read(&mut other));
        assert_eq!(near.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(far.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let took = cut.elapsed();
        println!("a resume window of 60 s: both reset after {took:?}");
        assert!((Duration::from_secs(60)..Duration::from_secs(61)).contains(&took), "{took:?}");
        world.net.heal(Heal::Silent);
        world.rest().await;
    });
}
