//! Names: of several addresses one that works, and without a name service what was known before.

use std::io::ErrorKind;
use std::time::Duration;

use ferry_config::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::net::{Heal, NameService};
use crate::seeds::live;
use crate::stream::End;
use crate::world::{FAR, HOSTS, NEAR, World, ip, line};

/// Nothing answers there.
const DEAD: u8 = 9;

const OUTAGES: [NameService; 2] = [NameService::Fails, NameService::Hangs];

async fn passes([near, far]: &mut [End; 2]) -> Duration {
    let begun = Instant::now();
    near.write_all(b"x").await.unwrap();
    timeout(Duration::from_secs(60), far.read_exact(&mut [0; 1])).await.expect("it has got stuck").unwrap();
    begun.elapsed()
}

async fn pair(world: &World) -> [End; 2] {
    let pair = world.apps.play(world.connect(NEAR).await).await;
    sleep(Duration::from_secs(1)).await;
    pair
}

#[test]
fn without_a_name_service_the_addresses_of_before_are_dialled() {
    for outage in OUTAGES {
        live(async move {
            let mut world = World::start(line(40), [false, true], |_| ()).await;
            let mut pair = pair(&world).await;
            world.net.set_name_service(outage);
            world.net.heal(Heal::Reset);
            let waited = passes(&mut pair).await;
            println!("{outage:?}: back on another link after {waited:?}");
            assert!(waited <= Duration::from_millis(600), "{waited:?}");
            // For as long as it takes, and the answer counts when it is there.
            sleep(Duration::from_secs(300)).await;
            world.net.point(HOSTS[FAR], ip(7), ip(FAR as u8 + 1));
            world.net.remove(ip(FAR as u8 + 1));
            world.net.set_name_service(NameService::Answers);
            sleep(Duration::from_secs(10)).await;
            world.net.heal(Heal::Reset);
            let waited = passes(&mut pair).await;
            assert!(waited <= Duration::from_millis(600), "{waited:?}");
            drop(pair);
            world.rest().await;
        });
    }
}

#[test]
fn an_address_beside_a_name_does_not_wait_for_its_lookup() {
    for outage in OUTAGES {
        live(async move {
            let mut world = World::start(line(40), [false, true], |_| ()).await;
            world.stop_tunnel(NEAR).await;
            world.net.set_name_service(outage);
            let literal = format!("{}:18000", ip(FAR as u8 + 1));
            world.configs[NEAR].peers[0].addresses.push(Address::HostPort(literal.parse().unwrap()));
            world.start_tunnel(NEAR).await;
            let begun = Instant::now();
            let mut pair = world.apps.play(world.connect(NEAR).await).await;
            passes(&mut pair).await;
            println!("{outage:?}: open after {:?}", begun.elapsed());
            assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
            drop(pair);
            world.rest().await;
        });
    }
}

#[test]
fn an_application_whose_first_address_is_dead_is_connected_to_at_the_next() {
    live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.ingress[0].forward = "app.sim:8000".parse().unwrap();
        })
        .await;
        world.net.resolve_to("app.sim", &[ip(DEAD), ip(FAR as u8 + 1)]);
        sleep(Duration::from_secs(1)).await;
        for _ in 0..3 {
            let mut pair = world.apps.play(world.connect(NEAR).await).await;
            let begun = Instant::now();
            passes(&mut pair).await;
            assert!(begun.elapsed() <= Duration::from_millis(600), "{:?}", begun.elapsed());
        }
        world.rest().await;
    });
}

#[test]
fn an_opener_is_told_at_once_that_the_application_cannot_be_reached_though_it_has_asked_again() {
    live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.ingress[0].forward = "app.sim:8000".parse().unwrap();
        })
        .await;
        world.net.resolve_to("app.sim", &[ip(DEAD)]);
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let mut app = world.connect(NEAR).await;
        app.write_all(b"x").await.unwrap();
        let error =
            timeout(Duration::from_secs(60), app.read(&mut [0; 1])).await.expect("it has got stuck").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        println!("an application that does not answer: reset after {:?}", begun.elapsed());
        // Five seconds are what a connection to the application may take.
        assert!(begun.elapsed() <= Duration::from_millis(5_500), "{:?}", begun.elapsed());
        world.rest().await;
    });
}

#[test]
fn a_refusal_is_told_as_soon_as_it_is_known() {
    live(async {
        let mut world = World::start(line(40), [false, true], |config| {
            config.ingress[0].forward = format!("{}:1", ip(FAR as u8 + 1)).parse().unwrap();
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let mut app = world.connect(NEAR).await;
        let error =
            timeout(Duration::from_secs(60), app.read(&mut [0; 1])).await.expect("it has got stuck").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // There and back, and the order of connections may cost a moment. Nothing came before that is to be read first.
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
        world.rest().await;
    });
}
