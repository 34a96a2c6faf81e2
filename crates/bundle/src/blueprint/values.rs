//! The texts that a blueprint is made of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ferry_config::{HostPort, ValueError, quoted};

/// The longest label, in bytes (RFC 1123).
const MAX_LABEL_LEN: usize = 63;

/// A name that Kubernetes takes for anything, Services included: `[a-z]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// The name of an object of Kubernetes: labels of lower-case letters, digits and `-`, parted by dots, at most 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName(String);

/// What the name of an image begins with: a repository, perhaps behind a registry, without a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName(String);

/// The tag of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

/// A range of IP addresses: `192.0.2.0/24`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cidr(String);

/// A host name or IP address, with a port or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A host name, or an IP address; IPv6 without brackets.
    pub host: String,
    /// The port, where it is not the cluster's.
    pub port: Option<u16>,
}

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Label {
    /// This label with `suffix` behind a dash. `None` if that is too long, or not a label.
    pub(crate) fn joined(&self, suffix: &Label) -> Option<Self> {
        format!("{self}-{suffix}").parse().ok()
    }
}

impl Host {
    /// The host with its port, or with `port` if it has none of its own.
    pub fn with_port(&self, port: u16) -> HostPort {
        HostPort { host: self.host.clone(), port: self.port.unwrap_or(port) }
    }
}

impl FromStr for Label {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let letter = |b: u8| b.is_ascii_lowercase();
        let plain = |b: u8| letter(b) || b.is_ascii_digit() || b == b'-';
        let bytes = text.as_bytes();
        let fits = bytes.len() <= MAX_LABEL_LEN
            && bytes.iter().all(|&b| plain(b))
            && bytes.first().is_some_and(|&b| letter(b))
            && bytes.last().is_some_and(|&b| b != b'-');
        if !fits {
            let hint = "use at most 63 lower-case letters, digits and `-`, with a letter first and no `-` last";
            return Err(ValueError::new(format!("{} is not a name for Kubernetes", quoted(text)), hint));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for ObjectName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let label = |label: &str| {
            let bytes = label.as_bytes();
            (1..=MAX_LABEL_LEN).contains(&bytes.len())
                && bytes.iter().all(|b| word(b) || *b == b'-')
                && [bytes.first(), bytes.last()].into_iter().flatten().all(word)
        };
        if text.len() > 253 || !text.split('.').all(label) {
            let hint = "use lower-case letters, digits, `-` and `.`, with a letter or digit first and last";
            return Err(ValueError::new(format!("{} is not a name in Kubernetes", quoted(text)), hint));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for ImageName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = |hint: &str| Err(ValueError::new(format!("{} is not an image", quoted(text)), hint));
        let (registry, path) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, text),
        };
        let host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
        if registry.is_some_and(|registry| !registry.bytes().all(host) || registry.starts_with([':', '.', '-'])) {
            return refused("write the registry as a host name, with a port if it needs one");
        }
        if path.contains('@') || path.contains(':') {
            return refused("write it without a tag or a digest; the tag goes into `tag`");
        }
        // Room for `-<pod>`.
        if text.len() > 180 {
            return refused("the name is too long");
        }
        match path.split('/').all(component) {
            true => Ok(Self(text.to_owned())),
            false => refused("use lower-case letters and digits, parted by single `.`, `_`, `-` or `/`"),
        }
    }
}

impl FromStr for Tag {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let plain = |b: u8| word(b) || b == b'.' || b == b'-';
        let bytes = text.as_bytes();
        if bytes.len() > 128 || !bytes.iter().all(|&b| plain(b)) || !bytes.first().is_some_and(|&b| word(b)) {
            let hint = "use at most 128 letters, digits, `_`, `.` and `-`, with none of `.` and `-` first";
            return Err(ValueError::new(format!("{} is not a tag", quoted(text)), hint));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let plain = (1..=3).contains(&bits.len()) && bits.bytes().all(|b| b.is_ascii_digit());
            let bits = bits.parse::<u8>().ok().filter(|bits| plain && *bits <= most)?;
            Some(Self(format!("{address}/{bits}")))
        });
        parsed.ok_or_else(|| {
            let hint = "write a range such as `192.0.2.0/24`, or `192.0.2.7/32` for a single address";
            ValueError::new(format!("{} is not a range of addresses", quoted(text)), hint)
        })
    }
}

impl FromStr for Host {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // An IPv6 address is all colons, and needs no brackets where there is no port behind it.
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: None });
        }
        let bare = match text.rsplit_once(':') {
            Some((_, port)) => port.ends_with(']'),
            None => true,
        };
        let whole = if bare { format!("{text}:1") } else { text.to_owned() };
        let refused = |error: ValueError| ValueError::new(format!("{} is not an address", quoted(text)), error.hint);
        let HostPort { host, port } = whole.parse().map_err(refused)?;
        Ok(Self { host, port: (!bare).then_some(port) })
    }
}

/// Whether `text` may stand between two slashes in the name of an image.
fn component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(|&b| word(b)) && bytes.last().is_some_and(|&b| word(b));
    let plain = bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'_' | b'-'));
    // Two underscores or any number of dashes would be allowed too, and nobody misses them.
    let single = bytes.windows(2).all(|pair| word(pair[0]) || word(pair[1]));
    edges && plain && single
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
