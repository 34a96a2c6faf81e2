//! What is refused, where it is said to be, and what there is to do about it.

use crate::support::{KEY_1, KEY_2, fine, problem, refused, with};

/// Replaces `from` in a document that is fine, and expects one problem at `path` that says `message` and `hint`.
#[track_caller]
pub(crate) fn mistake(from: &str, to: &str, path: &str, message: &str, hint: &str) {
    let text = with(from, to);
    let problem = problem(&text);
    assert_eq!(problem.path, path, "{problem}");
    assert!(problem.message.contains(message), "{problem}");
    assert!(problem.hint.contains(hint), "{problem}");
    let line = problem.line.expect("a problem in a value has a line");
    assert!((1..=text.lines().count() as u64).contains(&line));
}

/// The same with a line put at the end.
#[track_caller]
pub(crate) fn added(line: &str, path: &str, message: &str, hint: &str) {
    let last = "allow: [east]}\n";
    mistake(last, &format!("{last}{line}\n"), path, message, hint);
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = fine()
        .replace("listen: 0.0.0.0", "lissten: 0.0.0.0")
        .replace("name: west", "name: West")
        .replace("peer: west", "peer: north")
        .replace(KEY_2, KEY_1)
        .replace("allow: [east, west]", "allow: [east]")
        + "liveness: soon\n";
    let report = refused(&text);
    let expected = "\
tunnel.yaml: lissten: unknown key; did you mean `listen`?
tunnel.yaml: peers[1].name: `West` is not a name; use lower-case letters, digits, `.`, `/` and `-`, starting with a \
letter or digit
tunnel.yaml: peers[1].keys[0]: the key of both peer `east` and `peers[1]`; a key tells peers apart, so each needs its \
own
tunnel.yaml: egress[1].peer: `north` is not a listed peer; list it under `peers`, where there is east
tunnel.yaml: liveness: `soon` is not a duration; write a number with a unit, such as `500ms`, `30s`, `10m` or \
`1h30m`; without a unit it is seconds";
    assert_eq!(report.to_string(), expected);
    let places: Vec<_> = report.problems().iter().map(|p| (p.line.unwrap(), p.column.unwrap())).collect();
    assert_eq!(places, [(4, 10), (9, 11), (10, 12), (13, 39), (17, 11)]);
}

#[test]
fn broken_yaml_is_one_problem_with_its_place() {
    let report = refused("name: us\nlisten: [\n");
    assert_eq!(report.to_string(), "tunnel.yaml: line 2, column 9: unclosed bracket '['");
    for text in ["name: us\n---\nname: us\n", "name: us\nidentity: *key\n", "? [a]\n: b\n", "name: !x y\n"] {
        let problem = problem(text);
        assert!(problem.line.is_some() && problem.path.is_empty(), "{problem}");
    }
}

#[test]
fn a_document_that_grows_when_read_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 8].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    assert!(problem(&text).message.contains("too large or too complex"));
    // Far from a bomb, but still more than any list of keys and addresses comes to.
    let aliases = vec!["*a"; 90].join(", ");
    let text = format!("a: &a [{}]\nb: [{aliases}]\n", vec!["x"; 150].join(", "));
    assert!(problem(&text).message.contains("too large or too complex"));
    let nested = format!("drain: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(problem(&nested).message.contains("too large or too complex"));
}

#[test]
fn what_yaml_says_about_a_text_stays_one_line() {
    let problem = problem("name: !%1b%0a x\n");
    assert!(problem.message.contains("unsupported tag"), "{problem}");
    assert!(!problem.message.contains(char::is_control), "{problem:?}");
}

#[test]
fn text_over_1_mib_is_refused() {
    let text = fine() + "#" + &" ".repeat(1 << 20);
    assert!(problem(&text).message.contains("larger than 1MiB"));
}

#[test]
fn a_flood_of_problems_is_cut() {
    let text: String = (0..5_000).map(|i| format!("k{i}: 1\n")).collect();
    let report = refused(&text);
    assert_eq!(report.problems().len(), 201);
    assert!(report.to_string().ends_with("tunnel.yaml: 4802 more problems"));
}

#[test]
fn something_else_than_a_mapping_is_refused() {
    for text in ["", "# only a comment\n", "text", "[name]", "12"] {
        assert!(problem(text).message.starts_with("expected a mapping"), "{text}");
    }
}

#[test]
fn what_is_required_must_be_there() {
    mistake("name: us\n", "", "name", "missing", "name this tunnel");
    mistake("identity: identity.key\n", "", "identity", "missing", "ferry keygen --out");
    mistake("identity: identity.key", "identity: ''", "identity", "empty path", "");
    mistake(&format!("    keys: [\"{KEY_1}\"]\n"), "", "peers[0].keys", "missing", "ferry:pub:");
    mistake(&format!("[\"{KEY_1}\"]"), "[]", "peers[0].keys", "no keys", "ferry:pub:");
    mistake(", service: orders", "", "egress[0].service", "missing", "the peer's `ingress`");
    mistake("listen: \"127.0.0.1:18001\", ", "", "egress[0].listen", "missing", "127.0.0.1:18001");
    mistake("peer: east, ", "", "egress[0].peer", "missing", "one of `peers`");
    mistake("service: web, ", "", "ingress[0].service", "missing", "name the service");
    mistake("forward: \"127.0.0.1:8000\", ", "", "ingress[0].forward", "missing", "127.0.0.1:8000");
    mistake(", allow: [east, west]", "", "ingress[0].allow", "missing", "names of the peers");
    mistake("[east, west]", "[]", "ingress[0].allow", "no peers", "names of the peers");
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    mistake("listen: 0", "Listen: 0", "Listen", "unknown key", "did you mean `listen`?");
    mistake("    addresses:", "    adresses:", "peers[0].adresses", "unknown key", "`addresses`");
    added("rotation: {max-per-second: 1}", "rotation.max-per-second", "unknown key", "`max_per_second`");
}

#[test]
fn a_key_like_no_other_lists_the_known_ones() {
    added("resume: {colour: red}", "resume.colour", "unknown key", "the keys here are window, buffer");
    added("\"a\\nb\": 1", "`a\\nb`", "unknown key", "the keys here are name, identity");
}

#[test]
fn a_key_given_twice_is_refused() {
    added("name: them", "name", "given twice", "keep one");
    mistake("peer: east,", "peer: east, peer: west,", "egress[0].peer", "given twice", "keep one");
}

#[test]
fn the_wrong_kind_of_value_is_refused() {
    mistake("name: us", "name: 7", "name", "expected text, found a number", "quotes");
    mistake("name: us", "name: [us]", "name", "expected text, found a list", "");
    mistake("allow: [east]", "allow: east", "ingress[1].allow", "expected a list, found text", "`- `");
    added("rotation: 30s", "rotation", "expected a mapping, found text", "key: value");
    added("drain: {}", "drain", "expected a single value, found a mapping", "");
    mistake("  - {listen: \"127.0.0.1:18001\", peer: east, service: orders}", "  - ", "egress[0]", "found nothing", "");
}
