//! Where a connection comes from, as closely as an address tells two senders apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One sender: an IPv4 address, or an IPv6 /64, of which a single host has every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source(IpAddr);

/// Senders that probably belong together: an IPv4 /24, or an IPv6 /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Network(IpAddr);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => prefix(address, 64),
        })
    }

    pub(super) fn network(self) -> Network {
        Network(match self.0 {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
            IpAddr::V6(address) => prefix(address, 48),
        })
    }
}

fn prefix(address: Ipv6Addr, length: u32) -> IpAddr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_whole_ipv6_64_is_one_sender_and_an_ipv4_address_is_another_in_either_form() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn senders_belong_together_by_24_and_48_bits() {
        assert_eq!(source("192.0.2.1").network(), source("192.0.2.254").network());
        assert_ne!(source("192.0.2.1").network(), source("192.0.3.1").network());
        assert_eq!(source("2001:db8:1:2::1").network(), source("2001:db8:1:ffff::1").network());
        assert_ne!(source("2001:db8:1::1").network(), source("2001:db8:2::1").network());
    }
}
