//! Applications that do not read, paths that are full, and memory that is short.

use std::sync::Arc;
use std::time::Duration;

use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::apps::Part;
use crate::links::Links;
use crate::net::Heal;
use crate::pipe::Line;
use crate::seeds::{for_each_seed, live};
use crate::stream::End;
use crate::world::{NEAR, World, ip, line};

/// Writes until nothing more is taken for a second; how much that was.
async fn fill(end: &mut End) -> usize {
    let mut taken = 0;
    while let Ok(count) = timeout(Duration::from_secs(1), end.write(&[7; 64 * 1024])).await {
        taken += count.unwrap();
    }
    taken
}

async fn drain(end: &mut End, mut count: usize) {
    let mut buffer = vec![0; 64 * 1024];
    while count > 0 {
        let room = count.min(buffer.len());
        let read =
            timeout(Duration::from_secs(60), end.read(&mut buffer[..room])).await.expect("it has got stuck").unwrap();
        assert!(read > 0 && buffer[..read].iter().all(|&byte| byte == 7));
        count -= read;
    }
}

#[test]
fn two_full_directions_do_not_deadlock_and_a_slow_application_is_not_given_up() {
    [Links::Tcp, Links::Quic].into_iter().for_each(two_full_directions);
}

fn two_full_directions(links: Links) {
    live(async move {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.resume.buffer = Some(256 * 1024);
            config.settings.rotation.every = Duration::from_secs(3600);
            links.carry(config);
        })
        .await;
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        let full = [fill(&mut near).await, fill(&mut far).await];
        world.net.reset_dials();
        // Longer than any patience: the liveness time is 15 s.
        sleep(Duration::from_secs(1800)).await;
        // Warm links are as old as the keys may be; a session that is given up dials at once.
        let dials = world.net.dialled();
        // One offered link every 30 s.
        assert!(dials <= 62, "the link was given up: {dials} dials");
        tokio::join!(drain(&mut near, full[1]), drain(&mut far, full[0]));
        println!("{links:?}: two full directions held {full:?} bytes for half an hour, and then moved");
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn a_slow_application_pauses_only_itself() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        let [mut slow, kept] = world.apps.play(world.connect(NEAR).await).await;
        let held = fill(&mut slow).await;
        let before = Instant::now();
        world.apps.quiet();
        let talk = world.apps.talk(world.connect(NEAR).await, 2, [Part::eager(3_000_000); 2]);
        talk.ends_whole().await;
        println!("beside one that holds {held} bytes, another session moved 3 MB each way in {:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
        drop((slow, kept));
        world.rest().await;
    });
}

/// A session that has moved enough to have as much buffer as its path takes.
async fn grown(world: &World) -> [End; 2] {
    let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
    const BYTES: usize = 10_000_000;
    let stream = vec![7; BYTES];
    let (written, ()) = tokio::join!(near.write_all(&stream), drain(&mut far, BYTES));
    written.unwrap();
    [near, far]
}

#[test]
fn however_much_arrives_at_once_is_passed_on_at_once() {
    live(async {
        let wide = Line { buffer: 8 * 1024 * 1024, ..line(1) };
        let mut world = World::start(wide, [false, true], |_| ()).await;
        let [mut near, mut far] = grown(&world).await;
        // More than an end reads, or writes, in one go.
        const BYTES: usize = 600_000;
        world.net.hold();
        near.write_all(&[7; BYTES]).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        let before = Instant::now();
        world.net.heal(Heal::Late(Duration::ZERO));
        drain(&mut far, BYTES).await;
        println!("600 kB that were held up have passed in {:?}", before.elapsed());
        // The path takes 1 ms, an ack that nothing takes along 25.
        assert!(before.elapsed() < Duration::from_millis(10), "{:?}", before.elapsed());
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn pings_are_not_blocked_by_data() {
    [Links::Tcp, Links::Quic].into_iter().for_each(pings_beside_data);
}

fn pings_beside_data(links: Links) {
    live(async move {
        // A megabyte waits seconds for its turn: more than suspicion waits for.
        let slow = Line { rate: 100_000, ..line(40) };
        let mut world = World::start(slow, [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(3600);
            links.carry(config);
        })
        .await;
        sleep(Duration::from_secs(5)).await;
        let [mut near, mut far] = world.apps.play(world.connect(NEAR).await).await;
        world.net.reset_dials();
        const BYTES: usize = 12_000_000;
        let writer = async {
            for _ in 0..BYTES / 60_000 {
                near.write_all(&[7; 60_000]).await.unwrap();
            }
        };
        tokio::join!(writer, drain(&mut far, BYTES));
        let dials = world.net.dialled();
        println!("{links:?}: 12 MB in two minutes over a full path: {dials} dials");
        assert!(dials <= 8, "the link was suspected: {dials} dials");
        drop((near, far));
        world.rest().await;
    });
}

#[test]
fn a_link_whose_packets_wait_for_a_lost_one_behind_a_queue_of_seconds_is_not_suspect() {
    // Where the congestion control is in its cycle decides in every other life whether anything has to wait as long.
    for_each_seed(8, |_| async {
        let fast = Line { rate: 3_000_000, ..line(40) };
        let mut world = World::start(fast, [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(3600);
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
            Links::Quic.carry(config);
        })
        .await;
        let [mut near, mut far] = grown(&world).await;
        world.net.reset_dials();
        // What takes a tenth of a second to get through the queue takes four.
        world.net.set_line(Line { rate: 60_000, ..fast });
        let written = async { near.write_all(&[7; 3_000_000]).await.unwrap() };
        let read = async {
            // When the last one is lost nothing comes behind it: that is silence.
            drain(&mut far, 2_500_000).await;
            assert_eq!(world.net.dialled(), 0, "the link was suspect");
            drain(&mut far, 500_000).await;
        };
        tokio::join!(written, read);
        drop((near, far));
        world.rest().await;
    });
}

/// Opens sessions from `end` until one is refused.
async fn crowd(world: &World) -> Vec<[End; 2]> {
    let mut pairs = Vec::new();
    let open = || async { world.apps.play(world.connect(NEAR).await).await };
    while let Ok(pair) = timeout(Duration::from_secs(1), open()).await {
        pairs.push(pair);
    }
    pairs
}

#[test]
fn sessions_beyond_the_memory_are_refused_and_those_that_live_make_progress() {
    live(async {
        let mut world = World::start(line(5), [false, true], |config| {
            config.settings.limits.memory = 512 * 1024;
            config.settings.resume.buffer = Some(64 * 1024);
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        let mut crowds = Vec::new();
        for _ in 0..3 {
            let pairs = crowd(&world).await;
            let mut refused = world.connect(NEAR).await;
            let error = refused.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            crowds.push(pairs.len());
            let moving = pairs.into_iter().map(|mut pair| {
                tokio::spawn(async move {
                    let [near, far] = &mut pair;
                    for _ in 0..20 {
                        near.write_all(&[7; 50_000]).await.unwrap();
                        drain(far, 50_000).await;
                    }
                    for end in &mut pair {
                        end.shutdown().await.unwrap();
                    }
                    for end in &mut pair {
                        assert_eq!(end.read(&mut [0; 1]).await.unwrap(), 0);
                    }
                })
            });
            for moved in moving.collect::<Vec<_>>() {
                moved.await.unwrap();
            }
            // All of it is given back: the next round has as much.
            sleep(Duration::from_secs(1)).await;
        }
        println!("512 KiB for all buffers: {crowds:?} sessions, one after the other three times");
        assert!(crowds[0] >= 8 && crowds.iter().all(|&count| count == crowds[0]), "{crowds:?}");
        world.rest().await;
    });
}

#[test]
fn one_peer_cannot_take_the_others_share() {
    live(async {
        let other = ferry_config::Identity::generate().unwrap();
        let key = other.public_key();
        let name: ferry_config::Name = "c/other".parse().unwrap();
        let mut world = World::start(line(5), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(3600);
            if config.listen.is_some() {
                config.settings.limits.memory = 4 << 20;
                config.settings.resume.buffer = Some(4 << 20);
                let peer = ferry_config::Peer {
                    name: name.clone(),
                    keys: [key].into(),
                    addresses: Vec::new(),
                    route: ferry_config::Route::default(),
                    limits: ferry_config::EntryLimits::default(),
                };
                config.peers.push(peer);
                config.ingress[0].allow.insert(name.clone());
            }
        })
        .await;
        let mut config = world.configs[NEAR].clone();
        (config.name, config.identity) = (name.clone(), other.clone());
        let host = world.net.host(ip(3));
        let tunnel = Tunnel::start_on(Arc::new(host.clone()), config).await.unwrap();
        let egress = tunnel.addresses().egress[0];
        // As many as get in; all that get as much as they can.
        let mut greedy = crowd(&world).await;
        for pair in &mut greedy {
            fill(&mut pair[1]).await;
        }
        let modest = world.apps.play(host.dial(egress).await.unwrap());
        let mut modest = timeout(Duration::from_secs(10), modest).await.expect("it is refused");
        let before = Instant::now();
        let [near, far] = &mut modest;
        let writer = async { far.write_all(&[7; 2_000_000]).await.unwrap() };
        tokio::join!(writer, drain(near, 2_000_000));
        println!("beside {} greedy sessions of one peer, another moved 2 MB in {:?}", greedy.len(), before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        drop((greedy, modest));
        tunnel.drain().await;
        world.rest().await;
    });
}
