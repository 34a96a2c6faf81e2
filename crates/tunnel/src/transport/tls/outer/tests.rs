use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll, Waker};

use rustls::CipherSuite;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, server};

use super::endpoint::Anyone;
use super::*;

/// A connection, and the endpoint, over something that takes `room` bytes at once.
async fn connected(room: usize) -> (Box<dyn Stream>, server::TlsStream<DuplexStream>) {
    let mut endpoint = endpoint::config().unwrap();
    // They would wait for a reader where there is little room.
    endpoint.send_tls13_tickets = 0;
    let mut config = Arc::unwrap_or_clone(client(RootCertStore::empty()));
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    let (near, far) = tokio::io::duplex(room);
    let name = ServerName::try_from("endpoint.example").unwrap();
    let near = TlsConnector::from(Arc::new(config)).connect(name, Io::new(Box::new(near)));
    let (near, far) = tokio::join!(near, TlsAcceptor::from(Arc::new(endpoint)).accept(far));
    (stream::layered(near.unwrap()), far.unwrap())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

async fn read(stream: &mut dyn Stream, buf: &mut [u8]) -> usize {
    std::future::poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(buf)])).await.unwrap()
}

#[tokio::test]
async fn all_bytes_arrive_both_ways_however_little_the_connection_takes_at_once() {
    let bytes = bytes(400_000);
    for room in [100, 5_000, 1_000_000] {
        let (mut near, mut far) = connected(room).await;
        let writes = async {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let count = std::future::poll_fn(|cx| near.poll_write(cx, &[IoSlice::new(rest)])).await.unwrap();
                rest = &rest[count..];
            }
        };
        let mut received = vec![0; bytes.len()];
        let (read_all, ()) = tokio::join!(far.read_exact(&mut received), writes);
        read_all.unwrap();
        assert!(received == bytes, "there, {room} at once");

        let writes = async {
            far.write_all(&bytes).await.unwrap();
            far.flush().await.unwrap();
        };
        let reads = async {
            let (mut received, mut buf) = (Vec::new(), vec![0; 50_000]);
            while received.len() < bytes.len() {
                let count = read(&mut *near, &mut buf).await;
                received.extend_from_slice(&buf[..count]);
            }
            received
        };
        let ((), received) = tokio::join!(writes, reads);
        assert!(received == bytes, "and back, {room} at once");
    }
}

#[tokio::test]
async fn one_read_brings_all_records_that_are_there() {
    let (mut near, mut far) = connected(1_000_000).await;
    far.write_all(&bytes(100_000)).await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(read(&mut *near, &mut vec![0; 200_000]).await, 100_000);
}

#[tokio::test]
async fn an_end_without_a_close_notify_is_an_end_behind_what_came() {
    let (mut near, mut far) = connected(1_000_000).await;
    far.write_all(&bytes(10)).await.unwrap();
    far.flush().await.unwrap();
    drop(far);
    assert_eq!(read(&mut *near, &mut [0; 100]).await, 10);
    assert_eq!(read(&mut *near, &mut [0; 100]).await, 0);
}

#[tokio::test]
async fn what_is_no_record_is_an_error_behind_what_came() {
    let (mut near, mut far) = connected(1_000_000).await;
    far.write_all(&bytes(60_000)).await.unwrap();
    far.flush().await.unwrap();
    far.get_mut().0.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap();
    assert!(read(&mut *near, &mut vec![0; 100_000]).await > 0);
    let mut cx = Context::from_waker(Waker::noop());
    let failed = near.poll_read(&mut cx, &mut [IoSliceMut::new(&mut [0; 100])]);
    assert!(matches!(failed, Poll::Ready(Err(_))), "{failed:?}");
}

#[test]
fn the_cheap_ciphers_are_the_first_choice_and_all_are_there() {
    let provider = ciphers::provider();
    assert_eq!(provider.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(provider.cipher_suites.len(), rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES.len());
}
