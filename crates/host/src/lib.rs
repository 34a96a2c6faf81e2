//! Protects local HTTP endpoints without a token from web pages.
//!
//! A web page can send requests to services on its visitor's machine. The same-origin policy stops it from reading the
//! responses, but after DNS rebinding (the page's name now resolves to 127.0.0.1) page and service share an origin. The
//! `Host` header still carries the page's name, so an endpoint accepts only names that an attacker cannot own: loopback
//! names, the address that the client connected to, and names that the operator allows. Web-apps and the tunnel's admin
//! endpoint share this rule, and how they serve a page of their own ([`page`]).

mod authority;
mod page;

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Uri};

use authority::Authority;

pub use page::{page, protect};

/// Most characters of a request's text that an error quotes.
const MAX_QUOTED: usize = 80;

/// Headers that proxies add to requests they forward.
const FORWARDED_HEADERS: [&str; 6] =
    ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];

/// How all the others begin.
const FORWARDED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-envoy-"];

/// Host names accepted in addition to loopback and the endpoint's own address.
#[derive(Debug, Clone, Default)]
pub struct Hosts(BTreeSet<String>);

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// `Host` is not a name of this endpoint.
    #[error("this endpoint is not called {0}; call it localhost, or by its address")]
    Host(String),
    /// The request comes from a web page of another origin.
    #[error("a web page from another origin may not connect here: {0}")]
    Origin(String),
}

/// The text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a host name; give a name or an address without a port, such as ferry.example.com")]
pub struct ParseHostError(String);

impl Hosts {
    /// Names or addresses without a port; they are accepted with any port.
    ///
    /// # Errors
    ///
    /// The first that is neither a name nor an address.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, ParseHostError> {
        let name = |name: S| match Authority::parse(name.as_ref().as_bytes()) {
            Some(authority) if !authority.has_port => Ok(authority.host),
            _ => Err(ParseHostError(quoted(name.as_ref().as_bytes()))),
        };
        names.into_iter().map(name).collect::<Result<_, _>>().map(Self)
    }

    /// Checks a request that arrived on a connection to the address `local`.
    ///
    /// # Errors
    ///
    /// `Host` or `Origin` is not acceptable.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<(), HostError> {
        let target = uri.authority().map(|authority| authority.as_str().as_bytes());
        // Browsers always send `Host`.
        for host in target.into_iter().chain(headers.get_all(HOST).iter().map(|host| host.as_bytes())) {
            let known = Authority::parse(host).is_some_and(|authority| self.knows(&authority, local.to_canonical()));
            if !known {
                return Err(HostError::Host(quoted(host)));
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

/// Refuses requests from web pages of another origin; browsers name the page's origin in `Origin`.
///
/// # Errors
///
/// `Origin` is present and differs from `Host`.
pub fn same_origin(headers: &HeaderMap) -> Result<(), HostError> {
    let host = headers.get(HOST).and_then(|host| Authority::parse(host.as_bytes()));
    for origin in headers.get_all(ORIGIN) {
        let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let page = page.and_then(|(_, page)| Authority::parse(page.as_bytes()));
        if page.is_none() || page != host {
            return Err(HostError::Origin(quoted(origin.as_bytes())));
        }
    }
    Ok(())
}

/// The first header that shows that a proxy forwarded this request.
pub fn forwarded_by(headers: &HeaderMap) -> Option<&str> {
    let is_a_proxys = |name: &&str| {
        FORWARDED_HEADERS.contains(name) || FORWARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    headers.keys().map(HeaderName::as_str).find(is_a_proxys)
}

fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let shown: String = text.chars().take(MAX_QUOTED).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

#[cfg(test)]
mod tests;
