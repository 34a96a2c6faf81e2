//! `/events`: what is told, in which order, and to readers of every kind.

use std::net::SocketAddr;
use std::time::Instant;

use ferry_processes::nobody;
use ferry_relay::{Cut, Relay};
use ferry_tunnel::Tunnel;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pair::{Pair, Site, echo, far_config, get, near_config, status};
use crate::scene::exchange;
use crate::watch::{PATIENCE, reaches, shows};

/// A reader of a tunnel's events.
pub struct Events {
    stream: BufReader<TcpStream>,
    id: Option<String>,
}

impl Events {
    pub async fn of(tunnel: &Tunnel, query: &str, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(admin(tunnel)).await.unwrap();
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!("GET /events{query} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { stream: BufReader::new(stream), id: None };
        let hello = events.next().await;
        assert_eq!((&hello["kind"], &hello["version"]), (&"hello".into(), &1.into()));
        events
    }

    async fn next(&mut self) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("an event comes").unwrap();
            assert_ne!(read, 0, "the stream has ended");
            if let Some(id) = line.strip_prefix("id: ") {
                self.id = Some(id.trim().to_owned());
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// The next event of each of these kinds, in whichever order they come.
    async fn until_all<const KINDS: usize>(&mut self, kinds: [&str; KINDS]) -> [Value; KINDS] {
        let mut found = [const { None }; KINDS];
        while found.contains(&None) {
            let event = self.next().await;
            if let Some(at) = kinds.iter().position(|kind| event["kind"] == *kind) {
                found[at].get_or_insert(event);
            }
        }
        found.map(Option::unwrap)
    }

    /// The next event of this kind.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

fn admin(tunnel: &Tunnel) -> SocketAddr {
    tunnel.addresses().admin.unwrap()
}

#[tokio::test]
async fn a_session_is_told_of_from_its_opening_through_a_cut_and_a_rotation_to_its_end() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), far.addresses().listen.unwrap()).unwrap();
    let near = near_site.start(&near_config(&far_site, relay.addr(), "")).await;
    let [mut here, mut there] = [Events::of(&near, "", None).await, Events::of(&far, "", None).await];
    assert_eq!(here.next().await["kind"], "started");
    here.until("peer_reachable").await;
    there.until("peer_connected").await;
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    exchange(&mut app).await;
    let opened = here.until("session_opened").await;
    assert_eq!(there.until("session_opened").await["session"], opened["session"]);
    assert_eq!((&opened["peer"], &opened["side"]), (&"b/far".into(), &"opener".into()));
    assert_eq!(opened["service"], "echo");

    relay.refuse(true).unwrap();
    relay.cut(Cut::Rst);
    // The session and the dials each find out by themselves, whichever does so first.
    let [lost, detached, problem] = here.until_all(["link_lost", "session_detached", "peer_unreachable"]).await;
    for (lost, detached) in [(lost, detached), (there.until("link_lost").await, there.until("session_detached").await)]
    {
        assert_eq!((&lost["session"], &detached["session"]), (&opened["session"], &opened["session"]));
        assert!(detached["reason"].as_str().unwrap().contains("lost"), "{detached}");
        assert_eq!(detached["kept_for_seconds"], 600.0);
    }
    assert!(!problem["problem"].as_str().unwrap().is_empty());
    let session = &status(admin(&near)).await["sessions"][0];
    assert!(session["detached_seconds"].as_f64().unwrap() >= 0.0, "{session}");
    assert_eq!(status(admin(&near)).await["totals"]["detached"], 1);
    relay.refuse(false).unwrap();
    for events in [&mut here, &mut there] {
        assert!(events.until("session_resumed").await["after_seconds"].as_f64().unwrap() > 0.0);
    }
    let session = &status(admin(&near)).await["sessions"][0];
    assert_eq!(session["resumes"], 1);
    assert!(session["longest_pause_seconds"].as_f64().unwrap() > 0.0 && session["detached_seconds"].is_null());

    near.rotate_all();
    let rotated = here.until("session_rotated").await;
    assert!(rotated["epoch"].as_u64().unwrap() >= 3, "{rotated}");
    exchange(&mut app).await;
    drop(app);
    let ended = here.until("session_ended").await;
    assert_eq!((&ended["session"], &ended["ending"]), (&opened["session"], &"finished".into()));
    assert_eq!((&ended["sent"], &ended["received"]), (&10.into(), &10.into()));
}

#[tokio::test]
async fn a_reader_that_comes_back_with_its_last_id_misses_nothing_and_gets_nothing_twice() {
    let pair = Pair::start(echo().await).await;
    reaches(admin(&pair.near), "ferry_links{role=\"dialler\"}", 6).await;
    let mut first = Events::of(&pair.near, "", None).await;
    first.until("started").await;
    let id = first.id.clone().unwrap();
    let next = first.next().await;
    drop(first);
    let mut again = Events::of(&pair.near, "", Some(&id)).await;
    assert_eq!(again.next().await, next);
    let mut by_query = Events::of(&pair.near, &format!("?after={id}"), None).await;
    assert_eq!(by_query.next().await, next);
    let mut new = Events::of(&pair.near, "?tail=0", None).await;
    exchange(&mut pair.connect().await).await;
    let newest = new.next().await;
    let [at, before] = [&newest, &next].map(|event| event["at"].as_str().unwrap());
    assert!(at >= before && at.ends_with('Z'), "{at}");
}

#[tokio::test]
async fn refusals_reloads_and_a_drain_are_told_of_with_their_reasons() {
    let (near_site, far_site, stranger) = (Site::new("a/near"), Site::new("b/far"), Site::new("x/stranger"));
    let far = far_site.start(&far_config(&near_site, nobody(), "")).await;
    let mut events = Events::of(&far, "", None).await;
    let port = far.addresses().listen.unwrap();
    let near = near_site.start(&near_config(&far_site, port, "")).await;
    let _app = TcpStream::connect(near.addresses().egress[0]).await;
    let refused = events.until("session_refused").await;
    assert_eq!((&refused["peer"], &refused["reason"]), (&"a/near".into(), &"unreachable".into()));
    assert!(refused["text"].as_str().unwrap().contains("refused"), "{refused}");

    let knocking = stranger.start(&near_config(&far_site, port, "")).await;
    let refused = events.until("link_refused").await;
    assert_eq!((&refused["role"], &refused["reason"]), (&"listener".into(), &"key".into()));
    assert!(refused["text"].as_str().unwrap().contains(&stranger.key.to_string()), "{refused}");
    let mut outside = Events::of(&knocking, "", None).await;
    let refused = outside.until("link_refused").await;
    assert_eq!((&refused["peer"], &refused["reason"]), (&"b/far".into(), &"key".into()));

    far.follow(far_site.config_path());
    std::fs::write(far_site.config_path(), "name: [").unwrap();
    far.read_again();
    assert!(events.until("config_refused").await["problem"].as_str().unwrap().contains("tunnel.yaml"));
    far_site.configure(&far_config(&near_site, echo().await, "drain: 3s\n"));
    far.read_again();
    events.until("config_reloaded").await;
    let draining = tokio::spawn(far.drain());
    assert_eq!(events.until("draining").await["within_seconds"], 3.0);
    drop((near, knocking));
    draining.await.unwrap();
}

#[tokio::test]
async fn a_tunnel_that_ends_tells_its_readers_so_before_their_streams_end() {
    for _ in 0..16 {
        let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
        let far = far_site.start(&far_config(&near_site, nobody(), "")).await;
        let mut events = Events::of(&far, "", None).await;
        far.drain().await;
        events.until("draining").await;
        let mut rest = String::new();
        events.stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("\r\n0\r\n\r\n"), "{rest:?}");
    }
}

/// Whether a reader gets a place.
async fn asked(admin: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /events?tail=0 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    line.contains("200")
}

/// A reader that takes nothing keeps its place, and nothing else.
#[tokio::test]
async fn readers_are_bounded_and_one_that_takes_nothing_holds_nothing_up() {
    let pair = Pair::start(echo().await).await;
    let near = admin(&pair.near);
    let mut readers = Vec::new();
    while readers.len() < 16 {
        readers.push(Events::of(&pair.near, "", None).await);
    }
    assert_eq!(get(near, "/events").await.0, 503);
    for _ in 0..200 {
        exchange(&mut pair.connect().await).await;
    }
    shows(near, "ferry_sessions_ended{", &[("side=\"opener\",ending=\"finished\"}", 200)]).await;
    assert_eq!(get(near, "/livez").await.0, 200);
    drop(readers);
    // A place is free once the tunnel has seen that its reader is gone.
    let begun = Instant::now();
    while !asked(near).await {
        assert!(begun.elapsed() < PATIENCE, "no place becomes free");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn status_lists_as_many_sessions_as_are_asked_for_and_counts_all() {
    let pair = Pair::start(echo().await).await;
    let mut apps = Vec::new();
    for _ in 0..5 {
        let mut app = pair.connect().await;
        exchange(&mut app).await;
        apps.push(app);
    }
    let (code, body) = get(admin(&pair.near), "/status?sessions=2").await;
    assert_eq!(code, 200);
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["sessions"].as_array().unwrap().len(), 2);
    assert_eq!((&status["totals"]["sessions"], &status["version"]), (&5.into(), &1.into()));
    assert_eq!(status["settings"]["rotation_every_seconds"], 30.0);
    assert_eq!((&status["peers"][0]["dialled"], &status["peers"][0]["detached"]), (&true.into(), &0.into()));
}
