//! The configuration changes under live sessions.

use std::fmt::Write as _;

use ferry_config::Identity;
use ferry_processes::Port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pair::{Pair, Site, echo, near_config, status};
use crate::scene::exchange;
use crate::survive::Checked;
use crate::watch::{answers, reaches, shows};

fn site_with_keys(site: &Site, keys: &[String]) -> String {
    format!("peers: [{{name: {}, keys: [{}]}}]\n", site.name, keys.join(", "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_a_key_loses_no_byte() {
    let checked = Checked::start("").await;
    let epoch = checked.reaches(1).await;
    let service = checked.far.addresses().listen.unwrap();
    let ingress =
        |site: &Site| format!("ingress: [{{service: echo, forward: \"{service}\", allow: [{}]}}]\n", site.name);
    let far = |keys: &[String]| {
        let listen = "listen: 127.0.0.1:0\n";
        let rest = format!("{listen}{}{}", site_with_keys(&checked.near_site, keys), ingress(&checked.near_site));
        checked.far_site.configure(&rest)
    };
    let old = format!("\"{}\"", checked.near_site.key);
    let fresh = Identity::generate().unwrap();
    let new = format!("\"{}\"", fresh.public_key());
    checked.far.reload(far(&[old.clone(), new.clone()])).await.unwrap();
    checked.moves(100_000).await;
    assert_eq!(checked.reaches(1).await, epoch, "another accepted key touches no session");
    // The near end takes its new identity, then the far end drops the old one.
    std::fs::remove_file(checked.near_site.path().join("identity.key")).unwrap();
    fresh.write_new(&checked.near_site.path().join("identity.key")).unwrap();
    let near = checked.near_site.configure(&near_config(&checked.far_site, checked.relay.addr(), ""));
    checked.near.reload(near).await.unwrap();
    checked.moves(100_000).await;
    assert_eq!(checked.reaches(1).await, epoch, "a new identity touches no session");
    checked.far.reload(far(&[new])).await.unwrap();
    checked.reaches(epoch + 1).await;
    checked.moves(100_000).await;
    checked.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_moves_to_another_address() {
    let checked = Checked::start("").await;
    let epoch = checked.reaches(1).await;
    let moved = checked.relay.move_to("127.0.0.1:0".parse().unwrap()).unwrap();
    let near = checked.near_site.configure(&near_config(&checked.far_site, moved, ""));
    checked.near.reload(near).await.unwrap();
    checked.reaches(epoch + 1).await;
    checked.moves(100_000).await;
    checked.finish().await;
}

#[tokio::test]
async fn a_session_whose_right_was_withdrawn_ends_and_another_lives() {
    let forward = echo().await;
    let (near, far) = (Site::new("a/near"), Site::new("b/far"));
    let two = |allow_second: &str| {
        let mut text = format!("listen: 127.0.0.1:0\npeers: [{{name: a/near, keys: [\"{}\"]}}]\ningress:\n", near.key);
        writeln!(text, "  - {{service: first, forward: \"{forward}\", allow: [a/near]}}").unwrap();
        text + allow_second
    };
    let second = format!("  - {{service: second, forward: \"{forward}\", allow: [a/near]}}\n");
    let far_tunnel = far.start(&two(&second)).await;
    let address = far_tunnel.addresses().listen.unwrap();
    let near_tunnel = near
        .start(&format!(
            "peers: [{{name: b/far, keys: [\"{}\"], addresses: [\"{address}\"]}}]\negress:\n  \
             - {{listen: \"127.0.0.1:0\", peer: b/far, service: first}}\n  \
             - {{listen: \"127.0.0.1:0\", peer: b/far, service: second}}\n",
            far.key
        ))
        .await;
    let mut apps = Vec::new();
    for egress in &near_tunnel.addresses().egress {
        let mut app = TcpStream::connect(egress).await.unwrap();
        app.write_all(b"x").await.unwrap();
        app.read_exact(&mut [0; 1]).await.unwrap();
        apps.push(app);
    }
    far_tunnel.reload(far.configure(&two(""))).await.unwrap();
    assert!(apps[1].read(&mut [0; 1]).await.is_err(), "the withdrawn service's session is reset");
    apps[0].write_all(b"y").await.unwrap();
    apps[0].read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_the_next_one_is_taken() {
    let pair = Pair::start(echo().await).await;
    pair.near.follow(pair.near_site.config_path());
    let good = std::fs::read_to_string(pair.near_site.config_path()).unwrap();
    std::fs::write(pair.near_site.config_path(), "name: [\n").unwrap();
    pair.near.read_again();
    let mut app = pair.connect().await;
    app.write_all(b"x").await.unwrap();
    app.read_exact(&mut [0; 1]).await.unwrap();
    // Another egress appears; the first one's session lives.
    let port = Port::reserve();
    let free = port.address();
    let more = format!("  - {{listen: \"{free}\", peer: b/far, service: echo}}\n");
    let good = good.replace("egress: [", "egress:\n  - ").replace("}]\n", "}\n");
    let good = good.replacen("peers: [", "peers:\n  - ", 1) + &more;
    std::fs::write(pair.near_site.config_path(), good).unwrap();
    pair.near.read_again();
    let mut second = loop {
        match TcpStream::connect(free).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    second.write_all(b"z").await.unwrap();
    second.read_exact(&mut [0; 1]).await.unwrap();
    app.write_all(b"y").await.unwrap();
    app.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test]
async fn an_egress_whose_address_is_taken_is_shown_and_served_as_soon_as_it_is_free() {
    let pair = Pair::start(echo().await).await;
    let admin = pair.near.addresses().admin.unwrap();
    let port = Port::reserve();
    let listen = port.address();
    let taken = std::net::TcpListener::bind(listen).unwrap();
    let mut config = pair.near_site.configure(&near_config(&pair.far_site, pair.far.addresses().listen.unwrap(), ""));
    let mut another = config.egress[0].clone();
    another.listen = listen;
    config.egress.push(another);
    pair.near.reload(config).await.unwrap();
    reaches(admin, "ferry_listeners_down", 1).await;
    let shown = answers(admin, "/readyz", 503).await;
    assert!(shown.starts_with(&format!("egress {listen} is not served: ")), "{shown}");
    assert_eq!(status(admin).await["unbound"][0]["listen"], listen.to_string());
    drop(taken);
    shows(admin, "ferry_listeners_down", &[]).await;
    answers(admin, "/readyz", 200).await;
    exchange(&mut TcpStream::connect(listen).await.unwrap()).await;
}
