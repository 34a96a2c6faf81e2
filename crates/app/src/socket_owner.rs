//! Which local user owns the other end of a loopback connection, from the kernel's socket tables.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP sockets of this network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// State of established connections in these tables.
const ESTABLISHED: &str = "01";

/// The socket is not owned by the expected user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WrongOwner {
    User { found: u32, expected: u32 },
    Unknown,
}

impl fmt::Display for WrongOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { found, expected } => write!(f, "user {found}, not to user {expected}"),
            Self::Unknown => f.write_str("no user that the system knows"),
        }
    }
}

/// Checks who owns the connection from `address` to `local`. Returns `None` if it is the user `expected`, by default the user of
/// this process, or if the system has no such tables.
pub(crate) async fn check_owner(address: SocketAddr, local: SocketAddr, expected: Option<u32>) -> Option<WrongOwner> {
    let mut is_known = false;
    for table in TABLES {
        let Ok(text) = tokio::fs::read_to_string(table).await else { continue };
        is_known = true;
        if let Some(found) = user_of(&text, address, local) {
            let expected = expected.unwrap_or_else(|| rustix::process::geteuid().as_raw());
            return (found != expected).then_some(WrongOwner::User { found, expected });
        }
    }
    is_known.then_some(WrongOwner::Unknown)
}

fn user_of(table: &str, address: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let ends = (canonical(address), canonical(peer));
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (own, other, state) = (end(columns.next()?)?, end(columns.next()?)?, columns.next()?);
        // Skip the queues, the timer and the retransmits.
        let user = columns.nth(3)?;
        if state == ESTABLISHED && (own, other) == ends { user.parse().ok() } else { None }
    })
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Addresses are printed as native-endian 32-bit words.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(8 * index)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_row_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1\n   \
            1: 0100007F:9C40 0100007F:1F40 06 00000000:00000000 00:00000000 00000000     0        0 0 3\n   \
            2: 0100007F:9C40 0100007F:1F40 01 00000000:00000000 02:00000000 00000000  1337        0 2 1\n";
        let [client, server] = ["127.0.0.1:40000", "127.0.0.1:8000"].map(|end| end.parse().unwrap());
        if cfg!(target_endian = "little") {
            assert_eq!(user_of(table, client, server), Some(1337));
            assert_eq!(user_of(table, server, client), None);
        }
    }

    #[tokio::test]
    async fn the_user_at_the_other_end_of_a_connection_is_found() {
        for listen in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            // The machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(listen).await else { continue };
            let port = listener.local_addr().unwrap().port();
            for host in ["127.0.0.1", "::1"] {
                let Ok(_client) = TcpStream::connect((host, port)).await else { continue };
                let (accepted, address) = listener.accept().await.unwrap();
                let local = accepted.local_addr().unwrap();
                let own = rustix::process::geteuid().as_raw();
                assert_eq!(check_owner(address, local, None).await, None, "{listen} {host}");
                let expected = own + 1;
                let other = check_owner(address, local, Some(expected)).await;
                assert_eq!(other, Some(WrongOwner::User { found: own, expected }), "{listen} {host}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_not_there_is_nobodys() {
        let [address, local] = ["127.0.0.1:1", "127.0.0.1:2"].map(|end| end.parse().unwrap());
        assert_eq!(check_owner(address, local, None).await, Some(WrongOwner::Unknown));
    }
}
