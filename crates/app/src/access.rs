//! Who may use a web-app's endpoints.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use ferry_host::Hosts;

use crate::token::Token;

/// Who may use a web-app.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The bearer token that clients must send. Without one, any request that reaches the port is accepted if its `Host` is acceptable.
    pub token: Option<Token>,
    /// Accepted in `Host` in addition to loopback and the web-app's own address, if there is no token.
    pub hosts: Hosts,
    /// User id of the local tunnel; by default that of this process.
    pub tunnel_user: Option<u32>,
    /// Token that an initiator sends to the terminator's `/ws`.
    pub peer_token: Option<Token>,
}

impl Access {
    /// Whether a request has the token; `None` if none is required.
    pub(crate) fn presents_token(&self, headers: &HeaderMap) -> Option<bool> {
        let presented = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        self.token.as_ref().map(|token| token.is_presented(presented))
    }
}
