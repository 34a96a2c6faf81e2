//! Local ports: what short sessions leave of them.
#![cfg(target_os = "linux")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::{Pair, echo, get};
use crate::watch::shows;

/// `TIME_WAIT` in /proc/net/tcp.
const TIME_WAIT: &str = "06";

/// Ports that wait because this end has closed first: of those who connected to `port`, and at `port` itself.
fn waiting(port: u16) -> [usize; 2] {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let waiting: Vec<_> = rows.filter(|row| row.get(3) == Some(&TIME_WAIT)).collect();
    let at = |column: usize| waiting.iter().filter(|row| row[column].ends_with(&port)).count();
    [at(2), at(1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_sessions_leave_none_of_the_diallers_ports_waiting() {
    const SESSIONS: usize = 40;
    let pair = Pair::start(echo().await).await;
    let links = pair.far.addresses().listen.unwrap().port();
    // The table is the machine's: another test's client may have had the port that the far tunnel has now.
    let [others, _] = waiting(links);
    for _ in 0..SESSIONS {
        let mut app = pair.connect().await;
        app.write_all(b"hello").await.unwrap();
        app.shutdown().await.unwrap();
        let mut answer = Vec::new();
        app.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"hello");
    }
    let admin = pair.near.addresses().admin.unwrap();
    shows(admin, "ferry_sessions_open{side=\"opener\"}", &[]).await;
    // A port of the accepting end's is of no concern: it has the same one for all.
    while waiting(links)[1] < SESSIONS {
        tokio::task::yield_now().await;
        get(admin, "/livez").await;
    }
    assert!(waiting(links)[0] <= others, "{} ports wait, and {others} did before", waiting(links)[0]);
}
