//! Sessions outlive this process: their sockets are also in a keeper, their records and bytes in an arena there.
//!
//! What must be true whenever this process is killed: a session is noted before its service is connected to, what is told to a
//! peer is stored before it leaves, and bytes are acknowledged once the application's kernel has them. `docs/decisions/0062`.

mod adopt;
mod estate;
mod kept;
mod service;
mod step;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ferry_arena::Arena;
use ferry_keeper::{Client, Tag};
use ferry_session::Instance;
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpListener;

pub(crate) use adopt::adopt_all;
pub use estate::can_outlive_a_process;
pub(crate) use estate::{Estate, connect};
pub(crate) use kept::Kept;
pub(crate) use service::attend;
pub(crate) use step::Step;

use crate::net::{BoxFuture, Listener, Network};

/// What a running tunnel needs for its sessions to outlive it.
pub(crate) struct Survival {
    arena: Arena,
    /// Nothing once this tunnel has said that it ends.
    keeper: Mutex<Option<Client>>,
    listeners: Mutex<Listeners>,
    ends_with_keeper: bool,
}

const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);
const ADDRESS_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Listeners {
    /// Those of the process before, until somebody listens there again.
    inherited: HashMap<SocketAddr, OwnedFd>,
    /// Those that the keeper has, to be stored again if it is lost.
    kept: HashMap<SocketAddr, OwnedFd>,
}

/// What a descriptor in the keeper is.
mod tag {
    use std::net::{IpAddr, SocketAddr};

    use ferry_keeper::Tag;

    const SESSION: u8 = b's';
    const LISTENER: u8 = b'l';
    const ARENA: u8 = b'a';

    pub(super) fn arena() -> Tag {
        tag(ARENA, &[])
    }

    pub(super) fn session(key: u64) -> Tag {
        tag(SESSION, &key.to_be_bytes())
    }

    pub(super) fn listener(address: SocketAddr) -> Tag {
        let (ip, family) = match address.ip() {
            IpAddr::V4(ip) => (ip.to_ipv6_mapped().octets(), 4),
            IpAddr::V6(ip) => (ip.octets(), 6),
        };
        tag(LISTENER, &[&[family][..], &ip, &address.port().to_be_bytes()].concat())
    }

    fn tag(kind: u8, name: &[u8]) -> Tag {
        let mut bytes = [0; 32];
        bytes[0] = kind;
        bytes[1..=name.len()].copy_from_slice(name);
        Tag(bytes)
    }

    pub(super) fn session_of(tag: &Tag) -> Option<u64> {
        let (key, rest) = tag.0[1..].split_first_chunk()?;
        (tag.0[0] == SESSION && rest.iter().all(|byte| *byte == 0)).then(|| u64::from_be_bytes(*key))
    }

    pub(super) fn listener_of(tag: &Tag) -> Option<SocketAddr> {
        let (family, rest) = tag.0[1..].split_first()?;
        let (ip, rest) = rest.split_first_chunk::<16>()?;
        let (port, _) = rest.split_first_chunk()?;
        let ip = std::net::Ipv6Addr::from(*ip);
        let ip = if *family == 4 { ip.to_ipv4_mapped()?.into() } else { IpAddr::V6(ip) };
        (tag.0[0] == LISTENER).then(|| SocketAddr::new(ip, u16::from_be_bytes(*port)))
    }
}

/// Listens on `address`, for as long as there is a keeper also beyond the end of this process.
pub(crate) async fn bind(
    survival: Option<&Survival>,
    network: &dyn Network,
    address: SocketAddr,
) -> io::Result<Box<dyn Listener>> {
    match survival {
        Some(survival) => {
            let (adopt, bind) = (|listener| network.adopt_listener(listener), || network.bind(address));
            survival.bind(address, adopt, bind, |listener| listener.descriptor()).await
        }
        None => network.bind(address).await,
    }
}

/// As [`bind`], for what HTTP is served on.
pub(crate) async fn bind_http(survival: Option<&Survival>, address: SocketAddr) -> io::Result<TcpListener> {
    match survival {
        Some(survival) => {
            let adopt = |listener: OwnedFd| TcpListener::from_std(listener.into());
            survival
                .bind(address, adopt, || Box::pin(TcpListener::bind(address)), |listener| Some(listener.as_fd()))
                .await
        }
        None => TcpListener::bind(address).await,
    }
}

impl Survival {
    /// Which tunnel this is, whichever process runs it.
    pub(crate) fn instance(&self) -> Instance {
        self.arena.instance()
    }

    /// Listens on `address`: on where the process before did, if it did, so that who connected meanwhile is served.
    async fn bind<'a, L>(
        &self,
        address: SocketAddr,
        adopt: impl FnOnce(OwnedFd) -> io::Result<L>,
        bind: impl Fn() -> BoxFuture<'a, io::Result<L>>,
        descriptor: impl Fn(&L) -> Option<BorrowedFd<'_>>,
    ) -> io::Result<L> {
        let inherited = self.listeners().inherited.remove(&address);
        let listener = match inherited {
            Some(listener) => adopt(listener)?,
            None => self.bind_new(bind).await?,
        };
        // A port that the system chooses is another one next time.
        if let Some(descriptor) = descriptor(&listener).filter(|_| address.port() != 0) {
            self.store(&tag::listener(address), &descriptor);
            self.listeners().kept.insert(address, descriptor.try_clone_to_owned()?);
        }
        Ok(listener)
    }

    /// A tunnel whose parent was killed ends a moment later: what follows it at once finds the address in use until then.
    async fn bind_new<'a, L>(&self, bind: impl Fn() -> BoxFuture<'a, io::Result<L>>) -> io::Result<L> {
        let until = Instant::now() + ADDRESS_TIMEOUT;
        loop {
            let bound = bind().await;
            let is_used = bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
            if !is_used || !self.ends_with_keeper || Instant::now() >= until {
                return bound;
            }
            tokio::time::sleep(ADDRESS_INTERVAL).await;
        }
    }

    /// Nobody listens on `address` any more.
    pub(crate) fn unbind(&self, address: SocketAddr) {
        self.listeners().kept.remove(&address);
        self.remove(&tag::listener(address));
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock()
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Client>> {
        self.keeper.lock()
    }

    /// Has the keeper hold a duplicate. If it cannot, the next process finds nothing there, and resets the session.
    fn store(&self, tag: &Tag, descriptor: &impl AsFd) {
        if let Some(keeper) = self.keeper().as_mut() {
            let _ = keeper.store(tag, descriptor.as_fd());
        }
    }

    /// What the keeper does not drop now it drops with everything else, or has the next process drop.
    fn remove(&self, tag: &Tag) {
        if let Some(keeper) = self.keeper().as_mut() {
            let _ = keeper.remove(tag);
        }
    }

    /// What the process before listened on and this one does not is closed.
    pub(crate) fn close_unused_listeners(&self) {
        let unused: Vec<_> = self.listeners().inherited.drain().collect();
        unused.iter().for_each(|(address, _)| self.remove(&tag::listener(*address)));
    }

    /// The tunnel has adopted what it could, and serves.
    pub(crate) fn ready(&self) {
        if let Some(keeper) = self.keeper().as_mut() {
            let _ = keeper.ready();
        }
    }

    /// The tunnel ends in good order, and nobody takes over.
    pub(crate) fn finish(&self) {
        if let Some(keeper) = self.keeper().take() {
            let _ = keeper.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use ferry_golden::{Golden, hex, unhex};

    use super::*;

    /// What the next build has to find in the keeper. An arena of another format is found by the same tag.
    #[test]
    fn tags_are_as_in_their_golden_file_and_those_are_known() {
        let addresses = ["127.0.0.1:18001", "0.0.0.0:9", "[2001:db8::1:2]:65535"].map(|text| text.parse().unwrap());
        let mut text =
            format!("arena {}\nsession {}\n", hex(&tag::arena().0), hex(&tag::session(0x0102_0304_0506_0708).0));
        for address in addresses {
            text += &format!("listener {address} {}\n", hex(&tag::listener(address).0));
        }
        let raise =
            "the first byte of a tag, of which there is none for a version, in crates/tunnel/src/survival/mod.rs";
        let golden = Golden::of(env!("CARGO_MANIFEST_DIR"), "tags", "txt", raise);
        golden.hold(1, &text);
        let text = golden.read(1);
        let mut tags = text.lines().map(|line| Tag(unhex(line.rsplit(' ').next().unwrap()).try_into().unwrap()));
        assert_eq!(tags.next(), Some(tag::arena()));
        assert_eq!(tags.next().and_then(|tag| tag::session_of(&tag)), Some(0x0102_0304_0506_0708));
        assert_eq!(tags.map(|tag| tag::listener_of(&tag)).collect::<Vec<_>>(), addresses.map(Some));
    }
}
