use http::HeaderValue;

use super::*;

const LOCAL: &str = "10.1.2.3";

fn judge(hosts: &Hosts, uri: &str, headers: &[(&'static str, &str)]) -> Result<(), HostError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    hosts.check(&uri.parse().unwrap(), &map, LOCAL.parse().unwrap())
}

fn with_host(host: &str) -> bool {
    let hosts = Hosts::new(["ferry.example.com", "192.0.2.7", "2001:db8::7"]).unwrap();
    judge(&hosts, "/output", &[("host", host)]).is_ok()
}

#[test]
fn an_endpoint_answers_to_loopback_its_own_address_and_listed_names() {
    for host in [
        "localhost",
        "LocalHost:8000",
        "localhost.:8000",
        "app.localhost",
        "127.0.0.1:8000",
        "127.9.9.9",
        "[::1]:8000",
        "[::1]",
        "[::ffff:127.0.0.1]:1",
        "10.1.2.3:8000",
        "[::ffff:10.1.2.3]",
        "ferry.example.com",
        "Ferry.Example.Com.:8000",
        "192.0.2.7:1",
        "[2001:db8::7]:1",
    ] {
        assert!(with_host(host), "{host}");
    }
}

#[test]
fn a_page_that_rebinds_its_name_is_not_answered_to() {
    for host in [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "notlocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:8000",
        "10.1.2.4:8000",
        "0.0.0.0:8000",
        "[::]:8000",
        "2130706433",
        "127.1",
        "0x7f.1",
        "localhost:port",
        "localhost:8000:1",
        "localhost:99999",
        "localhost@evil.example",
        "evil.example/localhost",
        "[localhost]",
        "[127.0.0.1]",
        "ferry.example.com.evil.example",
        "xferry.example.com",
    ] {
        assert!(!with_host(host), "{host}");
    }
}

#[test]
fn every_host_that_a_request_names_has_to_be_one() {
    let hosts = Hosts::default();
    assert!(judge(&hosts, "/output", &[("host", "localhost"), ("host", "evil.example")]).is_err());
    assert!(judge(&hosts, "/output", &[("host", "evil.example"), ("host", "localhost")]).is_err());
    assert!(judge(&hosts, "http://evil.example/output", &[("host", "localhost")]).is_err());
    assert!(judge(&hosts, "http://localhost/output", &[("host", "localhost")]).is_ok());
    // HTTP/1.0; no browser.
    assert!(judge(&hosts, "/output", &[]).is_ok());
}

#[test]
fn a_page_from_another_origin_is_refused_whatever_it_asks_for() {
    let from = |host: &str, origin: &str| judge(&Hosts::default(), "/", &[("host", host), ("origin", origin)]);
    assert!(from("localhost:8000", "http://localhost:8000").is_ok());
    assert!(from("127.0.0.1", "https://127.0.0.1").is_ok());
    for origin in ["http://evil.example", "http://localhost", "http://localhost:8001", "null", "", "localhost:8000"] {
        let refused = from("localhost:8000", origin).unwrap_err();
        assert_eq!(refused, HostError::Origin(format!("{origin:?}")));
    }
    assert!(judge(&Hosts::default(), "/", &[("origin", "http://localhost")]).is_err());
}

#[test]
fn what_an_error_quotes_is_escaped_and_short() {
    let long = "x".repeat(10_000);
    let refused = judge(&Hosts::default(), "/", &[("host", &long)]).unwrap_err().to_string();
    assert!(refused.len() < 200, "{refused}");
    assert_eq!(quoted(b"a\x1b[1m\n"), "\"a\\u{1b}[1m\\n\"");
}

#[test]
fn listed_names_have_no_port() {
    for wrong in ["", "ferry.example.com:80", "http://ferry.example.com", "*", "a b"] {
        assert!(Hosts::new([wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn a_proxy_gives_itself_away() {
    let mut headers = HeaderMap::new();
    assert_eq!(forwarded_by(&headers), None);
    headers.insert("X-Forwarded-For", HeaderValue::from_static("192.0.2.1"));
    assert_eq!(forwarded_by(&headers), Some("x-forwarded-for"));
    for name in [
        "x-forwarded-client-cert",
        "x-forwarded-prefix",
        "cf-connecting-ip",
        "true-client-ip",
        "x-client-ip",
        "x-envoy-peer-metadata",
    ] {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("192.0.2.1"))]);
        assert_eq!(forwarded_by(&headers), Some(name));
    }
}
