//! What is carried, and how it ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::{Pair, echo};
use crate::scene::is_refused;

#[tokio::test]
async fn bytes_go_both_ways() {
    let pair = Pair::start(echo().await).await;
    let mut app = pair.connect().await;
    app.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    app.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn much_goes_both_ways_and_ends_with_both_ends() {
    let pair = Pair::start(echo().await).await;
    let app = pair.connect().await;
    let (mut read, mut write) = app.into_split();
    let sent: Vec<u8> = (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    read.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[tokio::test]
async fn an_application_that_refuses_resets_the_near_one() {
    let pair = Pair::start(ferry_processes::nobody()).await;
    is_refused(pair.app()).await;
}
