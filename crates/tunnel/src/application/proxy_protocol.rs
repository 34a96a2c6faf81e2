//! HAProxy's PROXY protocol, version 2: what an application is told of a connection before its first byte.

use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};

use crate::sessions::handle::SessionHandle;

/// Types that the protocol leaves to applications (section 2.2.8); `docs/proxy-protocol.md` lists them.
const PEER: u8 = 0xe0;
const SERVICE: u8 = 0xe1;
const SESSION: u8 = 0xe2;

/// The header of a session's connection. Without the addresses at the other end it is of a connection that the tunnel
/// made (LOCAL), whose own addresses count.
pub(crate) fn header(session: &SessionHandle) -> Vec<u8> {
    let id = session.name.id.to_hex();
    let tlvs = [(PEER, session.name.peer.as_str()), (SERVICE, &*session.service), (SESSION, &id)];
    let tlvs = tlvs.map(|(kind, value)| Tlv::Custom(kind, value.as_bytes().into()));
    let addresses = session.origin().map(|origin| ProxiedAddress::stream(origin.source, origin.destination));
    let mut header = Vec::with_capacity(256);
    // It fails only beyond 64 KiB.
    let _ = ProxyHeader::with_tlvs(addresses, tlvs).encode_v2(&mut header);
    header
}
