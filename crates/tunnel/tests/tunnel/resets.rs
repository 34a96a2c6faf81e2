//! Bytes in front of a reset: what an application wrote before its connection was reset reaches the other one first.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::pair::Pair;
use crate::watch::{PATIENCE, shows};

/// Tries of each: what a race decides goes wrong in some of them.
const TRIES: usize = 20;

/// Dropping the connection now resets it.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Everything that comes before the connection is reset.
async fn until_reset(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match timeout(PATIENCE, stream.read(&mut buffer)).await.expect("the connection ends") {
            Ok(0) => panic!("an end of file instead of a reset, after {} bytes", bytes.len()),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return bytes;
            }
        }
    }
}

async fn service() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[tokio::test]
async fn a_byte_in_front_of_a_reset_arrives() {
    let (listener, addr) = service().await;
    let pair = Pair::start(addr).await;
    for _ in 0..TRIES {
        let mut client = pair.connect().await;
        let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        server.write_all(b"x").await.unwrap();
        reset(server);
        assert_eq!(until_reset(&mut client).await, b"x");
    }
}

#[tokio::test]
async fn what_a_client_wrote_in_front_of_its_reset_arrives() {
    let (listener, addr) = service().await;
    let pair = Pair::start(addr).await;
    for _ in 0..TRIES {
        let mut client = pair.connect().await;
        client.write_all(&[7; 40_000]).await.unwrap();
        reset(client);
        let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        assert_eq!(until_reset(&mut server).await.len(), 40_000);
    }
}

/// As a server does that refuses an upload: it answers, and closes with the rest unread, which its kernel makes a reset.
#[tokio::test]
async fn the_answer_of_a_server_that_does_not_read_the_upload_arrives() {
    let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    let (listener, addr) = service().await;
    let pair = Pair::start(addr).await;
    for upload in [300_000, 5_000_000] {
        for _ in 0..TRIES {
            let client = pair.connect().await;
            let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
            let (mut read, mut write) = client.into_split();
            let uploading = tokio::spawn(async move {
                let _ = write.write_all(&vec![1; upload]).await;
                write
            });
            server.read_exact(&mut [0; 1_000]).await.unwrap();
            server.write_all(answer).await.unwrap();
            drop(server);
            let mut got = vec![0; answer.len()];
            timeout(PATIENCE, read.read_exact(&mut got)).await.expect("it comes").expect("the answer, then the reset");
            assert_eq!(got, answer);
            drop(timeout(PATIENCE, uploading).await.expect("the upload ends"));
        }
    }
}

#[tokio::test]
async fn an_application_that_reads_late_still_gets_what_came_before_the_reset() {
    let (listener, addr) = service().await;
    let pair = Pair::start(addr).await;
    let mut client = pair.connect().await;
    let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // More than the kernel takes for an application that does not read, and little that it holds back for the server.
    let (sent, held) = (8_000_000, 64 * 1024);
    SockRef::from(&server).set_send_buffer_size(held).unwrap();
    let writing = tokio::spawn(async move {
        server.write_all(&vec![3; sent]).await.unwrap();
        reset(server);
    });
    let mut got = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while got.len() < sent {
        match timeout(PATIENCE, client.read(&mut buffer)).await.expect("bytes or a reset") {
            Ok(0) => panic!("an end of file after {} bytes", got.len()),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            // What the server's own kernel still held when it was told to reset is lost as it is without a tunnel.
            Err(_) => break,
        }
        tokio::task::yield_now().await;
    }
    timeout(PATIENCE, writing).await.unwrap().unwrap();
    assert!(got.len() > sent - 4 * held, "{} bytes", got.len());
}

/// As telnet and some brokers send it: the byte is not lost, though its urgency is.
#[tokio::test]
async fn an_urgent_byte_arrives_in_its_place() {
    let (listener, addr) = service().await;
    let pair = Pair::start(addr).await;
    let mut client = pair.connect().await;
    let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    for end in [&mut client, &mut server] {
        end.write_all(b"ab").await.unwrap();
        assert_eq!(SockRef::from(&*end).send_out_of_band(b"!").unwrap(), 1);
        end.write_all(b"cd").await.unwrap();
    }
    for end in [&mut client, &mut server] {
        let mut got = [0; 5];
        timeout(PATIENCE, end.read_exact(&mut got)).await.expect("five bytes").unwrap();
        assert_eq!(&got, b"ab!cd");
    }
}

async fn no_session_is_left(pair: &Pair) {
    for tunnel in [&pair.near, &pair.far] {
        shows(tunnel.addresses().admin.unwrap(), "ferry_sessions_open{", &[]).await;
    }
}

const IMPATIENT: &str = "liveness: 1s\nresume: {buffer: 64KiB}\n";

#[tokio::test]
async fn an_application_that_dies_while_nothing_is_read_from_it_ends_the_session() {
    let (listener, addr) = service().await;
    let pair = Pair::start_with(addr, IMPATIENT).await;
    let client = pair.connect().await;
    let (_server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // Until nobody on the way takes more: the server does not read.
    while timeout(Duration::from_millis(500), client.writable()).await.is_ok() {
        let _ = client.try_write(&[1; 64 * 1024]);
    }
    reset(client);
    no_session_is_left(&pair).await;
}

#[tokio::test]
async fn an_application_that_dies_after_its_end_of_file_ends_the_session() {
    let (listener, addr) = service().await;
    let pair = Pair::start_with(addr, IMPATIENT).await;
    let mut client = pair.connect().await;
    let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, server.read(&mut [0; 10])).await.unwrap().unwrap(), 0);
    reset(client);
    // The server waits for nothing, and sends nothing.
    no_session_is_left(&pair).await;
}
