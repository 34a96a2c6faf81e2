//! Links through HTTP: proxies and load balancers as they are, played by the test.

use std::net::SocketAddr;

use ferry_relay::Cut;
use ferry_tunnel::Tunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pair::{Site, echo, far_config, get, near_config, status};
use crate::survive::Checked;
use crate::watch::{PATIENCE, failures};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_websockets_lose_no_byte_in_cuts_and_rotations() {
    let checked = Checked::start_over_websockets("rotation: {max_per_second: 1000}\n").await;
    let mut epoch = checked.reaches(1).await;
    for round in 0..10 {
        checked.moves(200_000).await;
        checked.near.rotate_all();
        epoch = checked.reaches(epoch + 1).await;
        checked.moves(20_000).await;
        checked.relay.cut(if round % 2 == 0 { Cut::Rst } else { Cut::Fin });
        epoch = checked.reaches(epoch + 1).await;
    }
    assert_eq!(checked.session().await["carrier"], "websocket");
    checked.finish().await;
}

/// Reads a request's head, and says it.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An HTTP proxy that wants these credentials, if any, and connects to `to` whatever it is asked for.
async fn proxy(to: SocketAddr, credentials: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                assert!(
                    head.starts_with("CONNECT b.example.com:443 HTTP/1.1\r\nHost: b.example.com:443\r\n"),
                    "{head}"
                );
                if credentials.is_some_and(|wanted| !head.contains(&format!("Basic {wanted}\r\n"))) {
                    let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                    return stream.write_all(answer).await.unwrap();
                }
                let mut to = TcpStream::connect(to).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut to).await;
            });
        }
    });
    address
}

/// A near tunnel whose peer has these keys besides its own.
async fn near(site: &Site, far: &Site, keys: &str) -> Tunnel {
    let peer = format!("name: {}, keys: [\"{}\"], {keys}", far.name, far.key);
    let egress = format!("egress: [{{listen: \"127.0.0.1:0\", peer: {}, service: echo}}]\n", far.name);
    site.start(&format!("peers: [{{{peer}}}]\n{egress}")).await
}

async fn echoes(tunnel: &Tunnel) {
    let mut app = TcpStream::connect(tunnel.addresses().egress[0]).await.unwrap();
    app.write_all(b"through").await.unwrap();
    let mut answer = [0; 7];
    app.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"through");
}

#[tokio::test]
async fn a_proxy_resolves_the_peers_name_and_gets_the_credentials_from_a_file() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "")).await;
    // "me:secret"
    let proxy = proxy(far.addresses().listen.unwrap(), Some("bWU6c2VjcmV0")).await;
    std::fs::write(near_site.path().join("proxy"), "me:secret\n").unwrap();
    let keys = format!("addresses: [\"b.example.com:443\"], proxy: \"http://{proxy}\", proxy_credentials: proxy");
    echoes(&near(&near_site, &far_site, &keys).await).await;
}

#[tokio::test]
async fn a_websocket_goes_through_a_proxy() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "listen_ws: 127.0.0.1:0\nws_path: /a/b\n")).await;
    let proxy = proxy(far.addresses().listen_ws.unwrap(), None).await;
    let keys = format!("addresses: [\"ws://b.example.com:443/a/b\"], proxy: \"http://{proxy}\"");
    echoes(&near(&near_site, &far_site, &keys).await).await;
}

#[tokio::test]
async fn an_address_that_is_blocked_is_left_for_the_next_kind() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "listen_ws: 127.0.0.1:0\n")).await;
    // Accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent, ws) = (silent.local_addr().unwrap(), far.addresses().listen_ws.unwrap());
    let keys = format!("addresses: [\"ws://{silent}\", \"ws://{ws}\"]");
    echoes(&near(&near_site, &far_site, &keys).await).await;
}

/// What `/status` says of the peer, of which everything that connects to it gets `answer`.
async fn problem(answer: &'static [u8], keys: impl Fn(SocketAddr) -> String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                head(&mut stream).await;
                stream.write_all(answer).await.unwrap();
                let _ = stream.read(&mut [0; 16]).await;
            });
        }
    });
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let tunnel = near(&near_site, &far_site, &keys(address)).await;
    let said = async {
        loop {
            if let Some(problem) = status(tunnel.addresses().admin.unwrap()).await["peers"][0]["problem"].as_str() {
                return problem.to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, said).await.unwrap()
}

#[tokio::test]
async fn each_refusal_of_a_proxy_says_what_to_do() {
    let cases: [(&[u8], &str); 7] = [
        (b"HTTP/1.1 407 Auth\r\n\r\n", "asks for credentials (407): write `user:password` into a file"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "does not allow connections to b.example.com:443 (403)"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach b.example.com:443 (502)"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>log in</html>", "is it an HTTP proxy?"),
        (b"HTTP/1.1 405 Not Allowed\r\n\r\n", "answered 405 to a CONNECT for b.example.com:443: is it an HTTP proxy?"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak HTTP/1.1"),
    ];
    for (answer, said) in cases {
        let keys = |proxy| format!("addresses: [\"b.example.com:443\"], proxy: \"http://{proxy}\"");
        let problem = problem(answer, keys).await;
        assert!(problem.contains("the proxy 127.0.0.1:") && problem.contains(said), "{problem}");
    }
}

#[tokio::test]
async fn each_refusal_of_a_websocket_says_what_to_do() {
    let cases: [(&[u8], &str); 7] = [
        (
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            "answered 200 and no WebSocket: does what is in front of the tunnel pass Upgrade on?",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://x/\r\n\r\n",
            "redirects (301): write the address that it redirects to",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "compare it with `ws_path` of the peer"),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", "has no tunnel behind it (503)"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "asks for a login (401)"),
        (b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: AAAA\r\n\r\n", "wrong Sec-WebSocket-Accept"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "does not speak HTTP/1.1"),
    ];
    for (answer, said) in cases {
        let problem = problem(answer, |endpoint| format!("addresses: [\"ws://{endpoint}/x\"]")).await;
        assert!(problem.contains("ws://127.0.0.1:") && problem.contains(said), "{problem}");
    }
}

#[tokio::test]
async fn a_load_balancer_is_answered_and_whoever_asks_for_no_websocket_is_told() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "listen_ws: 127.0.0.1:0\n")).await;
    let address = far.addresses().listen_ws.unwrap();
    assert_eq!(get(address, "/healthz").await.0, 200);
    assert_eq!(get(address, "/other").await.0, 404);
    assert_eq!(get(address, "/ferry").await.0, 426);
    failures(far.addresses().admin.unwrap(), &[]).await;
    let near = near_site.start(&near_config(&far_site, format!("ws://{address}"), "")).await;
    echoes(&near).await;
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "listen_ws: 127.0.0.1:0\n")).await;
    let mut stream = TcpStream::connect(far.addresses().listen_ws.unwrap()).await.unwrap();
    stream.write_all(b"GET /ferry HTTP/1.1\r\n").await.unwrap();
    let endless = async { while stream.write_all(&[b'x'; 1024]).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, endless).await.unwrap();
    failures(far.addresses().admin.unwrap(), &[("listener", "carrier", 1)]).await;
}

/// A WebSocket to a tunnel, on which `frames` are sent instead of a link.
async fn websocket_with(frames: &[u8]) {
    let (near_site, far_site) = (Site::new("a/near"), Site::new("b/far"));
    let far = far_site.start(&far_config(&near_site, echo().await, "listen_ws: 127.0.0.1:0\n")).await;
    let mut stream = TcpStream::connect(far.addresses().listen_ws.unwrap()).await.unwrap();
    let request = "GET /ferry HTTP/1.1\r\nHost: b\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    stream.write_all(frames).await.unwrap();
    let ended = async { while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    failures(far.addresses().admin.unwrap(), &[("listener", "carrier", 1)]).await;
}

#[tokio::test]
async fn frames_that_no_websocket_has_end_the_connection() {
    let long_ping = [&b"\x89\xfe\0\x7e\0\0\0\0"[..], &[0; 126]].concat();
    for frames in [
        // Not masked; reserved bits; a text message; of 2^63 bytes; a ping of 126 bytes.
        &b"\x82\x01x"[..],
        b"\xf2\x81\0\0\0\0x",
        b"\x81\x81\0\0\0\0x",
        b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0",
        &long_ping,
    ] {
        println!("{frames:x?}");
        websocket_with(frames).await;
    }
}
