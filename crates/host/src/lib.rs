//! Which requests a local HTTP endpoint without a token answers.
//!
//! A web page can reach what listens on its visitor's machine. Browsers keep it from reading answers of another origin,
//! but a page may have its own name resolve to 127.0.0.1 once it is loaded (DNS rebinding), and is then of the same
//! origin as the endpoint. What gives it away is the `Host` header, which has the page's name. So an endpoint answers
//! only to names that no stranger can resolve: loopback, the address that the client connected to, and names that its
//! operator has listed. The rule is the same for web-apps and for the admin endpoint of the tunnel.

mod authority;

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

use authority::Authority;

/// Characters of somebody else's text that an error quotes.
const MAX_QUOTED: usize = 80;

/// Headers by which a proxy says that a request is not its own.
const FORWARDED_HEADERS: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-envoy-external-address",
];

/// The names that an endpoint answers to, besides loopback and its own address.
#[derive(Debug, Clone, Default)]
pub struct Hosts(BTreeSet<String>);

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Its `Host` is a name that this endpoint does not have.
    #[error("this endpoint is not called {0}; call it localhost, or by its address")]
    Host(String),
    /// It comes from a web page of another origin.
    #[error("a web page from another origin may not connect here: {0}")]
    Origin(String),
}

/// A text that is not the name of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a host name; give a name or an address without a port, such as ferry.example.com")]
pub struct NoHost(String);

impl Hosts {
    /// Names, or addresses, without ports. Every port of them is answered to.
    ///
    /// # Errors
    ///
    /// One of them is neither.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, NoHost> {
        let name = |name: S| match Authority::parse(name.as_ref().as_bytes()) {
            Some(authority) if !authority.has_port => Ok(authority.host),
            _ => Err(NoHost(quoted(name.as_ref().as_bytes()))),
        };
        names.into_iter().map(name).collect::<Result<_, _>>().map(Self)
    }

    /// Judges a request that arrived on a connection to the address `local`.
    ///
    /// # Errors
    ///
    /// It is not for this endpoint, or a web page from elsewhere made it.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<(), Foreign> {
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        // A client that sends none is no browser.
        for host in target.into_iter().chain(headers.get_all(HOST).iter().map(|host| host.as_bytes())) {
            let known = Authority::parse(host).is_some_and(|authority| self.knows(&authority, local.to_canonical()));
            if !known {
                return Err(Foreign::Host(quoted(host)));
            }
        }
        same_origin(headers)
    }

    fn knows(&self, authority: &Authority, local: IpAddr) -> bool {
        match authority.address {
            Some(address) => address.is_loopback() || address == local || self.0.contains(&authority.host),
            None => {
                let host = authority.host.as_str();
                host == "localhost" || host.ends_with(".localhost") || self.0.contains(host)
            }
        }
    }
}

/// Refuses what a web page from another origin sends: browsers let pages send requests anywhere, and say where the page is
/// from.
///
/// # Errors
///
/// There is an `Origin`, and it is not the `Host`.
pub fn same_origin(headers: &HeaderMap) -> Result<(), Foreign> {
    let host = headers.get(HOST).and_then(|host| Authority::parse(host.as_bytes()));
    for origin in headers.get_all(ORIGIN) {
        let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let page = page.and_then(|(_, page)| Authority::parse(page.as_bytes()));
        if page.is_none() || page != host {
            return Err(Foreign::Origin(quoted(origin.as_bytes())));
        }
    }
    Ok(())
}

/// The header by which a proxy says that it forwards this request, if there is one.
pub fn forwarded_by(headers: &HeaderMap) -> Option<&'static str> {
    FORWARDED_HEADERS.into_iter().find(|name| headers.contains_key(*name))
}

fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let shown: String = text.chars().take(MAX_QUOTED).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

#[cfg(test)]
mod tests;
