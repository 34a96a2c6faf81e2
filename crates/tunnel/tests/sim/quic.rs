//! Links over QUIC, on paths that treat datagrams badly.

use std::time::Duration;

use ferry_config::Prefer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::apps::Part;
use crate::datagrams::Weather;
use crate::links::Links;
use crate::net::Heal;
use crate::pipe::Line;
use crate::rng::Rng;
use crate::seeds::{for_each_seed, live};
use crate::stream::End;
use crate::world::{BOTH, NEAR, World, line};

const ROUND_TRIP: Duration = Duration::from_millis(80);

/// What the runtime's timers may add: each step is rounded up to their millisecond.
const COARSE: Duration = Duration::from_millis(6);

/// Only sessions have links, and only the far end can be dialled.
async fn world(links: Links, line: Line, rotate_every: Duration) -> World {
    World::start(line, [false, true], |config| {
        config.settings.rotation.every = rotate_every;
        (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
        links.carry(config);
    })
    .await
}

const NEVER: Duration = Duration::from_secs(3600);

async fn pair(world: &World) -> [End; 2] {
    let pair = world.apps.play(world.connect(NEAR).await).await;
    // It is established at both ends.
    sleep(Duration::from_secs(1)).await;
    pair
}

/// How long a byte takes from one application to the other.
async fn passes(from: &mut End, to: &mut End) -> Duration {
    let begun = Instant::now();
    from.write_all(b"x").await.unwrap();
    timeout(Duration::from_secs(60), to.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
    begun.elapsed()
}

#[test]
fn rotations_over_quic_lose_double_and_reorder_no_byte_whatever_becomes_of_datagrams() {
    for_each_seed(10, |seed| async move {
        let mut rng = Rng::new(seed);
        let mut world = world(Links::Quic, line(rng.pick(&[5, 40])), Duration::from_secs(1)).await;
        world.net.datagrams().rng = Rng::new(!seed);
        world.net.datagrams().weather =
            Weather { lost: 30, doubled: 20, late: Duration::from_millis(20), ..Weather::CALM };
        let parts = BOTH.map(|_| Part { chunk: 5_000, pause: Duration::from_millis(50), ..Part::eager(1_000_000) });
        let talk = world.apps.talk(world.connect(NEAR).await, 2, parts);
        for _ in 0..4 {
            sleep(Duration::from_millis(rng.between(1_500, 3_000))).await;
            // For longer than a link is trusted, or not.
            world.net.datagrams().block(true);
            sleep(Duration::from_millis(rng.below(4_000))).await;
            world.net.datagrams().block(false);
            world.net.datagrams().rebind();
        }
        // It rotates as before, however often it could not.
        let rotated = async {
            while world.net.dialled() < 5 {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(Duration::from_secs(15), rotated).await.expect("five links");
        world.apps.quiet();
        talk.ends_whole().await;
        world.rest().await;
    });
}

#[test]
fn a_path_that_is_dead_in_one_direction_is_left_though_packets_come_over_the_other() {
    for_each_seed(8, |_| async {
        let mut world = world(Links::Quic, Line { rate: 300_000, ..line(40) }, NEVER).await;
        let talk = world.apps.talk(world.connect(NEAR).await, 2, BOTH.map(|_| Part::eager(5_000_000)));
        sleep(Duration::from_secs(5)).await;
        world.net.reset_dials();
        // The far end hears nothing, and says so again and again.
        world.net.partition([true, false]);
        let dialled = async {
            while world.net.dialled() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(3), dialled).await.expect("a dial");
        world.net.heal(Heal::Late(Duration::ZERO));
        world.apps.quiet();
        talk.ends_whole().await;
        world.rest().await;
    });
}

#[test]
fn where_datagrams_are_blocked_in_the_middle_a_session_goes_on_over_tcp_and_returns_to_quic() {
    // Above this the handshakes take longer.
    for one_way in [40, 70] {
        live(left_and_taken_again(one_way));
    }
}

async fn left_and_taken_again(one_way: u64) {
    let mut world = world(Links::QuicOrTcp(Prefer::Order), line(one_way), NEVER).await;
    let [mut near, mut far] = pair(&world).await;
    for _ in 0..3 {
        assert!(world.net.carried().is_empty(), "it is over TCP");
        world.net.datagrams().block(true);
        let waited = passes(&mut near, &mut far).await;
        println!("datagrams are blocked: over TCP after {waited:?}");
        // Until the link is suspect; then the dial that replaces it tries TCP first.
        assert!(waited <= Duration::from_secs(2), "{waited:?}");
        assert!(!world.net.carried().is_empty(), "it is not over TCP");
        world.net.datagrams().block(false);
        // Whoever has resumed over what is not preferred does not stay there.
        sleep(Duration::from_secs(15)).await;
    }
    drop((near, far));
    world.rest().await;
}

#[test]
fn where_connections_are_blocked_in_the_middle_an_automatic_choice_goes_on_over_quic_and_returns_to_tcp() {
    live(async {
        let mut world = world(Links::QuicOrTcp(Prefer::Auto), line(40), Duration::from_secs(10)).await;
        let [mut near, mut far] = pair(&world).await;
        for _ in 0..3 {
            assert!(!world.net.carried().is_empty(), "it is not over TCP");
            world.net.block_connections(true);
            let waited = passes(&mut near, &mut far).await;
            println!("connections are blocked: over QUIC after {waited:?}");
            // There is nothing that tells when TCP is not let through: the dial that tries it first waits for a moment.
            assert!(waited <= Duration::from_secs(3), "{waited:?}");
            sleep(Duration::from_secs(60)).await;
            let waited = passes(&mut far, &mut near).await;
            assert!(waited <= ROUND_TRIP / 2 + COARSE, "it is not at rest over QUIC: {waited:?}");
            world.net.block_connections(false);
            // One dial now and then tries it again.
            sleep(Duration::from_secs(180)).await;
        }
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn a_session_that_got_what_is_not_preferred_by_accident_leaves_it_once_it_carries_something() {
    live(async {
        let mut world = world(Links::QuicOrTcp(Prefer::Auto), line(40), NEVER).await;
        world.net.block_connections(true);
        let [mut near, mut far] = pair(&world).await;
        assert!(world.net.carried().is_empty(), "it is not over QUIC");
        world.net.block_connections(false);
        // A link is looked at when it carries something, half a second after the last look at the soonest.
        sleep(Duration::from_secs(1)).await;
        passes(&mut near, &mut far).await;
        sleep(Duration::from_secs(1)).await;
        assert!(!world.net.carried().is_empty(), "it stays over QUIC");
        drop((near, far));
        world.rest().await;
    });
}

/// How long a byte takes after the source address of an idle link's dialler has changed, and the answer to it.
fn after_rebinding(dialler_is_first: bool, idle: Duration) -> [Duration; 2] {
    live(async move {
        let mut world = world(Links::Quic, line(40), NEVER).await;
        let [mut near, mut far] = pair(&world).await;
        sleep(idle).await;
        world.net.reset_dials();
        world.net.datagrams().rebind();
        let (first, second) = if dialler_is_first { (&mut near, &mut far) } else { (&mut far, &mut near) };
        let waited = [passes(first, second).await, passes(second, first).await];
        sleep(Duration::from_secs(30)).await;
        assert_eq!(world.net.dialled(), 0, "a link was dialled");
        drop((near, far));
        world.rest().await;
        waited
    })
}

#[test]
fn a_changed_source_address_costs_no_link_but_a_round_trip_or_until_the_dialler_says_something() {
    let idle = [0, 300, 600, 900, 5_000, 61_000, 69_000].map(Duration::from_millis);
    let worst = [true, false].map(|dialler_is_first| {
        let waits = idle.map(|idle| after_rebinding(dialler_is_first, idle));
        [0, 1].map(|index| waits.iter().map(|waited| waited[index]).max().unwrap_or_default())
    });
    println!("a byte and its answer after {:?} if the dialler speaks first, and {:?} if not", worst[0], worst[1]);
    // No more than a little is sent to an address before it has answered (RFC 9000 section 9.3).
    assert!(worst[0][0] <= ROUND_TRIP / 2 + COARSE && worst[0][1] <= ROUND_TRIP * 3 / 2 + COARSE, "{worst:?}");
    // The end that opened a session asks after a second; what takes two is suspect.
    assert!(worst[1][0] <= Duration::from_millis(1_500) && worst[1][1] <= ROUND_TRIP / 2 + COARSE, "{worst:?}");
}

#[test]
fn a_long_path_that_loses_a_packet_in_a_hundred_is_filled_by_two_thirds() {
    const RATE: u64 = 2_000_000;
    const BYTES: usize = 6_000_000;
    live(async {
        let long = Line { rate: RATE, buffer: 1024 * 1024, ..line(50) };
        let mut world = world(Links::Quic, long, NEVER).await;
        world.net.datagrams().weather = Weather { lost: 10, ..Weather::CALM };
        let [mut near, mut far] = pair(&world).await;
        let begun = Instant::now();
        let (stream, mut read) = (vec![7; BYTES], vec![0; BYTES]);
        let (written, read) = tokio::join!(near.write_all(&stream), far.read_exact(&mut read));
        written.unwrap();
        read.unwrap();
        let rate = BYTES as f64 / begun.elapsed().as_secs_f64();
        println!("6 MB over 100 ms at 2 MB/s with 1 % lost: {:.2} MB/s", rate / 1e6);
        assert!(rate >= RATE as f64 * 2.0 / 3.0, "{rate}");
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn a_path_with_more_than_8_mib_on_it_is_filled_over_quic() {
    const RATE: usize = 20_000_000;
    live(async {
        let long = Line { rate: RATE as u64, buffer: 32 * 1024 * 1024, ..line(400) };
        let mut world = world(Links::Quic, long, NEVER).await;
        let [mut near, mut far] = pair(&world).await;
        let (stream, mut to_speed, mut at_speed) = (vec![7; 3 * RATE], vec![0; 2 * RATE], vec![0; RATE]);
        let read = async {
            far.read_exact(&mut to_speed).await.unwrap();
            let begun = Instant::now();
            far.read_exact(&mut at_speed).await.unwrap();
            begun.elapsed()
        };
        let (written, took) = tokio::join!(near.write_all(&stream), read);
        written.unwrap();
        println!("20 MB over 800 ms at 20 MB/s: {took:?}");
        // With 8 MiB a round trip it is 1.9 s.
        assert!(took <= Duration::from_millis(1300), "{took:?}");
        drop((near, far));
        world.rest().await;
    });
}
