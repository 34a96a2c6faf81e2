//! Ports of this host that nothing else is given while a test counts on them.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

/// A port of 127.0.0.1. For as long as this lives the system gives it to nobody who asks for any free port, whether
/// something listens there or not; where nothing does, connections are refused.
///
/// What listens there has to set `SO_REUSEADDR`, as all of ours and those of std and tokio do.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    /// Bound, and not listening. Elsewhere than on Linux that would keep the listener out, too.
    _held: Option<OwnedFd>,
}

impl Port {
    /// One that is free.
    #[must_use]
    pub fn reserve() -> Self {
        let (address, socket) = bound();
        Self { address, _held: cfg!(target_os = "linux").then_some(socket) }
    }

    /// Where to listen, or to find nobody.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Where nobody listens for as long as this process lives.
pub fn nobody() -> SocketAddr {
    static NOBODY: LazyLock<(SocketAddr, OwnedFd)> = LazyLock::new(bound);
    NOBODY.0
}

fn bound() -> (SocketAddr, OwnedFd) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = getsockname(&socket).unwrap().try_into().unwrap();
    (address, socket)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_reserved_port_refuses_until_something_listens_and_again_after_it() {
        let port = Port::reserve();
        let refused = || TcpStream::connect(port.address()).map_err(|error| error.kind()).err();
        assert_eq!(refused(), Some(ErrorKind::ConnectionRefused));
        for _ in 0..3 {
            let listener = TcpListener::bind(port.address()).unwrap();
            assert_eq!(refused(), None);
            drop(listener);
            assert_eq!(refused(), Some(ErrorKind::ConnectionRefused));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_reserved_port_is_given_to_nobody_else() {
        let port = Port::reserve();
        let taken: Vec<_> = (0..2_000).map_while(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
        assert!(taken.len() > 100 && taken.iter().all(|other| other.local_addr().unwrap() != port.address()));
    }
}
