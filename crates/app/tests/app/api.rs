//! The description of the HTTP API, held to what a web-app does.

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use ferry_app::{Access, Config, Role, Token, Webapp};

use crate::hooks::{Obedient, Picky};
use crate::pair::*;

const PAGE: &str = include_str!("../../../../docs/http-api.md");

/// What another test has for its subject.
const SEEN_ELSEWHERE: [(&str, &str); 10] = [
    ("POST /trigger 408", "a_client_that_never_finishes_its_body_is_told_so"),
    ("POST /trigger 503", "a_full_disk_is_told_loses_nothing_accepted_and_passes_again_and_again"),
    ("POST /trigger 207", "a_trigger_for_several_sites_tells_which_of_them_could_not_take_it"),
    ("DELETE /sites/{name} 200", "a_site_that_is_withdrawn_while_it_sends_can_be_forgotten_with_what_waits_for_it"),
    ("DELETE /sites/{name} 409", "a_site_that_is_withdrawn_while_it_sends_can_be_forgotten_with_what_waits_for_it"),
    ("GET /readyz 503", "a_full_disk_is_told_loses_nothing_accepted_and_passes_again_and_again"),
    ("GET /stream 101", "a_page_from_another_origin_is_refused"),
    ("POST /dead/{id}/retry 409", "a_dead_message_is_retried_by_one_at_a_time_and_delivered_once"),
    ("POST /dead/{id}/retry 500", "a_message_that_cannot_be_taken_is_dead_and_those_behind_it_arrive"),
    ("POST /dead/{id}/retry 200", "a_message_that_cannot_be_taken_is_dead_and_those_behind_it_arrive"),
];

async fn ask(webapp: &Webapp, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let mut request = reqwest::Client::new().request(method.parse::<Method>().unwrap(), url(webapp, path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned()).send().await.unwrap().status().as_u16()
}

/// Every answer that the description has, as `POST /trigger 202`.
fn described(spec: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (path, operations) in spec["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                all.insert(format!("{} {path} {status}", method.to_uppercase()));
            }
        }
    }
    all
}

#[tokio::test]
async fn every_route_and_status_of_the_description_exists_and_the_page_has_the_same() {
    let terminator = terminator_with(Arc::new(Picky { dislikes: 2, ..Picky::default() }));
    let initiator = initiator_with(terminator.local_addr(), Arc::new(Obedient));
    let access = Access { token: Some(Token::new("0123456789abcdef").unwrap()), ..Access::default() };
    let guarded = Config { access, ..config(Role::Terminator) };
    let guarded = Webapp::start(guarded, Arc::new(Obedient)).unwrap();
    let (_, spec) = get(&initiator, "/openapi.json").await;
    let described = described(&spec);

    let paged: BTreeSet<String> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(request, _)| request.contains(" /"))
        .flat_map(|(request, rest)| {
            let statuses = rest.rsplit(" | ").next().unwrap().trim_end_matches(" |").split(' ');
            statuses.map(|status| format!("{request} {status}")).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(described, paged);

    let json = [("content-type", "application/json")];
    let keyed = [json[0], ("idempotency-key", "k")];
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let foreign = [json[0], ("origin", "https://evil.example")];
    let mut seen = BTreeSet::new();
    for (method, route, query, headers, body) in [
        ("POST", "/trigger", "", &json[..], "{\"n\":0}"),
        ("POST", "/trigger", "?wait=60s", &json, "{\"n\":1}"),
        ("POST", "/trigger", "?wait=60s", &json, "{\"n\":2}"),
        ("POST", "/trigger", "", &json, "[]"),
        ("POST", "/trigger", "?to=east", &json, "{}"),
        ("POST", "/trigger", "", &json, "{\"do\":\"deny\"}"),
        ("POST", "/trigger", "", &json, &large),
        ("POST", "/trigger", "", &[], "{}"),
        ("POST", "/trigger", "", &keyed, "{}"),
        ("POST", "/trigger", "", &keyed, "{\"n\":9}"),
        ("POST", "/trigger", "", &json, "{\"do\":\"fail\"}"),
        ("GET", "/output", "", &[], ""),
        ("GET", "/output", "?limit=0", &[], ""),
        ("GET", "/output", "?after=x", &[], ""),
        ("GET", "/dead", "", &[], ""),
        ("GET", "/dead", "?limit=0", &[], ""),
        ("GET", "/dead", "?after=x", &[], ""),
        ("POST", "/dead/{id}/retry", "", &[], ""),
        ("GET", "/stream", "", &[], ""),
        ("GET", "/status", "", &[], ""),
        ("DELETE", "/sites/{name}", "", &[], ""),
        ("GET", "/", "", &[], ""),
        ("GET", "/openapi.json", "", &[], ""),
        ("GET", "/livez", "", &[], ""),
        ("GET", "/readyz", "", &[], ""),
        ("GET", "/metrics", "", &[], ""),
    ] {
        let path = format!("{route}{query}");
        seen.insert(format!("{method} {route} {}", ask(&initiator, method, &path, headers, body).await));
        seen.insert(format!("{method} {route} {}", ask(&initiator, method, &path, &foreign, body).await));
        let status = ask(&guarded, method, &path, headers, body).await;
        if status == 401 {
            seen.insert(format!("{method} {route} {status}"));
        }
    }
    for (answer, test) in SEEN_ELSEWHERE {
        assert!(!seen.contains(answer), "{answer} is seen here, and {test} need not be named");
        seen.insert(answer.into());
    }
    assert_eq!(seen, described);
    assert_eq!(ask(&initiator, "GET", "/nothing", &[], "").await, 404);
    assert_eq!(ask(&initiator, "GET", "/trigger", &[], "").await, 405);
    assert_eq!(spec["components"]["schemas"]["Hop"]["required"], json!(["pod", "cluster", "at"]));
}
