//! Probes, metrics and status, with the meanings that the contract gives them; and what keeps a tunnel from starting.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ferry_processes::Port;
use ferry_relay::{Cut, Relay};
use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pair::{Pair, Site, echo, far_config, get, near_config, status};
use crate::scene::exchange;
use crate::watch::{answers, log, reaches, samples, says, shows};

/// A near tunnel, a relay, and a far tunnel.
struct Related {
    near: Tunnel,
    relay: Relay,
    far: Tunnel,
    _sites: [Site; 2],
}

async fn related() -> Related {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), far.addresses().listen.unwrap()).unwrap();
    let near = near_site.start(&near_config(&far_site, relay.addr(), "rotation: {max_per_second: 1000}\n")).await;
    Related { near, relay, far, _sites: [near_site, far_site] }
}

fn admin(tunnel: &Tunnel) -> SocketAddr {
    tunnel.addresses().admin.unwrap()
}

// --- probes ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn readiness_is_local_and_asks_about_peers_only_when_told_to() {
    let Related { near, relay, far: _far, _sites } = related().await;
    let admin = admin(&near);
    answers(admin, "/readyz?peers=1", 200).await;
    relay.refuse(true).unwrap();
    relay.cut(Cut::Rst);
    // A dial that was under way may have failed in another way first.
    let problem = says(admin, "/readyz?peers=1", 503, "Connection refused").await;
    assert!(problem.starts_with("peer b/far is not reachable: "), "{problem}");
    for path in ["/readyz", "/readyz?peers=0", "/livez"] {
        assert_eq!(get(admin, path).await.0, 200, "{path}, while the peer is down");
    }
    let peer = &status(admin).await["peers"][0];
    assert_eq!((&peer["name"], &peer["reachable"]), (&"b/far".into(), &false.into()));
    assert!(peer["problem"].as_str().unwrap().contains("Connection refused"));
    relay.refuse(false).unwrap();
    answers(admin, "/readyz?peers=1", 200).await;
    assert_eq!(status(admin).await["peers"][0]["reachable"], true);
}

/// An end that cannot dial its peer knows of it by the links that the peer offers.
#[tokio::test]
async fn a_peer_that_dials_is_reachable_while_it_offers_links() {
    log();
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let mut text = far_config(&near_site, echo().await, "");
    writeln!(text, "egress: [{{listen: \"127.0.0.1:0\", peer: {}, service: back}}]", near_site.name).unwrap();
    let far = far_site.start(&text).await;
    let problem = answers(admin(&far), "/readyz?peers=1", 503).await;
    assert_eq!(problem, "peer a/near is not reachable: it has not connected yet\n");
    shows(admin(&far), "ferry_peer_reachable{", &[]).await;
    let mut text = near_config(&far_site, far.addresses().listen.unwrap(), "");
    let forward = echo().await;
    writeln!(text, "ingress: [{{service: back, forward: \"{forward}\", allow: [{}]}}]", far_site.name).unwrap();
    let near = near_site.start(&text).await;
    answers(admin(&far), "/readyz?peers=1", 200).await;
    let mut app = TcpStream::connect(far.addresses().egress[0]).await.unwrap();
    exchange(&mut app).await;
    shows(admin(&far), "ferry_peer_reachable{", &[("peer=\"a/near\"}", 1)]).await;
    shows(admin(&far), "ferry_peer_sessions{", &[("peer=\"a/near\"}", 1)]).await;
    drop(app);
    near.drain().await;
    answers(admin(&far), "/readyz?peers=1", 503).await;
    shows(admin(&far), "ferry_peer_reachable{", &[]).await;
    shows(admin(&far), "ferry_peer_sessions{", &[]).await;
}

#[tokio::test]
async fn a_draining_tunnel_is_alive_and_not_ready() {
    let pair = Pair::start(echo().await).await;
    let mut app = pair.connect().await;
    exchange(&mut app).await;
    let admin = admin(&pair.far);
    let draining = tokio::spawn(pair.far.drain());
    assert_eq!(answers(admin, "/readyz", 503).await, "draining\n");
    assert_eq!(get(admin, "/readyz?peers=1").await.0, 503);
    assert_eq!(get(admin, "/livez").await.0, 200);
    assert_eq!(status(admin).await["draining"], true);
    app.shutdown().await.unwrap();
    app.read_to_end(&mut Vec::new()).await.unwrap();
    draining.await.unwrap();
    assert!(TcpStream::connect(admin).await.is_err(), "nothing is left of it");
}

#[tokio::test]
async fn other_paths_and_queries_are_refused() {
    let pair = Pair::start(echo().await).await;
    let admin = admin(&pair.near);
    assert_eq!(get(admin, "/nowhere").await.0, 404);
    assert_eq!(get(admin, "/readyz?peers=maybe").await.0, 400);
}

// --- metrics ---------------------------------------------------------------------------------------------------------

/// Name and type of every metric: one that is added is added here, and to the operator's documentation.
const METRICS: [(&str, &str); 37] = [
    ("ferry_application_bytes", "counter"),
    ("ferry_attaches_refused", "counter"),
    ("ferry_connections_refused", "counter"),
    ("ferry_engine_starts", "counter"),
    ("ferry_handshake_seconds", "histogram"),
    ("ferry_key_bytes", "gauge"),
    ("ferry_limit_bytes_per_second", "gauge"),
    ("ferry_limit_bytes_per_second_max", "gauge"),
    ("ferry_limit_refused", "counter"),
    ("ferry_limit_sessions", "gauge"),
    ("ferry_limit_sessions_max", "gauge"),
    ("ferry_limit_sessions_waiting", "gauge"),
    ("ferry_link_failures", "counter"),
    ("ferry_links", "counter"),
    ("ferry_links_open", "gauge"),
    ("ferry_links_unauthenticated", "gauge"),
    ("ferry_links_warm", "gauge"),
    ("ferry_listeners_down", "gauge"),
    ("ferry_log_lines_lost", "counter"),
    ("ferry_memory_lent_bytes", "gauge"),
    ("ferry_oldest_key_seconds", "gauge"),
    ("ferry_peer_reachable", "gauge"),
    ("ferry_peer_sessions", "gauge"),
    ("ferry_replicas", "gauge"),
    ("ferry_resume_pause_seconds", "histogram"),
    ("ferry_resumes", "counter"),
    ("ferry_rotation_delay_seconds", "gauge"),
    ("ferry_rotations", "counter"),
    ("ferry_sessions", "counter"),
    ("ferry_sessions_adopted", "counter"),
    ("ferry_sessions_detached", "gauge"),
    ("ferry_sessions_dropped", "counter"),
    ("ferry_sessions_ended", "counter"),
    ("ferry_sessions_open", "gauge"),
    ("ferry_splices", "counter"),
    ("ferry_splices_open", "gauge"),
    ("ferry_tombstones_dropped", "counter"),
];

#[tokio::test]
async fn every_metric_is_listed_with_its_type_and_help() {
    let pair = Pair::start(echo().await).await;
    let (_, text) = get(admin(&pair.near), "/metrics").await;
    let mut listed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    listed.sort_unstable();
    assert_eq!(listed, METRICS);
    for (name, _) in METRICS {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// Each metric moves when what it counts happens; those of refusals are asserted where the refusals are.
#[tokio::test]
async fn metrics_follow_a_session_through_its_life() {
    let Related { near, relay, far, _sites } = related().await;
    let admins = [admin(&near), admin(&far)];
    let [near_admin, far_admin] = admins;
    let mut app = TcpStream::connect(near.addresses().egress[0]).await.unwrap();
    exchange(&mut app).await;
    // Four own links and two offered ones stay warm, beside the one in use.
    shows(near_admin, "ferry_links{", &[("role=\"dialler\"}", 7)]).await;
    shows(far_admin, "ferry_links{", &[("role=\"listener\"}", 7)]).await;
    for admin in admins {
        shows(admin, "ferry_links_open", &[("", 7)]).await;
        shows(admin, "ferry_link_failures", &[]).await;
    }
    shows(near_admin, "ferry_links_warm", &[("", 4)]).await;
    shows(near_admin, "ferry_sessions{", &[("side=\"opener\"}", 1)]).await;
    shows(far_admin, "ferry_sessions_open{", &[("side=\"acceptor\"}", 1)]).await;
    let bytes = [("direction=\"received\"}", 5), ("direction=\"sent\"}", 5)];
    shows(near_admin, "ferry_application_bytes{", &bytes).await;
    shows(far_admin, "ferry_application_bytes{", &bytes).await;

    near.rotate_all();
    shows(near_admin, "ferry_rotations{", &[("result=\"done\"}", 1)]).await;
    shows(near_admin, "ferry_resumes", &[]).await;

    relay.refuse(true).unwrap();
    relay.cut(Cut::Rst);
    shows(near_admin, "ferry_sessions_detached", &[("", 1)]).await;
    shows(far_admin, "ferry_sessions_detached", &[("", 1)]).await;
    reaches(near_admin, "ferry_link_failures{role=\"dialler\",reason=\"unreachable\"}", 1).await;
    relay.refuse(false).unwrap();
    shows(near_admin, "ferry_resumes", &[("", 1)]).await;
    for admin in admins {
        shows(admin, "ferry_sessions_detached", &[]).await;
    }
    exchange(&mut app).await;

    app.shutdown().await.unwrap();
    app.read_to_end(&mut Vec::new()).await.unwrap();
    shows(near_admin, "ferry_sessions_ended{", &[("side=\"opener\",ending=\"finished\"}", 1)]).await;
    shows(far_admin, "ferry_sessions_ended{", &[("side=\"acceptor\",ending=\"finished\"}", 1)]).await;
    for admin in admins {
        shows(admin, "ferry_sessions_open", &[]).await;
    }
    drop(near);
    drop(relay);
    shows(far_admin, "ferry_links_open", &[]).await;
    assert!(samples(far_admin, "ferry_links{").await["role=\"listener\"}"] > 7, "what was counted stays counted");
}

// --- status ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn status_shows_peers_sessions_and_keys() {
    let pair = Pair::start(echo().await).await;
    let mut app = pair.connect().await;
    exchange(&mut app).await;
    // Bytes are counted once the system has taken them; the application may have seen them by then.
    let counted = "\"sent\":5,\"received\":5";
    says(admin(&pair.near), "/status", 200, counted).await;
    says(admin(&pair.far), "/status", 200, counted).await;
    let [near, far] = [status(admin(&pair.near)).await, status(admin(&pair.far)).await];
    assert_eq!((&near["name"], &far["name"]), (&"a/near".into(), &"b/far".into()));
    assert_ne!(near["instance"], far["instance"]);
    assert_eq!(near["draining"], false);
    let [here, there] = [&near["sessions"][0], &far["sessions"][0]];
    assert_eq!(here["id"], there["id"], "one session has one name");
    assert_eq!((&here["side"], &there["side"]), (&"opener".into(), &"acceptor".into()));
    assert_eq!(
        (&here["peer_key"], &there["peer_key"]),
        (&pair.far_site.key.to_string().into(), &pair.near_site.key.to_string().into(),)
    );
    for session in [here, there] {
        assert_eq!(session["service"], "echo");
        assert_eq!((&session["attached"], &session["epoch"]), (&true.into(), &1.into()));
        assert_eq!(session["carrier"], "tcp");
        assert_eq!(session["key_exchange"], "X25519MLKEM768");
        assert_eq!(session["cipher"], "TLS13_AES_256_GCM_SHA384");
        assert_eq!((&session["sent"], &session["received"]), (&5.into(), &5.into()));
        assert!(session["key_age_seconds"].as_f64().unwrap() >= 0.0 && session["age_seconds"].is_f64());
    }
    assert_eq!(near["peers"][0]["sessions"], 1);
    let shown = near.to_string() + &far.to_string();
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

// --- the page --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_page_runs_only_what_it_brings_along_and_is_shown_in_no_other() {
    let pair = Pair::start(echo().await).await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let (head, body) = answer(admin(&pair.near), "GET", "/", "localhost").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: text/html; charset=utf-8\r\n"), "{head}");
        let nonce = body.split("<script nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!(body.matches("<script").count(), 1, "one script, with the nonce");
        assert!(body.contains(&format!("<style nonce=\"{nonce}\">")));
        for part in ["default-src 'none'", &format!("script-src 'nonce-{nonce}'"), "frame-ancestors 'none'"] {
            assert!(head.contains(part), "{part} in {head}");
        }
        for from_elsewhere in ["http://", "https://", "//cdn", "innerHTML", "insertAdjacentHTML", "eval("] {
            let own = body.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains(from_elsewhere), "{from_elsewhere} in the page");
        }
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
    for path in ["/", "/status", "/livez", "/nowhere"] {
        let (head, _) = answer(admin(&pair.near), "GET", path, "localhost").await;
        for header in ["x-frame-options: DENY", "x-content-type-options: nosniff", "referrer-policy: no-referrer"] {
            assert!(head.contains(header), "{header} on {path}: {head}");
        }
    }
    for path in ["/", "/events"] {
        let (head, _) = answer(admin(&pair.near), "GET", path, "rebound.example.com").await;
        assert!(head.starts_with("HTTP/1.1 403"), "{path}: {head}");
    }
    assert!(answer(admin(&pair.near), "POST", "/", "localhost").await.0.starts_with("HTTP/1.1 405"));
}

/// Head and body of an answer.
async fn answer(admin: SocketAddr, method: &str, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned() + "\r\n", body.to_owned())
}

// --- what keeps it from starting -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_port_that_is_taken_is_named_in_one_line_with_its_key() {
    let port = Port::reserve();
    let addr = port.address();
    let taken = TcpListener::bind(addr).await.unwrap();
    let peer = Site::new("b/far");
    let free: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let egress = near_config(&peer, free, "").replace("127.0.0.1:0", &addr.to_string());
    let cases = [("listen", format!("listen: \"{addr}\"\n")), ("admin", String::new()), ("egress[0].listen", egress)];
    for (key, rest) in cases {
        let site = Site::new("a/near");
        let mut config = site.configure(&rest);
        if key == "admin" {
            config.admin = Some(addr);
        }
        let error = Tunnel::start(config).await.err().expect("the port is taken").to_string();
        assert!(error.starts_with(&format!("cannot listen on {addr} ({key}): ")), "{error}");
        assert!(error.contains("in use") && !error.contains('\n'), "{error}");
    }
    drop(taken);
    // What failed has let go of everything: the same configuration starts now.
    let site = Site::new("a/near");
    site.start(&format!("listen: \"{addr}\"\n")).await;
}

// --- who may call, and how many --------------------------------------------------------------------------------------

async fn asked(admin: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET /livez HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// A web page whose own name resolves to this host is of the same origin as the endpoint, but for the name.
#[tokio::test]
async fn the_admin_endpoint_answers_only_to_names_of_this_host() {
    let pair = Pair::start(echo().await).await;
    let admin = admin(&pair.near);
    for host in [admin.to_string(), "localhost".to_owned(), format!("localhost:{}", admin.port())] {
        assert_eq!(asked(admin, &host).await, "200", "{host}");
    }
    for host in ["rebound.example.com", "localhost.example.com:9900", "192.0.2.1"] {
        assert_eq!(asked(admin, host).await, "403", "{host}");
    }
}

/// Requests without an end, far more of them than there are places.
#[tokio::test]
async fn unfinished_requests_keep_no_probe_out() {
    let pair = Pair::start(echo().await).await;
    let admin = admin(&pair.near);
    let mut unfinished = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: ").await;
        unfinished.push(stream);
    }
    assert_eq!(get(admin, "/livez").await.0, 200);
    // The oldest of them made way, and those that were left have a few seconds.
    for mut stream in unfinished {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(get(admin, "/livez").await.0, 200);
}
