//! The host and port in a `Host` header, an origin, or a request's target.

use std::net::{IpAddr, Ipv6Addr};

/// A host and an optional port; equal if both are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Lower case, without a trailing dot; addresses in their canonical form.
    pub(crate) host: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) has_port: bool,
    port: u16,
}

impl Authority {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            // A bare IPv6 address, as an operator may write it.
            None if text.parse::<Ipv6Addr>().is_ok() => (text, ""),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let address = if text.starts_with('[') { host.parse::<Ipv6Addr>().map(IpAddr::from) } else { host.parse() };
        let address = address.ok().map(|address: IpAddr| address.to_canonical());
        let host = match address {
            Some(address) => address.to_string(),
            None if text.starts_with('[') => return None,
            None => name(host)?,
        };
        let has_port = !port.is_empty();
        let port = if has_port { number(port.strip_prefix(':')?)? } else { 0 };
        Some(Self { host, address, has_port, port })
    }
}

fn name(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let fits = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    fits.then(|| host.to_ascii_lowercase())
}

fn number(port: &str) -> Option<u16> {
    if port.bytes().all(|byte| byte.is_ascii_digit()) { port.parse().ok() } else { None }
}
