//! A session has the worker that suits what it moves, and its application notices nothing when it goes to another one.

use std::time::Instant;

use ferry_tunnel::Tunnel;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use crate::pair::{Pair, echo, status};
use crate::stream;
use crate::watch::PATIENCE;

const KEY: u64 = 0x10ad;

/// Four MiB: more than a session may move at once and still be a light one.
const MANY: u64 = 512 * 1024;

async fn status_of(tunnel: &Tunnel) -> serde_json::Value {
    status(tunnel.addresses().admin.unwrap()).await
}

/// Writes so many words, and again, until the session's load is this at both ends; returns the next word's index.
async fn write_until_it_is(pair: &Pair, load: &str, app: &mut OwnedWriteHalf, mut index: u64, words: u64) -> u64 {
    let begun = Instant::now();
    loop {
        stream::write_words(&mut *app, KEY, index, words).await;
        index += words;
        let [near, far] = [status_of(&pair.near).await, status_of(&pair.far).await];
        let loads = [&near, &far].map(|status| status["sessions"][0]["load"].clone());
        if loads == [load, load] {
            return index;
        }
        assert!(begun.elapsed() < PATIENCE, "{load} is expected, and it is {loads:?} after {index} words");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_to_another_worker_as_it_streams_and_back_and_loses_no_byte() {
    let pair = Pair::start(echo().await).await;
    let (back, mut app) = pair.connect().await.into_split();
    let checked = tokio::spawn(stream::check(back, KEY));
    let mut index = 0;
    for _ in 0..3 {
        index = write_until_it_is(&pair, "heavy", &mut app, index, MANY).await;
        index = write_until_it_is(&pair, "light", &mut app, index, 1).await;
    }
    app.shutdown().await.unwrap();
    assert_eq!(checked.await.unwrap(), index * 8);
}
