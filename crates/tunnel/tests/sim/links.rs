//! What carries the links of a world.

use ferry_config::{Address, Prefer, Tunnel};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Tcp,
    WebSockets,
    Quic,
    /// Addresses of both kinds.
    QuicOrTcp(Prefer),
}

impl Links {
    /// Every link of this end is such, whichever end dials it.
    pub fn carry(self, config: &mut Tunnel) {
        let form = |scheme: &str, address: &Address| format!("{scheme}://{address}").parse().unwrap();
        for peer in &mut config.peers {
            let listed = std::mem::take(&mut peer.addresses);
            peer.addresses = match self {
                Self::Tcp => listed,
                Self::WebSockets => listed.iter().map(|address| form("ws", address)).collect(),
                Self::Quic => listed.iter().map(|address| form("quic", address)).collect(),
                Self::QuicOrTcp(_) => {
                    listed.into_iter().flat_map(|address| [form("quic", &address), address]).collect()
                }
            };
            if let Self::QuicOrTcp(prefer) = self {
                peer.route.prefer = prefer;
            }
        }
        match self {
            Self::Tcp => {}
            Self::WebSockets => config.listen_ws = config.listen.take(),
            Self::Quic => config.listen_quic = config.listen.take(),
            Self::QuicOrTcp(_) => config.listen_quic = config.listen,
        }
    }

    /// Datagrams carry some of them.
    pub fn have_quic(self) -> bool {
        matches!(self, Self::Quic | Self::QuicOrTcp(_))
    }
}
