//! Checks that stand before the endpoints.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use ferry_host::forwarded_by;

use super::{ApiError, Client};
use crate::access::Access;
use crate::app::App;
use crate::socket_owner::check_owner;

/// Requires the token, if there is one. Not used for probes and metrics.
pub(super) async fn require_token(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match app.access.presents_token(request.headers()) {
        Some(false) => Err(no_token()),
        _ => Ok(next.run(request).await),
    }
}

fn no_token() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "the token is missing or wrong; send it as `Authorization: Bearer TOKEN`".into(),
    )
}

/// Without a token, refuses requests that may come from a web page.
pub(super) async fn require_host(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if app.access.token.is_none() {
        app.access.hosts.check(request.uri(), request.headers(), client.local.ip()).map_err(|foreign| {
            ApiError::new(
                StatusCode::FORBIDDEN,
                format!(
                    "{foreign}. Other names are allowed by the web-app's --host (FERRY_HOSTS), all of them with a token"
                ),
            )
        })?;
    }
    Ok(next.run(request).await)
}

/// Admits to `/ws` only the local tunnel: over loopback, not forwarded, not from a browser, and owned by the expected user or
/// holding the token.
pub(super) async fn require_tunnel(access: &Access, client: &Client, headers: &HeaderMap) -> Result<(), ApiError> {
    let forbidden = |why: String| {
        let what =
            format!("/ws is for the tunnel next to this web-app, over loopback: {why}. Connect through the tunnel");
        Err(ApiError::new(StatusCode::FORBIDDEN, what))
    };
    if !client.address.ip().to_canonical().is_loopback() {
        return forbidden(format!("{} is another machine", client.address.ip()));
    }
    if let Some(header) = forwarded_by(headers) {
        return forbidden(format!("the header {header} says that this request was forwarded"));
    }
    if headers.contains_key(ORIGIN) {
        return forbidden("this comes from a web page".into());
    }
    match (access.presents_token(headers), access.tunnel_user) {
        (Some(true), _) => Ok(()),
        (Some(false), None) => Err(no_token()),
        (_, expected) => match check_owner(client.address, client.local, expected).await {
            None => Ok(()),
            Some(user) => forbidden(format!(
                "the connection belongs to {user}; --tunnel-user (FERRY_TUNNEL_USER) sets the expected user"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    const TOKEN: &str = "0123456789abcdef";

    async fn judge(access: &Access, address: &str, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let client = Client::at(address.parse().unwrap(), "127.0.0.1:8000".parse().unwrap());
        require_tunnel(access, &client, &map).await.err().map(|refused| refused.status())
    }

    #[tokio::test]
    async fn only_loopback_may_use_ws_whatever_it_presents() {
        let access = Access { token: Some(Token::new(TOKEN).unwrap()), ..Access::default() };
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(judge(&access, address, &headers).await, None, "{address}");
        }
        for address in ["10.0.0.7:1", "0.0.0.0:1", "[::]:1", "[::ffff:10.0.0.7]:1", "[fe80::1]:1", "128.0.0.1:1"] {
            assert_eq!(judge(&access, address, &headers).await, Some(StatusCode::FORBIDDEN), "{address}");
        }
        for header in [("via", "1.1 proxy"), ("origin", "http://127.0.0.1:8000")] {
            let refused = judge(&access, "127.0.0.1:1", &[headers[0], header]).await;
            assert_eq!(refused, Some(StatusCode::FORBIDDEN), "{header:?}");
        }
    }

    #[tokio::test]
    async fn where_there_is_a_token_ws_asks_for_it_unless_the_tunnels_user_is_known() {
        let mut access = Access { token: Some(Token::new(TOKEN).unwrap()), ..Access::default() };
        assert_eq!(judge(&access, "127.0.0.1:1", &[]).await, Some(StatusCode::UNAUTHORIZED));
        let wrong = [("authorization", "Bearer 0123456789abcdeX")];
        assert_eq!(judge(&access, "127.0.0.1:1", &wrong).await, Some(StatusCode::UNAUTHORIZED));
        // There is no such connection, so its owner is unknown.
        access.tunnel_user = Some(0);
        let refused = judge(&access, "127.0.0.1:1", &[]).await;
        assert_eq!(refused, cfg!(target_os = "linux").then_some(StatusCode::FORBIDDEN));
    }
}
