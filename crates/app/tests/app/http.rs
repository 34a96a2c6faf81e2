//! What local clients see over HTTP.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hooks::Obedient;
use crate::pair::*;

/// An initiator without a far side: enough for what happens before delivery.
async fn alone() -> ferry_app::Webapp {
    initiator_with(nobody(), Arc::new(Obedient))
}

async fn post(webapp: &ferry_app::Webapp, content_type: Option<&str>, body: Vec<u8>) -> (u16, Value) {
    let mut request = reqwest::Client::new().post(url(webapp, "/trigger"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    answer(request.body(body).send().await.unwrap()).await
}

#[track_caller]
fn assert_error((status, body): &(u16, Value), expected: u16, says: &str) {
    assert_eq!(*status, expected, "{body}");
    let error = body["error"].as_str().unwrap();
    assert!(error.contains(says), "{error:?} does not say {says:?}");
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
}

#[tokio::test]
async fn the_page_runs_only_what_it_brings_along_and_is_shown_in_no_other() {
    let webapp = alone().await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let response = reqwest::get(url(&webapp, "/")).await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let body = response.text().await.unwrap();
        let nonce = body.split("<script nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!(body.matches("<script").count(), 1, "one script, with the nonce");
        assert!(body.contains(&format!("<style nonce=\"{nonce}\">")));
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", &format!("script-src 'nonce-{nonce}'"), "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{part} in {policy}");
        }
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(header(name), value);
        }
        let own = body.replace("http://www.w3.org/2000/svg", "");
        for from_elsewhere in ["http://", "https://", "//cdn", "innerHTML", "insertAdjacentHTML", "eval("] {
            assert!(!own.contains(from_elsewhere), "{from_elsewhere} in the page");
        }
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
    let rebound = reqwest::Client::new().get(url(&webapp, "/")).header("host", "rebound.example.com");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_bad_trigger_is_refused_with_what_is_wrong_and_nothing_is_sent() {
    let webapp = alone().await;
    const JSON: Option<&str> = Some("application/json");
    for (body, says) in [
        ("", "nothing"),
        ("hello", "not JSON"),
        ("{\"n\": 1", "not JSON"),
        ("{\"n\": 1} x", "not JSON"),
        ("[1]", "an array"),
        ("null", "null"),
        ("7", "a number"),
    ] {
        assert_error(&post(&webapp, JSON, body.into()).await, 400, says);
    }
    assert_error(&post(&webapp, JSON, b"{\"a\": \"\xff\"}".to_vec()).await, 400, "not JSON");
    assert_error(&post(&webapp, JSON, "[".repeat(100_000).into_bytes()).await, 400, "not JSON");
    let wide = format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20)).into_bytes();
    assert_error(&post(&webapp, JSON, wide).await, 413, "at most 1048576 bytes");
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("")] {
        assert_error(&post(&webapp, content_type, b"{}".to_vec()).await, 415, "content-type: application/json");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let response = reqwest::Client::new().request(method, url(&webapp, "/trigger")).send().await.unwrap();
        assert_eq!(response.headers()["allow"], "POST");
        assert_error(&answer(response).await, 405, "POST");
    }
    let response = reqwest::Client::new().post(url(&webapp, "/output")).send().await.unwrap();
    assert_error(&answer(response).await, 405, "GET");
    assert_error(&get(&webapp, "/nowhere").await, 404, "/trigger");
    for wait in ["5x", "forever", "-1s", "10m", ""] {
        assert_error(&trigger(&webapp, &format!("?wait={wait}"), &json!({})).await, 400, "500ms or 5s");
    }
    assert_eq!(metric(&webapp, "ferry_app_outbox_messages").await, 0.0);
}

#[tokio::test]
async fn a_client_that_sends_far_too_much_before_it_reads_still_gets_the_answer() {
    let webapp = alone().await;
    let mut socket = TcpStream::connect(webapp.local_addr()).await.unwrap();
    let length = 12 << 20;
    let head =
        format!("POST /trigger HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&vec![b'x'; length]).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_trigger_of_exactly_the_largest_size_is_taken_and_delivered() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let payload = json!({"a": "x".repeat((1 << 20) - "{\"a\":\"\"}".len())});
    let (status, body) = trigger(&initiator, "?wait=60s", &payload).await;
    assert_eq!((status, &body["delivered"]), (200, &json!(true)), "{body}");
    assert_eq!(results(&terminator, 1).await[0]["payload"], payload);
}

#[tokio::test]
async fn json_is_recognised_with_parameters_and_suffix() {
    let webapp = alone().await;
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/cloudevents+json"] {
        assert_eq!(post(&webapp, Some(content_type), b"{}".to_vec()).await.0, 202, "{content_type}");
    }
}

#[tokio::test]
async fn a_hook_decides_the_answer_and_sees_the_headers() {
    let terminator = terminator();
    let initiator = initiator_with(terminator.local_addr(), Arc::new(Obedient));
    assert_error(&trigger(&initiator, "", &json!({"do": "invalid"})).await, 400, "no such sensor");
    assert_error(&trigger(&initiator, "", &json!({"do": "deny"})).await, 403, "not yours");
    assert_error(&trigger(&initiator, "", &json!({"do": "fail"})).await, 500, "on fire");
    assert_error(&trigger(&initiator, "", &json!({"do": "panic"})).await, 500, "panicked");
    assert_error(&trigger(&initiator, "", &json!({"do": "grow"})).await, 413, "as JSON");
    let request = reqwest::Client::new().post(url(&initiator, "/trigger")).header("X-Tag", "blue").json(&json!({}));
    assert_eq!(answer(request.send().await.unwrap()).await.0, 202);
    assert_eq!(results(&terminator, 1).await[0]["payload"]["tag"], "blue");
    for (result, count) in [("invalid", 1.0), ("denied", 1.0), ("failed", 2.0), ("too_large", 1.0), ("accepted", 1.0)] {
        let name = format!("ferry_app_trigger_requests_total{{result=\"{result}\"}}");
        assert_eq!(metric(&initiator, &name).await, count, "{result}");
    }
}

#[tokio::test]
async fn waiting_tells_delivered_or_that_the_time_is_up() {
    let webapp = alone().await;
    let (status, body) = trigger(&webapp, "?wait=10ms", &json!({})).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(body, json!({"id": body["id"]}));

    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    let (status, body) = trigger(&initiator, "?wait=60s", &json!({})).await;
    assert_eq!((status, &body), (200, &json!({"id": body["id"], "delivered": true, "reply": null})));
    assert_eq!(results(&terminator, 1).await[0]["id"], body["id"]);
}

#[tokio::test]
async fn a_full_outbox_says_when_to_try_again_and_keeps_what_it_has() {
    let webapp = alone().await;
    let payload = json!({"a": "x".repeat(1_000_000)});
    let mut accepted = 0;
    let refused = loop {
        let response = reqwest::Client::new().post(url(&webapp, "/trigger")).json(&payload).send().await.unwrap();
        if response.status() != 202 {
            break response;
        }
        accepted += 1;
    };
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_error(&answer(refused).await, 503, "outbox is full");
    assert_eq!(accepted, (64 << 20) / 1_000_100, "64 MiB of payload");
    assert_eq!(metric(&webapp, "ferry_app_outbox_messages").await, f64::from(accepted));
}

#[tokio::test]
async fn the_output_is_paged_by_the_last_id_seen() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    assert_eq!(get(&terminator, "/output").await, (200, json!({"count": 0, "results": []})));
    let mut stream = StreamClient::connect(&initiator).await;
    for n in 1..=1200 {
        stream.send(&json!({"n": n})).await;
    }
    results(&terminator, 1200).await;

    let page = get(&terminator, "/output").await.1;
    assert_eq!(page["count"], 1200);
    let first = page["results"].as_array().unwrap();
    assert_eq!(numbers(first), (1..=100).collect::<Vec<_>>());
    let keys: Vec<_> = first[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "payload", "trail"]);

    let after = first[99]["id"].as_str().unwrap();
    let page = get(&terminator, &format!("/output?after={after}&limit=1000")).await.1;
    assert_eq!(numbers(page["results"].as_array().unwrap()), (101..=1100).collect::<Vec<_>>());
    let after = page["results"][999]["id"].as_str().unwrap();
    let page = get(&terminator, &format!("/output?limit=1000&after={after}")).await.1;
    let rest = page["results"].as_array().unwrap();
    assert_eq!(numbers(rest), (1101..=1200).collect::<Vec<_>>());
    let end = get(&terminator, &format!("/output?after={}", rest[99]["id"].as_str().unwrap())).await;
    assert_eq!(end, (200, json!({"count": 1200, "results": []})));

    for limit in ["0", "1001", "-1", "ten", "", "1e2"] {
        assert_error(&get(&terminator, &format!("/output?limit={limit}")).await, 400, "from 1 to 1000");
    }
    for after in ["unknown-1", "", "%20", "%00"] {
        assert_error(&get(&terminator, &format!("/output?after={after}")).await, 410, "without `after`");
    }
}

#[tokio::test]
async fn probes_are_local() {
    let webapp = alone().await;
    assert_eq!(get_text(&webapp, "/livez").await, (200, "ok\n".into()));
    assert_eq!(get_text(&webapp, "/readyz").await, (200, "ok\n".into()));
}

#[tokio::test]
async fn every_metric_is_there_with_its_help() {
    let terminator = terminator();
    let initiator = initiator(terminator.local_addr());
    trigger(&initiator, "?wait=60s", &json!({})).await;
    let response = reqwest::get(url(&initiator, "/metrics")).await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    let docs = include_str!("../../../../docs/messages.md");
    for (name, kind) in [
        ("ferry_app_trigger_requests", "counter"),
        ("ferry_app_hook_failures", "counter"),
        ("ferry_app_sent_messages", "counter"),
        ("ferry_app_resent_messages", "counter"),
        ("ferry_app_delivered_messages", "counter"),
        ("ferry_app_refused_messages", "counter"),
        ("ferry_app_received_messages", "counter"),
        ("ferry_app_dead_messages", "counter"),
        ("ferry_app_duplicate_messages", "counter"),
        ("ferry_app_dropped_results", "counter"),
        ("ferry_app_far_connects", "counter"),
        ("ferry_app_turned_away_connections", "counter"),
        ("ferry_app_far_websockets", "gauge"),
        ("ferry_app_stream_websockets", "gauge"),
        ("ferry_app_outbox_messages", "gauge"),
        ("ferry_app_outbox_bytes", "gauge"),
        ("ferry_app_output_messages", "gauge"),
        ("ferry_app_delivery_seconds", "histogram"),
        ("ferry_log_lines_lost", "counter"),
    ] {
        assert!(text.contains(&format!("# HELP {name} ")), "no help for {name} in {text}");
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        assert!(docs.contains(&format!("`{name}{suffix}`")), "{name} is not in docs/messages.md");
    }
    assert_eq!(text.matches("# TYPE ").count(), 19, "a metric that this test does not know");
    for (name, value) in [
        ("ferry_app_trigger_requests_total{result=\"accepted\"}", 1.0),
        ("ferry_app_sent_messages_total", 1.0),
        ("ferry_app_delivered_messages_total", 1.0),
        ("ferry_app_delivery_seconds_count", 1.0),
        ("ferry_app_far_connects_total", 1.0),
        ("ferry_app_far_websockets", 1.0),
        ("ferry_app_outbox_messages", 0.0),
    ] {
        assert_eq!(metric(&initiator, name).await, value, "{name}");
    }
    assert_eq!(metric(&terminator, "ferry_app_received_messages_total").await, 1.0);
    assert_eq!(metric(&terminator, "ferry_app_output_messages").await, 1.0);
}
