//! The network as the tunnel sees it: what it dials, what it listens on, and byte streams that can be reset.
//!
//! Everything above takes these traits, so that the whole tunnel also runs on a simulated network.

mod stream;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use quinn::AsyncUdpSocket;

pub(crate) use stream::filled;
pub use stream::{BoxFuture, Carrier, Fill, PathCounts, Stream};
pub use tcp::Tcp;

/// Accepts connections.
pub trait Listener: Send + Sync + 'static {
    /// The next connection and where it comes from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;

    /// The socket, for another process to hold a duplicate of.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The listener as one of the runtime that this is called on.
    fn register_here(self: Box<Self>) -> Box<dyn Listener>;
}

/// Where streams come from.
pub trait Network: Send + Sync + 'static {
    /// The addresses of `host` now; a name is looked up anew each time.
    fn resolve(&self, host: String, port: u16) -> BoxFuture<'_, io::Result<Vec<SocketAddr>>>;

    /// A connection to `addr`.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;

    /// A connection to `addr` whose segments are no longer than `largest` bytes, both ways.
    fn connect_with(&self, addr: SocketAddr, largest: Option<u16>) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let _ = largest;
        self.connect(addr)
    }

    /// A listener on `addr`; port 0 is any free one.
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// A socket for datagrams on `addr`, as quinn uses it; port 0 is any free one.
    ///
    /// # Errors
    /// When it cannot be had, or this network has no datagrams.
    fn bind_datagrams(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _ = addr;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether streams may have this congestion control.
    ///
    /// # Errors
    /// Those of [`Stream::set_congestion_control`].
    fn check_congestion_control(&self, name: &str) -> io::Result<()> {
        let _ = name;
        Ok(())
    }

    /// The connection of a process that is gone. `was_reset`: the other end has reset it, which may not be told again.
    ///
    /// # Errors
    /// When this network has none such.
    fn adopt(&self, connection: OwnedFd, was_reset: bool) -> io::Result<Box<dyn Stream>> {
        let _ = (connection, was_reset);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The listener of a process that is gone.
    ///
    /// # Errors
    /// When this network has none such.
    fn adopt_listener(&self, listener: OwnedFd) -> io::Result<Box<dyn Listener>> {
        let _ = listener;
        Err(io::ErrorKind::Unsupported.into())
    }
}
