//! Names of tunnels and of services.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::address::host_name;
use crate::report::{ValueError, quoted};

/// The longest name, in bytes: as long as a DNS name may be.
pub const MAX_NAME_LEN: usize = 253;

/// The name of a tunnel: `cluster-a/initiator`.
///
/// Matches `[a-z0-9][a-z0-9./-]*` and is at most [`MAX_NAME_LEN`] bytes long. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The name of a service that an ingress offers and an egress asks for: `terminator`.
///
/// Same syntax as [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// A name that DNS could know, as a ClientHello carries it (RFC 6066 §3): no IP address and no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Box<str>);

impl DnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if host_name(text) && !text.ends_with('.') && text.parse::<IpAddr>().is_err() {
            return Ok(Self(text.into()));
        }
        let hint = "write a DNS name, such as `b.example.com`; an IP address is no server name";
        Err(ValueError::new(format!("{} is not a server name", quoted(text)), hint))
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        checked(text).map(Self)
    }
}

impl FromStr for ServiceName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        checked(text).map(Self)
    }
}

fn checked(text: &str) -> Result<Arc<str>, ValueError> {
    const SYNTAX: &str = "use lower-case letters, digits, `.`, `/` and `-`, starting with a letter or digit";
    let starts = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.is_empty() {
        return Err(ValueError::new("an empty name", SYNTAX));
    }
    if text.len() > MAX_NAME_LEN {
        let message = format!("{} is {} bytes long", quoted(text), text.len());
        return Err(ValueError::new(message, format!("a name has at most {MAX_NAME_LEN}")));
    }
    if !text.starts_with(starts) || text.contains(|c| !starts(c) && !matches!(c, '.' | '/' | '-')) {
        let message = format!("{} is not a name", quoted(text));
        return Err(ValueError::new(message, SYNTAX));
    }
    Ok(text.into())
}
