use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll, Waker};

use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, server};

use super::endpoint::Anyone;
use super::*;

/// A connection, and the endpoint, over something that takes `room` bytes at once.
async fn connected(room: usize) -> (Box<dyn Stream>, server::TlsStream<DuplexStream>) {
    connected_by(&TLS13, room, 0).await
}

/// The same, in this version, with so many tickets behind the handshake.
async fn connected_by(
    version: &'static SupportedProtocolVersion,
    room: usize,
    tickets: usize,
) -> (Box<dyn Stream>, server::TlsStream<DuplexStream>) {
    let mut endpoint = endpoint::config(version).unwrap();
    // Where there is little room they would wait for a reader.
    endpoint.send_tls13_tickets = tickets;
    let (near, far) = connected_to(endpoint, room).await;
    (near.unwrap(), far.unwrap())
}

/// What comes of a connection to this endpoint, here and there.
async fn connected_to(
    endpoint: ServerConfig,
    room: usize,
) -> (io::Result<Box<dyn Stream>>, io::Result<server::TlsStream<DuplexStream>>) {
    let mut config = Arc::unwrap_or_clone(client(RootCertStore::empty()));
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    let (near, far) = tokio::io::duplex(room);
    let name = ServerName::try_from("endpoint.example").unwrap();
    // This end's last flight goes with what comes next, and an empty write is enough of that.
    let near = async {
        let mut near = connect(Arc::new(config), name, Box::new(near)).await.map_err(explain)?;
        std::future::poll_fn(|cx| near.poll_write(cx, &[])).await?;
        Ok(near)
    };
    tokio::join!(near, TlsAcceptor::from(Arc::new(endpoint)).accept(far))
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
    for (version, room) in
        [&TLS13, &TLS12].into_iter().flat_map(|version| [100, 5_000, 1_000_000].map(|room| (version, room)))
    {
        let (mut near, mut far) = connected_by(version, room, 0).await;
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
        assert!(received == bytes, "there, {room} at once, {version:?}");

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
        assert!(received == bytes, "and back, {room} at once, {version:?}");
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

#[tokio::test]
async fn tickets_are_passed_over() {
    let (mut near, mut far) = connected_by(&TLS13, 1_000_000, 4).await;
    far.write_all(b"hello").await.unwrap();
    far.flush().await.unwrap();
    assert_eq!(read(&mut *near, &mut [0; 100]).await, 5);
}

#[tokio::test]
async fn fresh_keys_of_the_endpoint_are_an_error_behind_what_came() {
    let (mut near, mut far) = connected(1_000_000).await;
    far.write_all(b"hello").await.unwrap();
    far.get_mut().1.refresh_traffic_keys().unwrap();
    far.flush().await.unwrap();
    assert_eq!(read(&mut *near, &mut [0; 100]).await, 5);
    let error = std::future::poll_fn(|cx| near.poll_read(cx, &mut [IoSliceMut::new(&mut [0; 100])])).await.unwrap_err();
    assert!(error.to_string().contains("fresh keys"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_wants_a_certificate_is_named_as_that() {
    for version in [&TLS13, &TLS12] {
        let provider = Arc::new(ciphers::provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(public_roots()), provider).build();
        let endpoint = endpoint::config_by(version, verifier.unwrap()).unwrap();
        let (near, far) = connected_to(endpoint, 1_000_000).await;
        assert!(far.is_err());
        // Of TLS 1.3 the dialler's handshake is over by then.
        let mut buf = [0; 100];
        let told = match near {
            Ok(mut near) => std::future::poll_fn(|cx| near.poll_read(cx, &mut [IoSliceMut::new(&mut buf)])).await,
            Err(error) => Err(error),
        };
        let error = told.unwrap_err();
        assert!(error.to_string().contains("does the endpoint ask for a certificate?"), "{version:?}: {error}");
    }
}

#[tokio::test]
async fn records_are_read_whole_however_little_room_there_is() {
    let (mut near, mut far) = connected(1_000_000).await;
    let sent = bytes(40_000);
    far.write_all(&sent).await.unwrap();
    far.flush().await.unwrap();
    let mut received = Vec::new();
    for room in [1, 7, 16_384, 16_385, 16_400].into_iter().cycle() {
        let mut buf = vec![0; room];
        let count = read(&mut *near, &mut buf).await;
        received.extend_from_slice(&buf[..count]);
        if received.len() == sent.len() {
            break;
        }
    }
    assert!(received == sent);
}
