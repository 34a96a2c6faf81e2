//! What has ended has ended: of sessions, and of processes with their sessions.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::apps::{Part, Talk};
use crate::links::Links;
use crate::net::Heal;
use crate::seeds::live;
use crate::world::{FAR, NEAR, World, line};

/// A session from `end`, of applications that wait for the quiet time.
async fn talk(world: &World, end: usize, key: u64) -> Talk {
    world.apps.talk(world.connect(end).await, key, [Part::eager(1_000); 2])
}

/// The process at `end` is gone without a word, and another takes its place.
async fn replace(world: &mut World, end: usize) {
    world.net.heal(Heal::Silent);
    world.net.partition([true, true]);
    world.stop_tunnel(end).await;
    world.net.heal(Heal::Silent);
    world.start_tunnel(end).await;
}

#[test]
fn a_session_that_was_opening_when_the_peer_restarted_is_reset_and_not_opened_twice() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        sleep(Duration::from_secs(1)).await;
        // Its bytes go nowhere, as far as is known here: to the process that is gone.
        world.net.heal(Heal::Silent);
        let talk = talk(&world, NEAR, 2).await;
        sleep(Duration::from_millis(500)).await;
        replace(&mut world, FAR).await;
        talk.ends_reset(&world.apps.clone(), Duration::from_secs(10)).await;
        world.rest().await;
    });
}

#[test]
fn an_application_that_waits_for_a_link_when_the_tunnel_ends_reads_a_reset_and_no_end() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        world.net.partition([true, true]);
        sleep(Duration::from_secs(40)).await;
        // It waits for the other one to speak first.
        let mut app = world.connect(NEAR).await;
        sleep(Duration::from_secs(1)).await;
        world.stop_tunnel(NEAR).await;
        let error = app.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn links_of_a_process_that_is_known_to_be_gone_carry_no_new_session() {
    live(async {
        let state = tempfile::tempdir().unwrap();
        let mut world = World::start(line(40), [false, true], |config| {
            config.settings.rotation.every = Duration::from_secs(24 * 3600);
        })
        .await;
        world.stop_tunnel(FAR).await;
        world.configs[FAR].state = Some(state.path().to_owned());
        world.start_tunnel(FAR).await;
        sleep(Duration::from_secs(5)).await;
        replace(&mut world, FAR).await;
        // As long as an offered link may last: with the next one the new process tells.
        sleep(Duration::from_secs(31)).await;
        world.apps.quiet();
        talk(&world, NEAR, 2).await.ends_whole().await;
        world.rest().await;
    });
}

#[test]
fn when_either_end_restarts_both_applications_are_reset_within_seconds_of_the_path() {
    for (end, links) in [(NEAR, Links::Tcp), (FAR, Links::Tcp), (NEAR, Links::Quic), (FAR, Links::Quic)] {
        live(async move {
            let state = tempfile::tempdir().unwrap();
            let mut world = World::start(line(40), [false, true], |config| links.carry(config)).await;
            world.stop_tunnel(end).await;
            world.configs[end].state = Some(state.path().to_owned());
            world.start_tunnel(end).await;
            let talks = [talk(&world, NEAR, 2).await, talk(&world, FAR, 4).await];
            sleep(Duration::from_secs(5)).await;
            replace(&mut world, end).await;
            let restarted = Instant::now();
            for talk in talks {
                talk.ends_reset(&world.apps.clone(), Duration::from_secs(20)).await;
            }
            println!(
                "{links:?}: tunnel {end} restarted: both ends of both sessions reset after {:?}",
                restarted.elapsed()
            );
            world.rest().await;
        });
    }
}

#[test]
fn an_open_that_arrives_after_its_session_has_ended_does_not_open_it_again() {
    live(async {
        let mut world = World::start(line(40), [false, true], |_| ()).await;
        sleep(Duration::from_secs(1)).await;
        let app = world.connect(NEAR).await;
        // The first Open is on its way for longer than the session lives.
        world.net.hold();
        let mut pair = world.apps.play(app).await;
        for end in &mut pair {
            end.shutdown().await.unwrap();
        }
        for end in &mut pair {
            assert_eq!(end.read(&mut [0; 1]).await.unwrap(), 0);
        }
        sleep(Duration::from_secs(1)).await;
        world.net.heal(Heal::Late(Duration::ZERO));
        let again = timeout(Duration::from_secs(5), world.apps.played()).await;
        assert!(again.is_err(), "the application was connected to twice");
        drop(pair);
        world.rest().await;
    });
}
