//! HTTP CONNECT (RFC 9110 §9.3.6): asking a proxy for a connection to a peer.

use std::sync::Arc;

use base64::Engine as _;
use ferry_config::{HostPort, Secret};
use thiserror::Error;

use super::head::{self, HeadError};
use crate::net::Stream;
use crate::transport::tls::send;

/// An HTTP proxy and how this end proves itself to it.
#[derive(Debug)]
pub(crate) struct ProxyServer {
    pub(crate) address: HostPort,
    /// `user:password`.
    credentials: Option<Secret<String>>,
}

/// What a proxy did instead of connecting.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("asks for credentials (407): write `user:password` into a file and its path in `proxy_credentials`")]
    CredentialsWanted,
    #[error("does not accept the credentials (407): look at `proxy_credentials`")]
    CredentialsRefused,
    #[error("does not allow connections to {0} (403): have it added to what the proxy allows, or use port 443")]
    Forbidden(HostPort),
    #[error("cannot reach {0} ({1}): is the peer's tunnel running, and does the proxy know its name?")]
    Unreachable(HostPort, u16),
    #[error("answered {1} to a CONNECT for {0}: is it an HTTP proxy?")]
    Status(HostPort, u16),
    #[error("sent bytes behind its answer that belong to nothing: is it an HTTP proxy?")]
    Surplus,
    #[error("{0}")]
    Head(#[from] HeadError),
}

impl ProxyServer {
    pub(crate) fn new(address: HostPort, credentials: Option<String>) -> Self {
        let credentials = credentials.map(|text| Secret::new(text.trim().to_owned()));
        Self { address, credentials }
    }

    /// As the environment names it: `http://user:password@host:port`, or less of it.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials.to_owned()), address),
            None => (None, rest),
        };
        Some(Self::new(address.parse().ok()?, credentials))
    }
}

/// The proxy of `HTTPS_PROXY`, and what `NO_PROXY` excepts from it.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    proxy: Option<Arc<ProxyServer>>,
    exceptions: Vec<String>,
}

impl Environment {
    /// What this process was started with.
    pub(crate) fn read() -> Self {
        let either = |upper: &str| std::env::var(upper).or_else(|_| std::env::var(upper.to_lowercase())).ok();
        Self::of(either("HTTPS_PROXY").as_deref(), either("NO_PROXY").as_deref())
    }

    fn of(proxy: Option<&str>, exceptions: Option<&str>) -> Self {
        let proxy = proxy.filter(|text| !text.is_empty()).and_then(|text| {
            let parsed = ProxyServer::parse(text);
            if parsed.is_none() {
                tracing::warn!("HTTPS_PROXY is not `http://host:port` and is not used");
            }
            parsed.map(Arc::new)
        });
        let words =
            exceptions.unwrap_or_default().split(',').map(|word| word.trim().trim_start_matches('.').to_owned());
        Self { proxy, exceptions: words.filter(|word| !word.is_empty()).collect() }
    }

    /// The proxy for connections to `host`. This host itself is never reached through one.
    pub(crate) fn proxy_for(&self, host: &str) -> Option<Arc<ProxyServer>> {
        let is_loopback = host.parse::<std::net::IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
        let is_below = |domain: &String| {
            let rest = host.strip_suffix(domain.as_str());
            domain == "*" || rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.proxy.clone().filter(|_| !is_loopback && !self.exceptions.iter().any(is_below))
    }
}

/// Has the proxy connect to `address`: what `stream` carries from then on is the peer's.
pub(crate) async fn connect(stream: &mut dyn Stream, proxy: &ProxyServer, address: &HostPort) -> Result<(), Refusal> {
    let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
    if let Some(credentials) = &proxy.credentials {
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials.expose());
        request += &format!("Proxy-Authorization: Basic {encoded}\r\n");
    }
    request += "\r\n";
    send(stream, request.as_bytes()).await.map_err(HeadError::from)?;
    let (bytes, length) = head::read(stream).await?;
    match head::status(&bytes[..length])? {
        // The peer speaks second, whatever it is.
        200..300 if bytes.len() > length => Err(Refusal::Surplus),
        200..300 => Ok(()),
        407 if proxy.credentials.is_some() => Err(Refusal::CredentialsRefused),
        407 => Err(Refusal::CredentialsWanted),
        403 => Err(Refusal::Forbidden(address.clone())),
        code @ (502..=504) => Err(Refusal::Unreachable(address.clone(), code)),
        code => Err(Refusal::Status(address.clone(), code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_proxy_is_for_all_but_this_host_and_what_it_excepts() {
        let environment = Environment::of(Some("http://me:pw@proxy:3128/"), Some("corp.example, .svc,10.0.0.7"));
        let proxy = environment.proxy_for("b.example.com").unwrap();
        assert_eq!(proxy.address.to_string(), "proxy:3128");
        assert_eq!(proxy.credentials.as_ref().unwrap().expose(), "me:pw");
        for excepted in ["localhost", "127.0.0.1", "::1", "corp.example", "a.corp.example", "b.ns.svc", "10.0.0.7"] {
            assert!(environment.proxy_for(excepted).is_none(), "{excepted}");
        }
        assert!(environment.proxy_for("notcorp.example").is_some());
        assert!(Environment::of(Some("http://proxy:3128"), Some("*")).proxy_for("b.example.com").is_none());
        assert!(Environment::of(None, None).proxy_for("b.example.com").is_none());
        assert!(Environment::of(Some("https://proxy"), None).proxy_for("b.example.com").is_none());
    }
}
