//! Limits of single entries of the configuration: of a peer, an egress and an ingress.

use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpStream;

use crate::events::Events;
use crate::pair::{Site, echo, get, status};
use crate::scene::{exchange, is_refused, is_reset};
use crate::watch::{assert_logged, log, says, shows};

/// Two tunnels; the near one has two egresses to two services of the far one. What follows an entry is its limits.
struct Limited {
    near: ferry_tunnel::Tunnel,
    far: ferry_tunnel::Tunnel,
    near_site: Site,
    far_site: Site,
    forward: SocketAddr,
}

impl Limited {
    /// `near` is added to the first egress, `far` to the first ingress and `peer` to the far end's peer.
    async fn start(near: &str, far: &str, peer: &str) -> Self {
        log();
        let (near_site, far_site, forward) = (Site::new("a/near"), Site::new("b/far"), echo().await);
        let far = far_site.start(&far_config(&near_site, forward, far, peer)).await;
        let near = near_site.start(&near_config(&far_site, &far, near)).await;
        Self { near, far, near_site, far_site, forward }
    }

    fn app(&self, index: usize) -> SocketAddr {
        self.near.addresses().egress[index]
    }

    async fn connect(&self, index: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.app(index)).await.unwrap();
        exchange(&mut stream).await;
        stream
    }

    async fn reload_far(&self, far: &str, peer: &str) {
        let config = self.far_site.configure(&far_config(&self.near_site, self.forward, far, peer));
        self.far.reload(config).await.unwrap();
    }
}

fn far_config(near: &Site, forward: SocketAddr, limits: &str, peer: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\npeers: [{{name: a/near, keys: [\"{}\"]{peer}}}]\ningress:\n\
         - {{service: first, forward: \"{forward}\", allow: [a/near]{limits}}}\n\
         - {{service: second, forward: \"{forward}\", allow: [a/near]}}\n",
        near.key
    )
}

fn near_config(far: &Site, tunnel: &ferry_tunnel::Tunnel, limits: &str) -> String {
    format!(
        "peers: [{{name: b/far, keys: [\"{}\"], addresses: [\"{}\"]}}]\negress:\n\
         - {{listen: \"127.0.0.1:0\", peer: b/far, service: first{limits}}}\n\
         - {{listen: \"127.0.0.1:0\", peer: b/far, service: second}}\n",
        far.key,
        tunnel.addresses().listen.unwrap()
    )
}

const ONE: &str = ", limits: {sessions: 1}";

#[tokio::test]
async fn a_connection_beyond_the_limit_of_its_egress_is_refused_and_another_egress_is_not_touched() {
    let limited = Limited::start(ONE, "", "").await;
    let (first, second) = (limited.app(0), limited.app(1));
    let mut kept = limited.connect(0).await;
    is_refused(first).await;
    let name = "127.0.0.1:0";
    let text = format!("the limit of 1 sessions of this egress is reached (egress[{name}].limits.sessions)");
    assert_logged(&["WARN", "application's connection reset", &text]);
    let admin = limited.near.addresses().admin.unwrap();
    shows(admin, "ferry_connections_refused", &[("{reason=\"service_limit\"}", 1)]).await;
    let labels = format!("{{scope=\"egress\",name=\"{name}\"}}");
    shows(admin, "ferry_limit_refused", &[(&labels, 1)]).await;
    shows(admin, "ferry_limit_sessions{", &[(&labels[1..], 1)]).await;
    let told = Events::of(&limited.near, "", None).await.until("connection_refused").await;
    assert_eq!((&told["reason"], &told["text"]), (&json!("service_limit"), &json!(text)));
    let sessions = json!({"used": 1, "limit": 1, "refused": 1});
    assert_eq!(status(admin).await["limits"], json!([{"scope": "egress", "name": name, "sessions": sessions}]));
    let _others = [limited.connect(1).await, limited.connect(1).await];
    exchange(&mut kept).await;
    drop(kept);
    shows(admin, "ferry_limit_sessions{", &[]).await;
    exchange(&mut TcpStream::connect(first).await.unwrap()).await;
    exchange(&mut TcpStream::connect(second).await.unwrap()).await;
}

#[tokio::test]
async fn a_session_beyond_the_limit_of_its_service_is_refused_to_the_peer_which_is_told_why() {
    let limited = Limited::start("", ONE, "").await;
    let mut kept = limited.connect(0).await;
    let mut refused = TcpStream::connect(limited.app(0)).await.unwrap();
    is_reset(&mut refused).await;
    let text = "the limit of 1 sessions of this service is reached (ingress[first].limits.sessions)";
    let (near, far) = (limited.near.addresses().admin.unwrap(), limited.far.addresses().admin.unwrap());
    shows(far, "ferry_connections_refused", &[("{reason=\"service_limit\"}", 1)]).await;
    shows(far, "ferry_attaches_refused", &[("{reason=\"limit\"}", 1)]).await;
    assert_logged(&[&format!("session refused: {text}")]);
    assert_logged(&[&format!("session refused by the peer: {text}")]);
    assert_eq!(Events::of(&limited.far, "", None).await.until("session_refused").await["text"], text);
    shows(near, "ferry_sessions_ended", &[("{side=\"opener\",ending=\"refused\"}", 1)]).await;
    let _other_service = limited.connect(1).await;
    exchange(&mut kept).await;
}

#[tokio::test]
async fn the_limit_of_a_peer_counts_all_its_sessions_and_a_reload_changes_it() {
    let limited = Limited::start("", "", "").await;
    let mut kept = [limited.connect(0).await, limited.connect(1).await];
    let two = ", limits: {sessions: 2, bytes_per_second: 1MiB}";
    limited.reload_far("", two).await;
    let far = limited.far.addresses().admin.unwrap();
    is_reset(&mut TcpStream::connect(limited.app(1)).await.unwrap()).await;
    shows(far, "ferry_connections_refused", &[("{reason=\"peer_limit\"}", 1)]).await;
    assert_logged(&["the limit of 2 sessions of this peer is reached (peers[a/near].limits.sessions)"]);
    let limits = &status(far).await["limits"][0];
    assert_eq!((&limits["scope"], &limits["name"]), (&json!("peer"), &json!("a/near")));
    assert_eq!(limits["sessions"], json!({"used": 2, "limit": 2, "refused": 1}), "those before it count");
    assert_eq!(limits["bytes_per_second"]["limit"], 1 << 20);
    // What is open goes on, also beyond a lower limit.
    limited.reload_far("", ", limits: {sessions: 1}").await;
    for stream in &mut kept {
        exchange(stream).await;
    }
    limited.reload_far("", "").await;
    let _another = limited.connect(1).await;
    assert_eq!(status(far).await.get("limits"), None);
}

#[tokio::test]
async fn the_bytes_of_an_entry_are_shown_beside_their_limit() {
    let limited = Limited::start(", limits: {bytes_per_second: 1GiB}", "", "").await;
    let _kept = limited.connect(0).await;
    let admin = limited.near.addresses().admin.unwrap();
    let metric = "ferry_limit_bytes_per_second_max{scope=\"egress\",name=\"127.0.0.1:0\"} 1073741824";
    says(admin, "/metrics", 200, metric).await;
    let (_, text) = get(admin, "/metrics").await;
    for direction in ["sent", "received"] {
        let labels = format!("{{scope=\"egress\",name=\"127.0.0.1:0\",direction=\"{direction}\"}}");
        assert!(text.contains(&format!("ferry_limit_bytes_per_second{labels} ")), "{text}");
        assert!(text.contains(&format!("ferry_limit_sessions_waiting{labels} 0")), "{text}");
    }
}
