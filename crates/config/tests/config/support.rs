//! Keys, and documents to start from.

use std::path::Path;

use ferry_config::{Parsed, Problem, Report, parse};

/// Public keys whose private halves nobody has: they were made and thrown away.
pub(crate) const KEY_1: &str = "ferry:pub:jEZsmkMJ4fsRLsS8wozqvAEQwjOZtjlTuPj7j4vN-bQ";
pub(crate) const KEY_2: &str = "ferry:pub:UFE5jHm8gs-poqsjdNbHspGissW551JduKtMUbNZQtw";
pub(crate) const KEY_3: &str = "ferry:pub:7cHXEBVLBAPmamiuELh8WDYcElFvEEqN9Z4WF3sCV1E";

/// A document in which everything fits together; the parts are what tests replace.
pub(crate) fn fine() -> String {
    format!(
        "\
name: us
identity: identity.key
admin: 127.0.0.1:9900
listen: 0.0.0.0:18000
peers:
  - name: east
    keys: [\"{KEY_1}\"]
    addresses: [\"east.example.com:30200\"]
  - name: west
    keys: [\"{KEY_2}\"]
egress:
  - {{listen: \"127.0.0.1:18001\", peer: east, service: orders}}
  - {{listen: \"127.0.0.1:18002\", peer: west, service: orders}}
ingress:
  - {{service: web, forward: \"127.0.0.1:8000\", allow: [east, west]}}
  - {{service: db, forward: \"[::1]:5432\", allow: [east]}}
"
    )
}

/// [`fine`] with one part replaced.
pub(crate) fn with(from: &str, to: &str) -> String {
    let text = fine();
    assert!(text.contains(from), "no {from:?} in the document");
    text.replacen(from, to, 1)
}

pub(crate) fn accepted(text: &str) -> Parsed {
    parse(text, Path::new("/etc/ferry")).unwrap_or_else(|report| panic!("{report}\n{text}"))
}

pub(crate) fn refused(text: &str) -> Report {
    match parse(text, Path::new("/etc/ferry")) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report,
    }
}

/// The only problem of a document.
pub(crate) fn problem(text: &str) -> Problem {
    let report = refused(text);
    assert_eq!(report.problems().len(), 1, "{report}\n{text}");
    report.problems()[0].clone()
}

/// A PEM block.
pub(crate) fn pem(label: &str, base64: &str) -> String {
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}
