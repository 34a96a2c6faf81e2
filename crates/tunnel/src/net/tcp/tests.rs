use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;

use super::*;

nix::getsockopt_impl!(ReceiveLowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, i32, GetStruct<i32>);

#[tokio::test]
async fn a_stream_has_room_from_its_beginning_on_and_is_readable_with_one_byte() {
    let room = 1024 * 1024;
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
    let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let mut connection = Connection::new(stream);
    connection.grow_receive_buffer(room);
    let size = SockRef::from(&connection.stream).recv_buffer_size().expect("its size");
    assert!(size >= room as usize, "{size} bytes");
    assert_eq!(getsockopt(&connection.stream, ReceiveLowWater), Ok(1));
}

/// A connection of ours, and the other end of it.
async fn connection() -> io::Result<(Box<dyn Stream>, TcpStream)> {
    let other = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let connecting = Tcp.connect(other.local_addr()?);
    let (ours, accepted) = tokio::join!(connecting, other.accept());
    Ok((ours?, accepted?.0))
}

#[tokio::test]
async fn the_kernel_tells_of_the_path() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut ours, mut other) = connection().await.expect("a connection");
    let before = ours.path().expect("Linux 5.4 or later");
    write(&mut *ours, &[7; 1000]).await.expect("room");
    other.read_exact(&mut [0; 1000]).await.expect("all of it");
    let path = ours.path().expect("told");
    assert_eq!((path.sent - before.sent, path.lost, path.early), (1, 0, 0));
    assert_eq!((path.sent_bytes - before.sent_bytes, path.received_bytes), (1000, 0));
    other.write_all(&[7; 300]).await.expect("room");
    std::future::poll_fn(|cx| ours.poll_read(cx, &mut [IoSliceMut::new(&mut [0; 300])])).await.expect("all of it");
    assert_eq!(ours.path().expect("told").received_bytes, 300);
    assert!(path.least_round_trip <= path.round_trip && path.round_trip < Duration::from_secs(1), "{path:?}");
    assert!(path.segment >= 536 && !path.round_trip.is_zero(), "{path:?}");
    ours.set_congestion_control("reno").expect("allowed");
    assert!(!ours.path().expect("told").bears_loss);
}

async fn write(stream: &mut dyn Stream, bytes: &[u8]) -> io::Result<usize> {
    std::future::poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(bytes)])).await
}

#[tokio::test]
async fn what_is_not_ended_in_order_is_reset() {
    use tokio::io::AsyncReadExt;
    let (mut ours, mut other) = connection().await.expect("a connection");
    ours.reset_unless_ended();
    write(&mut *ours, b"half of it").await.expect("room");
    drop(ours.register_here());
    let error = other.read_to_end(&mut Vec::new()).await.expect_err("no proper end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_ended_in_order_arrives_whole() {
    use tokio::io::AsyncReadExt;
    let (mut ours, mut other) = connection().await.expect("a connection");
    ours.reset_unless_ended();
    let sent = vec![7; 100_000];
    assert_eq!(write(&mut *ours, &sent).await.expect("room"), sent.len());
    std::future::poll_fn(|cx| ours.poll_shutdown(cx)).await.expect("ended");
    drop(ours);
    let mut received = Vec::new();
    other.read_to_end(&mut received).await.expect("a proper end");
    assert_eq!(received.len(), sent.len());
}

#[tokio::test]
async fn a_connection_has_the_congestion_control_that_is_asked_for_and_an_unknown_one_is_refused() {
    let (mut ours, _other) = connection().await.expect("a connection");
    // Every kernel has it and allows it.
    ours.set_congestion_control("reno").expect("allowed");
    let socket = Socket::from(ours.descriptor().expect("a socket").try_clone_to_owned().expect("a file"));
    let name = socket.tcp_congestion().expect("its option");
    assert_eq!(name.split(|byte| *byte == 0).next(), Some(&b"reno"[..]));
    Tcp.check_congestion_control("reno").expect("allowed");
    let refused = Tcp.check_congestion_control("there_is_none").expect_err("not there");
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    assert!(ours.set_congestion_control("there_is_none").is_err());
}

#[tokio::test]
async fn what_a_listener_accepts_does_not_wait_for_more_and_notices_a_host_that_is_gone() {
    let listener = listener((std::net::Ipv4Addr::LOCALHOST, 0).into()).expect("a listener");
    let connecting = TcpStream::connect(listener.local_addr().expect("an address"));
    let (accepted, _connected) = tokio::join!(listener.accept(), connecting);
    let (stream, _) = accepted.expect("a connection");
    let socket = SockRef::from(&stream);
    assert!(socket.tcp_nodelay().expect("its option"));
    assert!(socket.keepalive().expect("its option"));
    assert_eq!(socket.tcp_keepalive_time().expect("its option"), KEEPALIVE);
    assert_eq!(socket.tcp_keepalive_interval().expect("its option"), KEEPALIVE / 4);
}
