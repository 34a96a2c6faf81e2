//! What `ferry top` shows, as text. `UPDATE=1` rewrites the captures in `tests/top`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};

use super::draw::{Theme, draw};
use super::state::{Heard, Top, Wish};
use crate::admin::{Answer, Status};

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn session(number: u32, sent: u64) -> Value {
    let is_opener = number % 3 != 1;
    json!({
        "id": format!("{:032x}", u128::from(number) << 96 | 0xabcd), "peer": "cluster-b/terminator",
        "side": if is_opener { "opener" } else { "acceptor" }, "service": if is_opener { "terminator" } else { "shell" },
        "attached": true, "key_age_seconds": f64::from(number % 40), "age_seconds": 100.0 * f64::from(number + 1),
        "sent": sent, "received": sent / 10, "buffered": 1000 * number, "resumes": number % 2,
        "longest_pause_seconds": 1.25 * f64::from(number % 2)
    })
}

/// A status of this many sessions at this second of a life: the first moves most.
fn status(second: u64, sessions: u32) -> Value {
    let bytes = |number: u32| (20_000_000 >> number.min(30)) * (second + second % 7);
    let sent: u64 = (0..sessions).map(bytes).sum();
    json!({
        "version": 1, "ferry": "0.1.0", "name": "cluster-a/initiator", "instance": "i", "uptime_seconds": 740 + second,
        "draining": false, "settings": {"rotation_every_seconds": 30, "resume_window_seconds": 600},
        "totals": {
            "sessions": sessions, "detached": 0, "buffered": 12_345, "oldest_key_seconds": 28.0, "links_open": sessions + 4,
            "sent": sent, "received": sent / 10, "resumes": 3, "rotations": 1234, "rotations_failed": 0
        },
        "peers": [{
            "name": "cluster-b/terminator", "reachable": true, "dialled": true, "round_trip_seconds": 0.0184,
            "warm": {"own": 4, "offered": 2}, "sessions": sessions, "detached": 0
        }],
        "sessions": (0..sessions).map(|number| session(number, bytes(number))).collect::<Vec<_>>()
    })
}

/// As it is in a cut: two sessions without a link, another peer that is not reachable, an address that is taken.
fn troubled(second: u64) -> Value {
    let mut status = status(second, 12);
    status["totals"]["detached"] = 2.into();
    status["totals"]["rotations_failed"] = 7.into();
    status["peers"][0]["detached"] = 2.into();
    let away = json!({
        "name": "edge/site-7", "reachable": false, "problem": "192.0.2.7:30200: Connection refused (os error 111)",
        "dialled": true, "warm": {"own": 0, "offered": 0}, "sessions": 0, "detached": 0
    });
    status["peers"].as_array_mut().unwrap().push(away);
    status["unbound"] = json!([{"listen": "127.0.0.1:18001", "problem": "Address already in use (os error 98)"}]);
    for number in [3, 4] {
        status["sessions"][number]["detached_seconds"] = 12.5.into();
        status["sessions"][number]["sent"] = 2_000_000.into();
        status["sessions"][number]["received"] = 500.into();
    }
    status
}

fn events(events: Value) -> Heard {
    Heard::Events(serde_json::from_value(events).unwrap())
}

fn what_happened() -> Heard {
    let session = |kind: &str, second: u32, more: Value| {
        let mut event = json!({
            "kind": kind, "at": format!("2026-01-31T09:15:{second:02}.281Z"), "session": "ab", "side": "opener",
            "peer": "cluster-b/terminator", "service": "terminator"
        });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    events(json!([
        {"kind": "started", "at": "2026-01-31T09:12:00.000Z", "name": "cluster-a/initiator"},
        {"kind": "peer_reachable", "at": "2026-01-31T09:12:01.000Z", "peer": "cluster-b/terminator"},
        session("session_opened", 1, json!({})),
        session("session_rotated", 2, json!({"epoch": 2})),
        session("link_lost", 10, json!({"epoch": 2, "reason": "lost: no answer to a ping within 15 s"})),
        session("session_detached", 10, json!({"reason": "lost: no answer to a ping within 15 s"})),
        session("session_detached", 11, json!({"reason": "lost: no answer to a ping within 15 s"})),
        session("session_resumed", 22, json!({"epoch": 3, "after_seconds": 12.2})),
        {"kind": "peer_unreachable", "at": "2026-01-31T09:15:30.000Z", "peer": "edge/site-7",
         "problem": "192.0.2.7:30200: Connection refused (os error 111)"},
        {"kind": "of the future", "at": "2026-01-31T09:15:31.000Z"}
    ]))
}

fn heard(status: Value) -> Heard {
    let url = "http://127.0.0.1:9900".parse().unwrap();
    Heard::Status(Box::new(Status::parse(&status.to_string(), &url).unwrap()))
}

/// After a minute of listening.
fn listening(of: impl Fn(u64) -> Value) -> Top {
    let mut top = Top::new();
    for second in 0..=60 {
        top.handle_heard(at(second), heard(of(second)));
    }
    top.handle_heard(at(60), what_happened());
    top
}

fn drawn_with(top: &mut Top, now: Duration, (width, height): (u16, u16), has_colours: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut extents = Default::default();
    terminal.draw(|frame| extents = draw(frame, top, now, Theme::new(has_colours))).unwrap();
    top.handle_drawn(extents);
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
    let lines = buffer.content.chunks(width).map(|cells| line(cells).trim_end().to_owned() + "\n");
    lines.collect()
}

fn drawn(top: &mut Top, now: Duration, size: (u16, u16)) -> String {
    text(&drawn_with(top, now, size, true))
}

fn press(top: &mut Top, code: KeyCode) -> Wish {
    top.handle_key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// Compares a capture with the one that is kept.
fn is_as_kept(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, shown).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == shown, "{name} is not as it was (UPDATE=1 rewrites it):\n{shown}");
}

#[test]
fn a_healthy_tunnel_fits_a_small_and_a_large_terminal() {
    let mut top = listening(|second| status(second, 12));
    is_as_kept("healthy-80x24.txt", &drawn(&mut top, at(61), (80, 24)));
    is_as_kept("healthy-200x60.txt", &drawn(&mut top, at(61), (200, 60)));
}

#[test]
fn a_cut_is_told_with_what_to_do() {
    let mut top = listening(troubled);
    press(&mut top, KeyCode::Char('r'));
    is_as_kept("cut-80x24.txt", &drawn(&mut top, at(61), (80, 24)));
    is_as_kept("cut-200x60.txt", &drawn(&mut top, at(61), (200, 60)));
}

#[test]
fn what_carries_links_is_told_with_the_reason_where_it_is_chosen() {
    let reason = "2 % of the packets lost over 80 ms, which lets a stream of TCP have about 1.3 Mbit/s";
    let mut top = listening(|second| {
        let mut status = status(second, 3);
        status["peers"][0]["choice"] = json!({"carrier": "quic", "reason": reason});
        status
    });
    let shown = drawn(&mut top, at(61), (200, 60)).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("cluster-b/terminator: links are carried by QUIC: 2 % of the packets lost"), "{shown}");
}

#[test]
fn a_tunnel_that_does_not_answer_is_told_at_once_and_until_it_does() {
    let mut top = Top::new();
    assert!(drawn(&mut top, at(0), (80, 24)).contains("asking …"));
    top.handle_heard(at(1), Heard::Silence("no tunnel answers at http://127.0.0.1:9900/: refused".to_owned()));
    assert!(drawn(&mut top, at(5), (80, 24)).contains("NOT CONNECTED for 4.0 s"));
    top.handle_heard(at(6), heard(status(0, 1)));
    assert!(drawn(&mut top, at(8), (80, 24)).contains("connected for 2.0 s"));
    for second in [70, 80] {
        top.handle_heard(at(second), Heard::Silence("no tunnel answers at http://127.0.0.1:9900/: refused".to_owned()));
    }
    is_as_kept("away-80x24.txt", &drawn(&mut top, at(90), (80, 24)));
    top.handle_heard(at(91), heard(status(1, 1)));
    assert!(!drawn(&mut top, at(91), (80, 24)).contains("NOT CONNECTED"));
}

#[test]
fn keys_are_explained_and_little_room_is_used_for_what_they_act_on() {
    let mut top = listening(|second| status(second, 12));
    press(&mut top, KeyCode::Char('?'));
    is_as_kept("help-80x24.txt", &drawn(&mut top, at(61), (80, 24)));
    assert_eq!(press(&mut top, KeyCode::Esc), Wish::Stay);
    for pane in ["12 sessions, by throughput", "Events", "Problems", "1 peer", "12 sessions, by throughput"] {
        let shown = drawn(&mut top, at(61), (50, 10));
        assert!(shown.contains(&format!(" {pane}")), "{pane} in\n{shown}");
        press(&mut top, KeyCode::Tab);
    }
    assert!(drawn(&mut top, at(61), (39, 24)).contains("are the least"));
    let quits =
        [KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), KeyCode::Char('q').into(), KeyCode::Esc.into()];
    assert!(quits.into_iter().all(|key| top.handle_key(key) == Wish::Quit));
}

/// An egress that has room, a peer that has as many sessions as it may, and a service that is held up.
fn limited(second: u64) -> Value {
    let mut status = status(second, 12);
    let pace = |used: u64, waiting: u64| json!({"used": used, "waiting": waiting});
    status["limits"] = json!([
        {"scope": "egress", "name": "cluster-b/terminator terminator",
         "sessions": {"used": 1, "limit": 50, "refused": 0},
         "bytes_per_second": {"limit": 1_000_000, "sent": pace(0, 0), "received": pace(0, 0)}},
        {"scope": "peer", "name": "edge/guest", "sessions": {"used": 9, "limit": 9, "refused": 4}},
        {"scope": "ingress", "name": "reports", "bytes_per_second":
            {"limit": 5_000_000, "sent": pace(120, 0), "received": pace(4_900_000, 3)}}
    ]);
    status
}

/// The first line with this in it, with single spaces.
fn row(shown: &str, part: &str) -> String {
    let row = shown.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part} in\n{shown}"));
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn who_is_held_back_by_a_limit_is_shown() {
    let mut top = listening(limited);
    let shown = drawn(&mut top, at(61), (200, 60));
    assert!(shown.contains(" 3 limits, 2 reached "), "{shown}");
    assert_eq!(row(&shown, "edge/guest"), "peer edge/guest 9 of 9 4 - - - -");
    assert_eq!(row(&shown, "reports"), "ingress reports - - 120 B 4.9 MB 5.0 MB 0+3");
    assert_eq!(row(&shown, "egress"), "egress cluster-b/terminator terminator 1 of 50 0 0 B 0 B 1.0 MB 0+0");
    // Where there is room for two of them, those are the ones that are reached.
    let shown = drawn(&mut top, at(61), (80, 24));
    assert!(shown.contains("1 to 2 of 3") && shown.contains("9 of 9") && shown.contains("0+3"), "{shown}");
    press(&mut top, KeyCode::BackTab);
    press(&mut top, KeyCode::Down);
    assert!(drawn(&mut top, at(61), (80, 24)).contains("2 to 3 of 3"));
    // They are gone with the next status, and so is the pane.
    top.handle_heard(at(62), heard(status(62, 12)));
    assert!(!drawn(&mut top, at(62), (80, 24)).contains("limit"));
    press(&mut top, KeyCode::Tab);
    assert!(drawn(&mut top, at(62), (50, 10)).contains("Events"));
}

fn sites(sites: Value) -> Heard {
    let url = "http://127.0.0.1:8000".parse().unwrap();
    match Answer::parse(&json!({ "sites": sites }).to_string(), &url).unwrap() {
        Answer::WebApp(sites) => Heard::Sites(sites),
        Answer::Tunnel(_) => panic!("it is no tunnel"),
    }
}

#[test]
fn of_a_web_app_its_sites_are_shown_with_what_waits_for_them() {
    let mut top = Top::new();
    let told = json!([
        {"site": "harbour/east", "connected": true, "pod": "ship-0", "cluster": "lisbon",
         "outbox": {"messages": 0, "bytes": 0}, "dead": 2},
        {"site": "harbour/west", "connected": false, "outbox": {"messages": 1234, "bytes": 98_765}, "dead": 0}
    ]);
    top.handle_heard(at(0), sites(told.clone()));
    let shown = drawn(&mut top, at(1), (80, 24));
    assert_eq!(row(&shown, "2 sites, "), "2 sites, 1 not connected 1,234 messages waiting 2 dead");
    assert_eq!(row(&shown, "✗"), "✗ harbour/west is not connected: 1,234 messages wait for it");
    assert_eq!(row(&shown, "east"), "harbour/east ship-0 in lisbon connected 0 0 B 2");
    assert_eq!(row(&shown, " NOT CONNECTED"), "harbour/west - NOT CONNECTED 1,234 98.8 kB 0");
    assert!(!shown.contains("session") && !shown.contains("Events"), "{shown}");
    press(&mut top, KeyCode::Tab);
    assert!(drawn(&mut top, at(1), (50, 10)).contains(" Problems (1) "));
    top.handle_heard(at(2), Heard::Silence("nothing answers".to_owned()));
    let shown = drawn(&mut top, at(3), (80, 24));
    assert!(shown.contains("NOT CONNECTED for 1.0 s") && shown.contains("What is shown is from before"), "{shown}");
    for (width, height) in [(40, 8), (41, 18), (60, 30), (200, 60)] {
        drawn(&mut top, at(3), (width, height));
    }
}

#[test]
fn any_size_can_be_drawn() {
    let mut top = listening(|second| if second < 60 { troubled(second) } else { limited(second) });
    for width in (1..260).step_by(7) {
        for height in (1..70).step_by(3) {
            drawn(&mut top, at(61), (width, height));
        }
    }
}

/// The first sessions that are shown, by number.
fn first_sessions(shown: &str) -> Vec<u32> {
    let ids = shown.lines().filter(|line| line.contains("→ ") || line.contains(" ←"));
    ids.filter_map(|line| u32::from_str_radix(line.get(..8)?, 16).ok()).take(3).collect()
}

#[test]
fn sessions_are_sorted_by_what_is_asked_for() {
    let mut top = listening(troubled);
    for (sort, first) in [
        ("throughput", [0, 1, 2]),
        ("unacknowledged", [11, 10, 9]),
        ("age of key", [11, 10, 9]),
        ("longest pause", [3, 4, 1]),
        ("without a link, then age", [0, 1, 2]),
        ("throughput", [0, 1, 2]),
    ] {
        let shown = drawn(&mut top, at(61), (100, 40));
        assert!(shown.contains(&format!("by {sort}")), "{sort} in\n{shown}");
        assert_eq!(first_sessions(&shown), first, "{sort}");
        press(&mut top, KeyCode::Char('s'));
    }
}

#[test]
fn five_thousand_sessions_are_looked_through_and_no_further() {
    let mut many = status(0, 1000);
    many["totals"]["sessions"] = 5000.into();
    let mut top = Top::new();
    top.handle_heard(at(0), heard(many));
    press(&mut top, KeyCode::Char('s'));
    let shown = drawn(&mut top, at(1), (80, 24));
    assert!(shown.contains("5,000 sessions, 1,000 listed, by unacknowledged"), "{shown}");
    assert_eq!(first_sessions(&shown), [999, 998, 997]);
    press(&mut top, KeyCode::End);
    press(&mut top, KeyCode::Down);
    let shown = drawn(&mut top, at(1), (80, 24));
    assert!(shown.contains("to 1,000 of 1,000"), "{shown}");
    // Had it counted the key that led no further, these would not be seen.
    press(&mut top, KeyCode::Up);
    assert!(drawn(&mut top, at(1), (80, 24)).contains("to 999 of 1,000"));
    press(&mut top, KeyCode::Home);
    press(&mut top, KeyCode::PageDown);
    let rows = u32::try_from(shown.lines().filter(|line| line.contains("→ ") || line.contains(" ←")).count()).unwrap();
    let page = first_sessions(&drawn(&mut top, at(1), (80, 24)));
    assert_eq!(page[0], 999 - (rows - 1), "a line of the page before stays");
}

#[test]
fn what_is_shown_stays_while_it_is_paused() {
    let mut top = listening(|second| status(second, 12));
    press(&mut top, KeyCode::Char('p'));
    let lines = |top: &mut Top| drawn(top, at(70), (80, 24)).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let before = lines(&mut top);
    top.handle_heard(at(69), heard(troubled(69)));
    top.handle_heard(at(69), events(json!([{"kind": "draining", "at": "2026-01-31T09:20:00Z"}])));
    assert_eq!(lines(&mut top), before);
    assert!(drawn(&mut top, at(70), (80, 24)).contains("PAUSED, connected for"));
    press(&mut top, KeyCode::Char('p'));
    let after = drawn(&mut top, at(70), (80, 24));
    assert!(after.contains("Problems (3)") && after.contains("Draining"), "{after}");
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let mut top = listening(troubled);
    let colours =
        |buffer: &Buffer| buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
    let (with, without) = (drawn_with(&mut top, at(61), (80, 24), true), drawn_with(&mut top, at(61), (80, 24), false));
    assert!(colours(&with) && !colours(&without));
    assert_eq!(text(&with), text(&without));
}

#[test]
fn another_process_begins_with_rates_of_its_own() {
    let mut top = listening(|second| status(second, 2));
    let mut other = status(0, 2);
    other["instance"] = "another".into();
    other["totals"]["sent"] = u64::MAX.into();
    top.handle_heard(at(61), heard(other));
    assert!(drawn(&mut top, at(61), (80, 24)).contains("sent 0 B/s"));
}

#[test]
fn a_tunnel_drives_no_terminal() {
    let mut status = status(0, 1);
    let evil = "x\u{1b}[2J\u{202e}y";
    status["name"] = evil.into();
    status["peers"][0]["name"] = evil.into();
    status["sessions"][0]["service"] = evil.into();
    status["sessions"][0]["id"] = evil.into();
    let mut top = Top::new();
    top.handle_heard(at(0), heard(status));
    top.handle_heard(at(0), events(json!([{"kind": evil, "at": evil}, {"kind": "peer_lost", "peer": evil}])));
    let shown = drawn(&mut top, at(1), (200, 60));
    assert!(shown.chars().all(|shown| shown == '\n' || !shown.is_control() && shown != '\u{202e}'), "{shown}");
    assert!(shown.contains("\\u{1b}"), "{shown}");
}
