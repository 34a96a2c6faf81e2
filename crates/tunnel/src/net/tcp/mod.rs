//! TCP and UDP as the system has them.

#[cfg(target_os = "linux")]
mod info;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::libc;
#[cfg(target_os = "linux")]
use nix::sys::socket::setsockopt;
#[cfg(target_os = "linux")]
use nix::sys::socket::sockopt::SetStruct;
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Id};

#[cfg(target_os = "linux")]
use super::PathCounts;
use super::{BoxFuture, Listener, Network, Stream};

/// Connections that wait to be accepted: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A local leg whose application's host is gone is noticed after a minute or two.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long an application's host may leave bytes or window probes unacknowledged. One whose application does not read
/// acknowledges them.
const LOCAL_USER_TIMEOUT: Duration = Duration::from_secs(120);

/// `SO_RCVLOWAT`: how many received bytes make a socket readable.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
struct ReceiveLowWater;

#[cfg(target_os = "linux")]
nix::setsockopt_impl!(ReceiveLowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, i32, SetStruct<'_, i32>);

/// What the names of congestion controls begin with that no lost packet slows down: BBR and its versions.
#[cfg(target_os = "linux")]
const BEARS_LOSS: &[u8] = b"bbr";

/// What the kernel keeps of datagrams that were not read or sent yet, where it may: by default it is 208 KiB, for all
/// links of a socket.
const DATAGRAM_BUFFER: usize = 4 * 1024 * 1024;

/// The kernel's TCP, and its UDP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.connect_with(addr, None)
    }

    fn connect_with(&self, addr: SocketAddr, largest: Option<u16>) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = start_connect(addr, largest)?;
            stream.writable().await?;
            let was_reset = match stream.take_error()? {
                None => false,
                Some(error) if RESET_AFTER_CONNECT.contains(&error.kind()) => true,
                Some(error) => return Err(error),
            };
            Ok(Box::new(Connection { was_reset, ..Connection::new(stream) }) as Box<dyn Stream>)
        })
    }

    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(listener(addr)?) as Box<dyn Listener>) })
    }

    fn bind_datagrams(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // With less it is slower, not wrong: more is for net.core.rmem_max and wmem_max to allow.
        let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER);
        let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER);
        socket.bind(&addr.into())?;
        // With what the kernel has to send and receive many datagrams at once.
        TokioRuntime.wrap_udp_socket(socket.into())
    }

    #[cfg(target_os = "linux")]
    fn check_congestion_control(&self, name: &str) -> io::Result<()> {
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?.set_tcp_congestion(name.as_bytes())
    }

    fn adopt(&self, connection: OwnedFd, was_reset: bool) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::from_std(connection.into())?;
        Ok(Box::new(Connection { was_reset, ..Connection::new(stream) }))
    }

    fn adopt_listener(&self, listener: OwnedFd) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::from_std(listener.into())?))
    }
}

/// What a connection has failed with that was made, and reset before anybody looked: a refusal is something else. What
/// came before the reset can be read.
const RESET_AFTER_CONNECT: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];

/// A connection that is being made. It is made, or has failed, once it is writable.
fn start_connect(addr: SocketAddr, largest: Option<u16>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    prepare(SockRef::from(&socket))?;
    #[cfg(unix)]
    if let Some(largest) = largest {
        // Before it connects: the other end is told to keep to it, too.
        socket.set_tcp_mss(largest.into())?;
    }
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    }
}

fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // What it accepts has these from it: so many system calls that a new session does not wait for.
    prepare(SockRef::from(&socket))?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // Else the kernel takes an urgent byte out of the stream, and it is lost.
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, addr) = TcpListener::accept(self).await?;
            Ok((Box::new(Connection::new(stream)) as Box<dyn Stream>, addr))
        })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    fn register_here(self: Box<Self>) -> Box<dyn Listener> {
        match self.into_std().and_then(TcpListener::from_std) {
            Ok(listener) => Box::new(listener),
            Err(error) => Box::new(Lost(error.kind())),
        }
    }
}

/// A connection, and the runtime that is told of its bytes.
struct Connection {
    stream: TcpStream,
    home: Id,
    /// It was reset before it could be read. The kernel tells of that once, and it has.
    was_reset: bool,
    /// It is an application's.
    is_local: bool,
    /// Closing it without having ended it resets it.
    resets: bool,
    /// Another process has a duplicate.
    is_shared: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            home: Handle::current().id(),
            was_reset: false,
            is_local: false,
            resets: false,
            is_shared: false,
        }
    }
}

impl Connection {
    /// `count` bytes were read: 0 is the end, or the reset that the kernel has told of before.
    fn read(&self, count: usize) -> io::Result<usize> {
        if count == 0 && self.was_reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(count) }
    }
}

impl Stream for Connection {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        // With one buffer tokio takes a short read for an empty socket, which saves asking it again. An application's may
        // end at an urgent byte with more behind it.
        if let [buf] = bufs
            && !self.is_local
        {
            let mut buf = ReadBuf::new(buf);
            ready!(AsyncRead::poll_read(Pin::new(&mut self.stream), cx, &mut buf))?;
            return Poll::Ready(self.read(buf.filled().len()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.and_then(|count| self.read(count))),
            }
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.poll_read_ready(cx).is_ready()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // The kernel is quicker with one buffer that is not in a list.
        if let [buf] = bufs {
            return AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf);
        }
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.resets) {
            // A socket that is beyond this has been reset already.
            let _ = SockRef::from(&self.stream).set_linger(None);
        }
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }

    fn set_unsent_limit(&mut self, bytes: u32) {
        // Without it control frames wait behind more data: slower, not wrong.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(bytes);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = bytes;
    }

    fn grow_receive_buffer(&mut self, bytes: u32) {
        // SO_RCVBUF would end the kernel's own growing, and is bounded lower. Asking to be woken for no less than `bytes`
        // makes the room for them, and it stays when that is taken back.
        #[cfg(target_os = "linux")]
        for least in [i32::try_from(bytes).unwrap_or(i32::MAX), 1] {
            // Without it the first round trips are slower, not wrong.
            let _ = setsockopt(&self.stream, ReceiveLowWater, &least);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }

    #[cfg(target_os = "linux")]
    fn set_congestion_control(&mut self, name: &str) -> io::Result<()> {
        SockRef::from(&self.stream).set_tcp_congestion(name.as_bytes())
    }

    fn tune_for_loopback(&mut self) {
        self.is_local = true;
        // Without it the kernel tries for a quarter of an hour.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(LOCAL_USER_TIMEOUT));
        // BBR sets a timer for each segment, also within a host. Reno, which every kernel has and allows, sets none.
        #[cfg(target_os = "linux")]
        if self.stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
            let _ = SockRef::from(&self.stream).set_tcp_congestion(b"reno");
        }
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        if self.home == Handle::current().id() {
            return self;
        }
        let Self { stream, was_reset, is_local, resets, is_shared, .. } = *self;
        match stream.into_std().and_then(TcpStream::from_std) {
            Ok(stream) => {
                let home = Handle::current().id();
                Box::new(Self { stream, home, was_reset, is_local, resets, is_shared })
            }
            Err(error) => Box::new(Lost(error.kind())),
        }
    }

    #[cfg(target_os = "linux")]
    fn undelivered(&self) -> u64 {
        info::undelivered(&self.stream)
    }

    #[cfg(target_os = "linux")]
    fn path(&self) -> Option<PathCounts> {
        let congestion = SockRef::from(&self.stream).tcp_congestion().unwrap_or_default();
        info::path(&self.stream, congestion.starts_with(BEARS_LOSS))
    }

    fn failure(&self) -> BoxFuture<'static, io::Error> {
        // A descriptor of its own: what waits for an error must not take the stream's events.
        let watched = SockRef::from(&self.stream).try_clone().and_then(|socket| TcpStream::from_std(socket.into()));
        Box::pin(async move {
            let failed = async {
                let stream = watched?;
                stream.ready(Interest::ERROR).await?;
                stream.take_error()
            };
            match failed.await {
                Ok(error) => error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
                // No descriptor is left to watch with: it is found out when there is something to read or write.
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn reset_unless_ended(&mut self) {
        self.resets = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).is_ok();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream.as_fd())
    }

    fn share(&mut self) {
        self.is_shared = true;
    }

    fn reset_on_drop(&mut self) {
        // Nothing to be done about a socket that is beyond this.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        if self.is_shared {
            let _ = ferry_arena::reset(self.stream.as_fd());
        }
    }
}

/// What the system had no room for any more when it was to be registered anew.
struct Lost(io::ErrorKind);

impl Listener for Lost {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async { Err(self.0.into()) })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(self.0.into())
    }

    fn register_here(self: Box<Self>) -> Box<dyn Listener> {
        self
    }
}

impl Stream for Lost {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(self.0.into()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(self.0.into()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.0.into()))
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;
