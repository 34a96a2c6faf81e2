//! Whose messages a web-app takes, where the tunnel says which peer a connection comes from.

use std::sync::Arc;

use ferry_app::{PassThrough, Role, SUBPROTOCOL, Webapp};
use futures_util::{SinkExt, StreamExt};
use proxy_header::{ProxyHeader, Tlv};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::pair::*;

/// A far web-app whose connection the tunnel announces as that of `peer`.
struct Far(WebSocketStream<TcpStream>);

impl Far {
    /// Says hello as the sender `somebody`.
    async fn hello(webapp: &Webapp, peer: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(webapp.local_addr()).await.unwrap();
        if let Some(peer) = peer {
            let mut header = Vec::new();
            let name = Tlv::Custom(0xe0, peer.as_bytes().into());
            ProxyHeader::with_tlvs(None, [name]).encode_v2(&mut header).unwrap();
            stream.write_all(&header).await.unwrap();
        }
        let mut request = format!("ws://{}/ws", webapp.local_addr()).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let mut far = Self(client_async(request, stream).await.unwrap().0);
        far.send(&json!({"hello": {"sender": "somebody", "pod": "p", "cluster": "c", "acked": 0}})).await;
        far
    }

    async fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn message(&mut self, seq: u64) {
        let id = format!("somebody-{seq}");
        self.send(&json!({"message": {"seq": seq, "id": id, "payload": {"n": seq}, "trail": []}})).await;
    }

    /// Waits until the messages up to `seq` are acknowledged.
    async fn acked(&mut self, seq: u64) {
        let is_ack = |text: &str| serde_json::from_str::<Value>(text).unwrap()["ack"]["seq"] == json!(seq);
        self.next("the ack", |message| matches!(message, Message::Text(text) if is_ack(text))).await;
    }

    /// Waits until it is sent away, and returns the reason.
    async fn sent_away(mut self) -> String {
        let close = self.next("a close", Message::is_close).await;
        let Message::Close(Some(close)) = close else { panic!("{close:?}") };
        assert_eq!(u16::from(close.code), 1002);
        close.reason.to_string()
    }

    /// The next message that is wanted; pings and the like are passed over.
    async fn next(&mut self, what: &str, is_wanted: impl Fn(&Message) -> bool) -> Message {
        let wanted = async {
            loop {
                let message = self.0.next().await.unwrap().unwrap();
                if is_wanted(&message) {
                    return message;
                }
            }
        };
        timeout(TEST_TIMEOUT, wanted).await.unwrap_or_else(|_| panic!("{what}: not within {TEST_TIMEOUT:?}"))
    }
}

#[tokio::test]
async fn nobody_but_its_peer_speaks_as_a_sender_also_after_a_restart() {
    let config = config(Role::Terminator);
    let start = || Webapp::start(config.clone(), Arc::new(PassThrough)).unwrap();
    let mut terminator = start();
    let mut east = Far::hello(&terminator, Some("cluster-a/east")).await;
    east.message(1).await;
    east.acked(1).await;
    for _ in 0..2 {
        let reason = Far::hello(&terminator, Some("cluster-a/west")).await.sent_away().await;
        assert!(reason.contains("belongs to another peer than cluster-a/west"), "{reason}");
        let reason = Far::hello(&terminator, None).await.sent_away().await;
        assert!(reason.contains("the tunnel names no peer"), "{reason}");
        terminator.drain(TEST_TIMEOUT).await;
        terminator = start();
    }
    let mut east = Far::hello(&terminator, Some("cluster-a/east")).await;
    east.message(2).await;
    east.acked(2).await;
    assert_eq!(numbers(&results(&terminator, 2).await), [1, 2]);
}

#[tokio::test]
async fn a_sender_without_a_peer_becomes_that_of_the_first_that_is_told() {
    let terminator = terminator();
    let mut far = Far::hello(&terminator, None).await;
    far.message(1).await;
    far.acked(1).await;
    let mut far = Far::hello(&terminator, Some("cluster-a/east")).await;
    far.message(2).await;
    far.acked(2).await;
    let reason = Far::hello(&terminator, None).await.sent_away().await;
    assert!(reason.contains("set proxy_protocol: v2 there"), "{reason}");
}
