//! Each format of a store as the first build with it wrote it, read by this one.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ferry_golden::{Golden, hex, unhex};

use super::open::FORMAT;
use super::*;
use crate::message::{Arrival, DeadMessage, Message};

const SENDER: &str = "0123456789abcdef01234567";
const OUTBOX: [&str; 2] = [
    r#"{"seq":2,"id":"0123456789abcdef01234567-2","payload":{"n":1.50,"ü":[null]},"trail":[{"pod":"initiator","cluster":"a","at":"2026-01-02T03:04:05.678Z"}]}"#,
    r#"{"seq":3,"id":"0123456789abcdef01234567-3","payload":{},"trail":[],"in_reply_to":"far-9"}"#,
];
const OUTPUT: [&str; 2] = [
    r#"{"id":"far-4","payload":{"n":4},"trail":[{"pod":"terminator","cluster":"b","at":"2026-01-02T03:04:05.679Z"}]}"#,
    r#"{"id":"far-5","payload":{"n":5},"trail":[],"in_reply_to":"0123456789abcdef01234567-1"}"#,
];
const DEAD: [&str; 2] = [
    r#"{"arrival":{"id":"far-6","payload":{"n":6},"trail":[]},"error":"no","at":"2026-01-02T03:04:05.680Z"}"#,
    r#"{"arrival":{"id":"far-7","payload":null,"trail":[]},"raw":"[","error":"not an object","at":"2026-01-02T03:04:05.681Z"}"#,
];
const SENDER_NEXT: &str = r#"{"seq":4,"id":"0123456789abcdef01234567-4","payload":{},"trail":[]}"#;
const MORE: &str = "far-and-idle";

fn golden() -> Golden {
    Golden::of(env!("CARGO_MANIFEST_DIR"), "store", "sql", "FORMAT of crates/app/src/store/open.rs")
}

/// A store with more than one far web-app, which has tables of its own for it.
fn golden_of_sites() -> Golden {
    Golden::of(env!("CARGO_MANIFEST_DIR"), "store-of-sites", "sql", "FORMAT of crates/app/src/store/open.rs")
}

/// A store with the headers of messages.
fn golden_of_headers() -> Golden {
    Golden::of(env!("CARGO_MANIFEST_DIR"), "store-of-headers", "sql", "FORMAT of crates/app/src/store/open.rs")
}

fn sender(id: &str) -> SenderId {
    SenderId::try_from(id.to_owned()).unwrap()
}

fn peers() -> Vec<(SenderId, PeerName)> {
    vec![(sender("far"), PeerName::try_from("cluster-b/terminator".to_owned()).unwrap())]
}

fn keys() -> Vec<(String, KeyRecord)> {
    let key = |key: &str, seq, fate| (key.to_owned(), KeyRecord { seq, digest: u64::MAX - seq, fate });
    vec![key("a key", 1, Fate::Replied), key("dead", 2, Fate::Dead), key("ü", 3, Fate::Plain)]
}

/// As this build writes them.
fn row<T: serde::Serialize + serde::de::DeserializeOwned>(text: &str) -> String {
    serde_json::to_string(&serde_json::from_str::<T>(text).unwrap()).unwrap()
}

/// A store that this build writes.
fn written() -> Store {
    let (mut store, _) = Store::in_memory();
    let transaction = store.connection.transaction().unwrap();
    about::set_sender(&transaction, SENDER).unwrap();
    transaction.commit().unwrap();
    let numbered = |first: u64, texts: [String; 2]| (first..).zip(texts).collect::<Vec<_>>();
    let first = OutboxCommit {
        outbox: OUTBOX.map(row::<Message>).into_iter().zip(2..).map(|(text, seq)| (seq, text.into())).collect(),
        acked: 1,
        keys: keys(),
        ..OutboxCommit::default()
    };
    let commit = Commit {
        outboxes: vec![first],
        output: numbered(7, OUTPUT.map(row::<Arrival>)),
        watermarks: vec![(sender("far"), 7), (sender(MORE), u64::MAX >> 2)],
        peers: peers(),
        dead: numbered(1, DEAD.map(row::<DeadMessage>)),
        ..Commit::default()
    };
    store.commit(&commit).unwrap();
    store
}

const OTHER: &str = "fedcba9876543210fedcba98";
const OTHER_OUTBOX: &str = r#"{"seq":5,"id":"fedcba9876543210fedcba98-5","payload":{"n":5},"trail":[]}"#;

/// The first site has a name by then.
fn written_with_sites() -> Store {
    let mut store = written();
    let record = |name: Option<&str>, id: &str| {
        let name = name.map(|name| PeerName::try_from(name.to_owned()).unwrap());
        Some(SiteRecord { name, sender: sender(id) })
    };
    let first =
        OutboxCommit { acked: 1, record: record(Some("cluster-b/terminator"), SENDER), ..OutboxCommit::default() };
    let other = OutboxCommit {
        site: 1,
        record: record(Some("cluster-c/terminator"), OTHER),
        outbox: vec![(5, row::<Message>(OTHER_OUTBOX).into())],
        acked: 4,
        keys: keys(),
        ..OutboxCommit::default()
    };
    let nameless = OutboxCommit { site: 2, record: record(None, MORE), ..OutboxCommit::default() };
    store.commit(&Commit { outboxes: vec![first, other, nameless], ..Commit::default() }).unwrap();
    store
}

const HEADERS: &str = r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","baggage":"a=1"}"#;
const OUTPUT_WITH_HEADERS: &str = r#"{"id":"far-8","payload":{},"trail":[],"headers":{"baggage":"a=1"}}"#;

/// Messages of two sites have headers.
fn written_with_headers() -> Store {
    let mut store = written_with_sites();
    let first = OutboxCommit {
        outbox: vec![(4, row::<Message>(SENDER_NEXT).into())],
        headers: vec![(sender(SENDER).message(4), HEADERS.into())],
        acked: 2,
        ..OutboxCommit::default()
    };
    let other = OutboxCommit {
        site: 1,
        headers: vec![(sender(OTHER).message(5), r#"{"baggage":"b=2"}"#.into())],
        acked: 4,
        ..OutboxCommit::default()
    };
    let output = vec![(9, row::<Arrival>(OUTPUT_WITH_HEADERS))];
    store.commit(&Commit { outboxes: vec![first, other], output, ..Commit::default() }).unwrap();
    store
}

/// A store as SQL, and its witness.
fn text(store: &Store) -> String {
    let mut text = format!("-- witness {}\n", hex(&witness::encode(store.commits)));
    let query = |sql: &str| {
        let mut statement = store.connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    for sql in query("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name") {
        let _ = writeln!(text, "{sql};");
    }
    for table in query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
        let columns = query(&format!("SELECT 'quote(' || name || ')' FROM pragma_table_info('{table}') ORDER BY cid"));
        let values = columns.join(" || ', ' || ");
        let rows = query(&format!("SELECT 'INSERT INTO {table} VALUES (' || {values} || ');' FROM {table} ORDER BY 1"));
        rows.iter().for_each(|row| text.extend([row, "\n"]));
    }
    text
}

/// Puts a store into a directory, as a process left it.
fn lay(text: &str, dir: &Path) -> Connection {
    let witness = text.lines().next().unwrap().strip_prefix("-- witness ").unwrap();
    fs::write(dir.join("witness"), unhex(witness)).unwrap();
    let connection = Connection::open(dir.join("store.sqlite")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    connection.execute_batch(text).unwrap();
    connection
}

fn texts<T: serde::Serialize>(rows: impl IntoIterator<Item = T>) -> Vec<String> {
    rows.into_iter().map(|row| serde_json::to_string(&row).unwrap()).collect()
}

#[test]
fn a_store_of_a_build_with_the_format_of_any_golden_file_is_read_as_it_was() {
    for format in 1..=FORMAT {
        let dir = tempfile::tempdir().unwrap();
        drop(lay(&golden().read(format), dir.path()));
        let (mut store, state) = open(dir.path()).unwrap();
        let [site] = &state.sites[..] else { panic!("format {format}: {:?}", state.sites) };
        assert_eq!((site.sender.as_str(), site.acked, store.commits), (SENDER, 1, 2), "format {format}");
        assert_eq!(site.outbox.iter().map(|(message, _)| message.seq).collect::<Vec<_>>(), [2, 3], "format {format}");
        assert_eq!(texts(site.outbox.iter().map(|(message, _)| message)), OUTBOX, "format {format}");
        assert_eq!(state.output.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [7, 8], "format {format}");
        assert_eq!(texts(state.output.iter().map(|(_, arrival)| arrival)), OUTPUT, "format {format}");
        assert_eq!(texts(state.dead.iter().map(|(_, dead)| dead)), DEAD, "format {format}");
        assert_eq!(state.watermarks, [(sender("far"), 7), (sender(MORE), u64::MAX >> 2)], "format {format}");
        assert_eq!((&state.peers, &site.keys), (&peers(), &keys()), "format {format}");
        // And it can be written to.
        let outboxes = vec![OutboxCommit { acked: 3, ..OutboxCommit::default() }];
        store.commit(&Commit { outboxes, ..Commit::default() }).unwrap();
        drop(store);
        assert_eq!(open(dir.path()).unwrap().1.sites[0].outbox.len(), 0, "format {format}");
    }
}

#[test]
fn what_a_store_looks_like_changes_with_its_format_alone() {
    golden().hold(FORMAT, &text(&written()));
}

#[test]
fn a_store_of_sites_of_any_golden_file_is_read_as_it_was() {
    for format in 1..=FORMAT {
        let dir = tempfile::tempdir().unwrap();
        drop(lay(&golden_of_sites().read(format), dir.path()));
        let (_store, state) = open(dir.path()).unwrap();
        let [first, other, nameless] = &state.sites[..] else { panic!("format {format}: {:?}", state.sites) };
        let name = |site: &StoredSite| site.name.as_ref().map(ToString::to_string);
        assert_eq!((first.number, name(first), first.acked), (0, Some("cluster-b/terminator".to_owned()), 1));
        assert_eq!((other.number, name(other), other.acked), (1, Some("cluster-c/terminator".to_owned()), 4));
        assert_eq!((other.sender.as_str(), &other.keys), (OTHER, &keys()), "format {format}");
        assert_eq!(texts(other.outbox.iter().map(|(message, _)| message)), [OTHER_OUTBOX], "format {format}");
        assert_eq!((nameless.number, name(nameless), nameless.sender.as_str()), (2, None, MORE), "format {format}");
    }
}

#[test]
fn what_a_store_of_sites_looks_like_changes_with_its_format_alone() {
    golden_of_sites().hold(FORMAT, &text(&written_with_sites()));
}

#[test]
fn the_headers_in_a_store_of_any_golden_file_are_read_as_they_were() {
    for format in 1..=FORMAT {
        let dir = tempfile::tempdir().unwrap();
        drop(lay(&golden_of_headers().read(format), dir.path()));
        let (mut store, state) = open(dir.path()).unwrap();
        let of = |site: usize| {
            state.sites[site].headers.iter().map(|(seq, text)| (*seq, text.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(4, HEADERS.to_owned())], "format {format}");
        assert_eq!(of(1), [(5, r#"{"baggage":"b=2"}"#.to_owned())], "format {format}");
        assert_eq!(texts(state.output.iter().map(|(_, arrival)| arrival))[2], OUTPUT_WITH_HEADERS, "format {format}");
        // They go with their messages.
        let outboxes = vec![OutboxCommit { acked: 4, ..OutboxCommit::default() }];
        store.commit(&Commit { outboxes, forgotten: vec![1], ..Commit::default() }).unwrap();
        let left: i64 = store.connection.query_row("SELECT count(*) FROM headers", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "format {format}");
    }
}

#[test]
fn what_a_store_of_headers_looks_like_changes_with_its_format_alone() {
    golden_of_headers().hold(FORMAT, &text(&written_with_headers()));
}

/// A version that does not know them has been there meanwhile, and has given the number to another message.
#[test]
fn headers_that_are_left_over_go_to_no_other_message() {
    let dir = tempfile::tempdir().unwrap();
    let connection = lay(&golden_of_headers().read(FORMAT), dir.path());
    let row = row::seal(4, &format!("{OTHER}-4 {HEADERS}"));
    connection.execute("UPDATE headers SET row = ? WHERE site = 0", [row]).unwrap();
    drop(connection);
    let (_store, state) = open(dir.path()).unwrap();
    assert!(state.sites[0].headers.is_empty(), "{:?}", state.sites[0].headers);
}

/// Its first builds had no such table.
#[test]
fn a_store_that_knows_no_peers_is_read() {
    let dir = tempfile::tempdir().unwrap();
    lay(&golden().read(1), dir.path()).execute_batch("DROP TABLE peers").unwrap();
    let (_store, state) = open(dir.path()).unwrap();
    assert_eq!((state.peers.len(), state.watermarks.len()), (0, 2));
}

/// Messages are not dropped as sessions are: who wrote the store can still deliver them.
#[test]
fn a_store_of_a_later_format_is_left_as_it_is_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = lay(&golden().read(FORMAT), dir.path());
    let transaction = connection.transaction().unwrap();
    set_number(&transaction, "format", FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(connection);
    let before = fs::read(dir.path().join("store.sqlite")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Version { .. }) && error.to_string().contains("run the version that wrote it"));
    assert!(fs::read(dir.path().join("store.sqlite")).unwrap() == before, "it was changed");
}
