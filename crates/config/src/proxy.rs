//! The HTTP proxy that a peer is dialled through.

use std::fmt;
use std::str::FromStr;

use crate::address::HostPort;
use crate::report::{ValueError, quoted};

/// How a peer is dialled where connections go out through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proxy {
    /// Without one, whatever the environment says. As text `off`.
    Off,
    /// Through this one, by HTTP CONNECT. As text `http://host:port`.
    Http(HostPort),
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Http(proxy) => write!(f, "http://{proxy}"),
        }
    }
}

impl FromStr for Proxy {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = |hint: &str| ValueError::new(format!("{} is not a proxy", quoted(text)), hint);
        if text == "off" {
            return Ok(Self::Off);
        }
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => return Err(refused("only a proxy that is spoken to in plain HTTP can be used")),
            Some(_) => return Err(refused("write `http://host:port`, or `off`")),
            None => text,
        };
        if rest.contains('@') {
            return Err(refused("write `user:password` into a file, and its path in `proxy_credentials`"));
        }
        rest.parse().map(Self::Http).map_err(|_| refused("write `http://host:port`, or `off`"))
    }
}
