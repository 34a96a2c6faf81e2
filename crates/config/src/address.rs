//! Where sockets connect to and listen.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ferry_units::{parse_duration, render_duration};

use crate::report::{ValueError, quoted};

/// A host name or IP address, and a port that is not 0.
///
/// As text `host:port`, an IPv6 address in brackets: `[::1]:80`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A host name, or an IP address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Where a WebSocket is opened: `wss://host[:port][/path][#max_life=30s]`, or `ws://` without TLS around it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WebSocketUrl {
    /// `wss`: the endpoint proves its name by a certificate.
    pub secure: bool,
    /// The endpoint; the port is 443 or 80 if none is written.
    pub endpoint: HostPort,
    /// The path, from the slash on; [`WebSocketUrl::PATH`] if none is written.
    pub path: String,
    /// What is on the way ends the WebSocket after this long. It is not sent, as nothing behind a `#` is.
    pub max_life: Option<Duration>,
}

/// Where a peer may be dialled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TLS over TCP to this address.
    HostPort(HostPort),
    /// A WebSocket to this endpoint, with the same TLS inside.
    WebSocket(WebSocketUrl),
    /// QUIC over UDP to this address, with the same TLS inside.
    Quic(HostPort),
    /// The addresses in this file, one a line, without further files. It need not exist yet, and may change at any time.
    File(PathBuf),
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostPort(address) => address.fmt(f),
            Self::WebSocket(url) => url.fmt(f),
            Self::Quic(address) => write!(f, "quic://{address}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl WebSocketUrl {
    /// The path of a URL that has none, and where a tunnel accepts WebSockets unless it is told otherwise.
    pub const PATH: &str = "/ferry";

    /// What a life of WebSockets may be: with less there is hardly time to leave one for another.
    pub const MAX_LIFE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "wss" } else { "ws" }, self.endpoint, self.path)?;
        match self.max_life {
            Some(life) => write!(f, "#{MAX_LIFE_KEY}{}", render_duration(life)),
            None => Ok(()),
        }
    }
}

/// `host:port`, with or without `tcp://`, `quic://host:port`, or a WebSocket's URL. A file is not read from text alone.
impl FromStr for Address {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once("://") {
            None => text.parse().map(Self::HostPort),
            Some(("tcp", rest)) => rest.parse().map(Self::HostPort),
            Some(("quic", rest)) => rest.parse().map(Self::Quic),
            Some(("ws", rest)) => websocket_url(text, false, rest).map(Self::WebSocket),
            Some(("wss", rest)) => websocket_url(text, true, rest).map(Self::WebSocket),
            Some(_) => Err(ValueError::new(
                format!("{} is not an address", quoted(text)),
                "write host:port, or a URL that begins with `tcp://`, `quic://`, `ws://` or `wss://`",
            )),
        }
    }
}

/// What a WebSocket's URL says behind its `#`.
const MAX_LIFE_KEY: &str = "max_life=";

fn websocket_url(text: &str, secure: bool, rest: &str) -> Result<WebSocketUrl, ValueError> {
    let refused = |hint: &str| ValueError::new(format!("{} is not a WebSocket's URL", quoted(text)), hint);
    let (rest, max_life) = match rest.split_once('#') {
        None => (rest, None),
        Some((rest, told)) => {
            let life = told.strip_prefix(MAX_LIFE_KEY).and_then(parse_duration);
            let life = life.filter(|life| WebSocketUrl::MAX_LIFE.contains(life));
            (rest, Some(life.ok_or_else(|| refused("behind a `#` goes `max_life=` and a duration from 10s to 24h"))?))
        }
    };
    let (endpoint, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, WebSocketUrl::PATH),
    };
    if !is_url_path(path) {
        return Err(refused("a path is of printable ASCII without spaces, `?` and `#`"));
    }
    if endpoint.contains('@') {
        return Err(refused("leave user and password out: peers prove themselves by their keys"));
    }
    let has_port = endpoint.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let endpoint = match has_port {
        true => endpoint.parse()?,
        false => format!("{endpoint}:{}", if secure { 443 } else { 80 }).parse()?,
    };
    Ok(WebSocketUrl { secure, endpoint, path: path.to_owned(), max_life })
}

/// Whether this may stand in an HTTP request as the path.
pub(crate) fn is_url_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'))
}

impl FromStr for HostPort {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = |hint: &str| {
            let message = format!("{} is not an address", quoted(text));
            Err(ValueError::new(message, hint))
        };
        if let Some(hint) = unbracketed(text) {
            return refused(&hint);
        }
        if text.contains("://") {
            return refused("write host:port alone, without a scheme");
        }
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            return refused("write host:port, such as `b.example.com:30200`");
        };
        let port = match port_number(port) {
            Some(0) => return refused("port 0 cannot be connected to"),
            Some(port) => port,
            None => return refused("a port is a number from 1 to 65535"),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => return refused("only an IPv6 address goes in brackets"),
            None if host_name(host) => host,
            None => return refused("a host is a DNS name or an IP address"),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Reads where to listen: an IP address and a port, which may be 0 for any free one.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| {
        let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
        let hint = match unbracketed(text) {
            Some(hint) => hint,
            None if port_number(port).is_some() => format!(
                "write an IP address and a port: `127.0.0.1:{port}` for this host alone, `0.0.0.0:{port}` for all \
                 interfaces"
            ),
            None => "write an IP address and a port, such as `127.0.0.1:18001`".into(),
        };
        ValueError::new(format!("{} is not an address to listen on", quoted(text)), hint)
    })
}

/// What to write instead, if this is an IPv6 address without its brackets, with or without a port.
fn unbracketed(text: &str) -> Option<String> {
    if text.parse::<Ipv6Addr>().is_ok() || text.matches(':').count() > 1 && !text.starts_with('[') {
        let (host, port) = text.rsplit_once(':')?;
        let (host, port) = match host.parse::<Ipv6Addr>() {
            Ok(_) => (host, port),
            Err(_) => (text, "PORT"),
        };
        host.parse::<Ipv6Addr>().ok()?;
        return Some(format!("an IPv6 address goes in brackets: `[{host}]:{port}`"));
    }
    None
}

fn port_number(text: &str) -> Option<u16> {
    // `u16::from_str` alone would also take a plus sign.
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether this is an IPv4 address or a name that DNS could know. Underscores are not in the standard but in use.
pub(crate) fn host_name(host: &str) -> bool {
    if host.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    host.len() <= 254
        && labels.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(plain))
        // `10.0.0` or `300.1.1.1`: meant as an IPv4 address, and no top-level domain is a number.
        && !labels.rsplit('.').next().is_some_and(numeric)
}
