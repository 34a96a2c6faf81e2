//! What an end is told about a session by the far tunnel, and by others that answer in its place.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::Heal;
use crate::pipe::Cargo;
use crate::seeds::live;
use crate::stream::End;
use crate::world::{BOTH, FAR, HOSTS, NEAR, World, ip, line};

/// Where another tunnel of the far end's runs.
const ANOTHER: u8 = 3;

async fn pair(world: &World) -> [End; 2] {
    let pair = world.apps.play(world.connect(NEAR).await).await;
    sleep(Duration::from_secs(1)).await;
    pair
}

/// A tunnel with the far one's configuration, on another host.
async fn start_another(world: &World) -> Tunnel {
    let host = world.net.host(ip(ANOTHER));
    Tunnel::start_on(Arc::new(host), world.configs[FAR].clone()).await.unwrap()
}

/// New connections to the far end's address reach the host that ends with `last`.
fn lead_to(world: &World, last: u8) {
    world.net.point(HOSTS[FAR], ip(last), ip(last));
}

async fn passes(from: &mut End, to: &mut End) {
    from.write_all(b"x").await.unwrap();
    timeout(Duration::from_secs(5), to.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
}

/// How long a byte of the far end takes, when only that one has lost the link of a quiet session.
fn half_lost(rotated_every: u64, settle: Duration) -> Duration {
    let waited = live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(rotated_every);
            config.settings.liveness = Duration::from_secs(60);
            (config.settings.warm_links.own, config.settings.warm_links.offered) = (0, 0);
        })
        .await;
        let [mut near, mut far] = pair(&world).await;
        sleep(settle).await;
        // The far end reads a reset; the near one is told nothing, and its next packets get no answer.
        world.net.carried().iter().for_each(|connection| connection.pipes()[0].send(Cargo::Rst));
        sleep(Duration::from_millis(50)).await;
        world.net.heal(Heal::Silent);
        far.write_all(b"x").await.unwrap();
        let lost = Instant::now();
        timeout(Duration::from_secs(60), near.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
        let waited = lost.elapsed();
        drop((near, far));
        world.rest().await;
        waited
    });
    println!("a byte of the end that had lost the link: there after {waited:?}");
    waited
}

#[test]
fn a_session_whose_link_only_the_far_end_has_lost_resumes_with_the_next_rotation() {
    // Its first rotation begins when the link is 3.2 to 4 s old, after the loss and before a ping has had no answer for
    // two seconds.
    let waited = half_lost(4, Duration::from_millis(1_700));
    assert!(waited <= Duration::from_secs(2), "{waited:?}");
}

#[test]
fn a_quiet_session_whose_link_only_the_far_end_has_lost_asks_within_a_second_and_resumes() {
    for settle in [6_000, 6_300, 6_600, 6_900] {
        let waited = half_lost(3_600, Duration::from_millis(settle));
        // A ping within a second, two for its answer, and a new link over a path of 40 ms each way.
        assert!(waited <= Duration::from_millis(3_500), "{waited:?}");
    }
}

#[test]
fn a_session_goes_on_although_another_replica_has_answered_for_a_while() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        let [mut near, mut far] = pair(&world).await;
        let another = start_another(&world).await;
        world.cut_off();
        lead_to(&world, ANOTHER);
        world.net.heal(Heal::Silent);
        sleep(Duration::from_secs(20)).await;
        lead_to(&world, FAR as u8 + 1);
        near.write_all(b"x").await.unwrap();
        let back = Instant::now();
        timeout(Duration::from_secs(60), far.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
        println!("resumed {:?} after its replica was reached again", back.elapsed());
        passes(&mut far, &mut near).await;
        drop((near, far));
        another.drain().await;
        world.rest().await;
    });
}

#[test]
fn a_process_that_started_beside_the_former_one_tells_of_it_as_soon_as_that_is_gone() {
    live(async {
        let state = tempfile::tempdir().unwrap();
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        world.stop_tunnel(FAR).await;
        world.configs[FAR].state = Some(state.path().to_owned());
        world.start_tunnel(FAR).await;
        sleep(Duration::from_secs(5)).await;
        let opened_by = [NEAR, FAR];
        let mut apps = Vec::new();
        for end in opened_by {
            apps.push(world.apps.play(world.connect(end).await).await);
        }
        sleep(Duration::from_secs(1)).await;
        // The next process starts while the former one still drains.
        let another = start_another(&world).await;
        lead_to(&world, ANOTHER);
        world.net.partition([true, true]);
        world.stop_tunnel(FAR).await;
        world.net.heal(Heal::Silent);
        let gone = Instant::now();
        for (opener, ends) in opened_by.into_iter().zip(&mut apps) {
            // Of those two, the one beside the tunnel that lives on.
            let app = &mut ends[if opener == NEAR { NEAR } else { 1 - NEAR }];
            let read = timeout(Duration::from_secs(60), app.read(&mut [0; 1])).await.expect("it is told");
            assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
            println!("a session of {opener}: reset {:?} after its process had ended", gone.elapsed());
        }
        assert!(gone.elapsed() <= Duration::from_secs(20), "{:?}", gone.elapsed());
        drop(apps);
        another.drain().await;
        BOTH.iter().for_each(|&end| world.net.point(HOSTS[end], ip(end as u8 + 1), ip(end as u8 + 1)));
        world.start_tunnel(FAR).await;
        world.rest().await;
    });
}
