use std::task::Waker;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;

/// A WebSocket, and tungstenite's at the other end, which takes at most `room` bytes before it reads.
async fn with_another(role: Role, room: usize) -> (Box<dyn Stream>, WebSocketStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(room);
    let other = if role == Role::Client { Role::Server } else { Role::Client };
    let far = WebSocketStream::from_raw_socket(far, other, None).await;
    (WebSocket::start(Box::new(near), Vec::new(), role, None), far)
}

/// A WebSocket over a connection that the test plays the other end of.
fn with_bytes(role: Role, room: usize) -> (Box<dyn Stream>, DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    (WebSocket::start(Box::new(near), Vec::new(), role, None), far)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

async fn write_all(stream: &mut dyn Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = std::future::poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(bytes)])).await.unwrap();
        bytes = &bytes[count..];
    }
}

async fn read(stream: &mut dyn Stream, at_most: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; at_most];
    let count = std::future::poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)])).await?;
    buf.truncate(count);
    Ok(buf)
}

#[tokio::test]
async fn another_implementation_reads_what_is_written_however_little_it_takes_at_once() {
    let bytes = bytes(700_000);
    for role in [Role::Client, Role::Server] {
        for room in [5, 4_000, 1_000_000] {
            let (mut near, mut far) = with_another(role, room).await;
            let all = if room == 5 { &bytes[..2_000] } else { &bytes[..] };
            let writes = async {
                write_all(&mut *near, &all[..3]).await;
                write_all(&mut *near, &all[3..]).await;
            };
            let reads = async {
                let mut read = Vec::new();
                while read.len() < all.len() {
                    read.extend_from_slice(&far.next().await.unwrap().unwrap().into_data());
                }
                read
            };
            assert!(tokio::join!(writes, reads).1 == all, "{role:?} into {room} bytes");
        }
    }
}

#[tokio::test]
async fn what_another_implementation_writes_is_read_into_any_buffer() {
    let bytes = bytes(200_000);
    for role in [Role::Client, Role::Server] {
        for (room, at_most) in [(7, 1_000), (5_000, 1), (1_000_000, 77_777)] {
            let (mut near, mut far) = with_another(role, room).await;
            let all = if room == 7 || at_most == 1 { &bytes[..20_000] } else { &bytes[..] };
            let writes = async {
                for message in [&all[..0], &all[..1], &all[1..130], &all[130..]] {
                    far.send(Message::binary(message.to_vec())).await.unwrap();
                }
            };
            let reads = async {
                let mut carried = Vec::new();
                while carried.len() < all.len() {
                    carried.extend(read(&mut *near, at_most).await.unwrap());
                }
                carried
            };
            assert!(tokio::join!(writes, reads).1 == all, "{role:?}, {room} bytes at once into {at_most}");
        }
    }
}

#[tokio::test]
async fn fragments_are_carried_as_they_come_and_a_ping_between_them_is_answered() {
    let (mut near, mut far) = with_bytes(Role::Client, 1024);
    far.write_all(b"\x02\x02ab\x89\x03hey").await.unwrap();
    assert_eq!(read(&mut *near, 64).await.unwrap(), b"ab");
    far.write_all(b"\x00\x00\x80\x02cd").await.unwrap();
    assert_eq!(read(&mut *near, 64).await.unwrap(), b"cd");
    let mut pong = [0; 9];
    far.read_exact(&mut pong).await.unwrap();
    let ([0x8a, 0x83, mask @ ..], payload) = pong.split_first_chunk_mut::<6>().unwrap() else { panic!("{pong:x?}") };
    mask::apply(payload, *mask, 0);
    assert_eq!(payload, b"hey");
}

#[tokio::test]
async fn the_answer_to_a_ping_waits_for_the_end_of_the_message() {
    let (mut near, mut far) = with_bytes(Role::Server, 64);
    let (mut cx, bytes) = (Context::from_waker(Waker::noop()), bytes(300));
    let Poll::Ready(Ok(written)) = near.poll_write(&mut cx, &[IoSlice::new(&bytes)]) else { panic!("there is room") };
    assert!(written < bytes.len());
    let mut said = vec![0; 64];
    far.read_exact(&mut said).await.unwrap();
    far.write_all(b"\x89\x81\0\0\0\0\x07").await.unwrap();
    assert!(near.poll_read(&mut cx, &mut [IoSliceMut::new(&mut [0; 16])]).is_pending());
    let writes = async {
        write_all(&mut *near, &bytes[written..]).await;
        // The answer goes in front of the next message.
        write_all(&mut *near, b"!").await;
    };
    let reads = async {
        let mut rest = vec![0; 4 + 300 + 3 + 3 - 64];
        far.read_exact(&mut rest).await.unwrap();
        rest
    };
    said.extend(tokio::join!(reads, writes).0);
    assert!(said == [b"\x82\x7e\x01\x2c", &bytes[..], b"\x8a\x01\x07", b"\x82\x01!"].concat(), "{said:x?}");
}

#[tokio::test]
async fn a_message_may_not_become_too_long_in_fragments() {
    let (mut near, mut far) = with_bytes(Role::Client, 2 * 1024 * 1024);
    let half = [&b"\x02\x7f\0\0\0\0\0\x08\0\0"[..], &[0; 512 * 1024]].concat();
    far.write_all(&half).await.unwrap();
    far.write_all(&[b"\x00", &half[1..]].concat()).await.unwrap();
    let mut carried = 0;
    while carried < 1024 * 1024 {
        carried += read(&mut *near, 100_000).await.unwrap().len();
    }
    far.write_all(b"\x00\x01x").await.unwrap();
    assert_eq!(read(&mut *near, 64).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(read(&mut *near, 64).await.unwrap().is_empty(), "nothing behind it is read");
}

#[tokio::test]
async fn what_came_before_a_frame_that_is_wrong_is_read_first() {
    let (mut near, mut far) = with_bytes(Role::Client, 1024);
    far.write_all(b"\x82\x02ab\x89\x01!\xff\x01c\x82\x01d").await.unwrap();
    assert_eq!(read(&mut *near, 64).await.unwrap(), b"ab");
    assert_eq!(read(&mut *near, 64).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(read(&mut *near, 64).await.unwrap().is_empty(), "nothing behind it is read");
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_ends_what_is_read() {
    let (mut near, mut far) = with_bytes(Role::Server, 1024);
    far.write_all(b"\x82\x81\0\0\0\0x\x88\x82\0\0\0\0\x03\xe9\x82\x81\0\0\0\0y").await.unwrap();
    assert_eq!(read(&mut *near, 64).await.unwrap(), b"x");
    assert_eq!(read(&mut *near, 64).await.unwrap(), b"");
    std::future::poll_fn(|cx| near.poll_shutdown(cx)).await.unwrap();
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"\x88\x02\x03\xe9", "once");
}

#[tokio::test]
async fn a_client_leaves_it_to_the_server_to_close_the_connection_first() {
    let (mut near, mut far) = with_bytes(Role::Client, 1024);
    let mut cx = Context::from_waker(Waker::noop());
    // A Close with code 1000, and the connection goes on for a moment.
    far.write_all(&[0x88, 0x02, 0x03, 0xe8]).await.unwrap();
    let read = near.poll_read(&mut cx, &mut [IoSliceMut::new(&mut [0; 16])]);
    assert!(matches!(read, Poll::Ready(Ok(0))), "{read:?}");
    assert!(near.poll_shutdown(&mut cx).is_pending());
    far.shutdown().await.unwrap();
    assert!(matches!(near.poll_shutdown(&mut cx), Poll::Ready(Ok(()))));
}
