//! `GET /ws`: where the initiator's WebSocket arrives at the terminator, through the tunnel.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use tracing::{info, warn};

use super::access::require_tunnel;
use super::{ApiError, Client};
use crate::app::App;
use crate::delivery::{self, Disconnect};
use crate::peer::PeerName;
use crate::sites::Site;
use crate::socket::{self, Socket};
use crate::wire::{self, ADDITIONS, HEADERS_ADDITION, SUBPROTOCOL};

pub(super) async fn ws(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    require_tunnel(&app.access, &client, &headers).await?;
    let upgrade = upgrade.map_err(ApiError::not_a_websocket)?.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            format!(
                "this end speaks the WebSocket sub-protocol {SUBPROTOCOL} only: offer it in sec-websocket-protocol, or \
                 run the same version of ferry at both ends"
            ),
        ));
    }
    // The far side is bounded by its inbox.
    client.meter.exempt();
    // Held until the WebSocket has ended, and while the upgrade is still under way.
    let (token, client) = (app.tasks.token(), client.clone());
    let takes_headers = wire::takes_headers(&headers);
    let mut response = socket::limited(upgrade).on_upgrade(async move |socket| {
        serve(&app, Socket { takes_headers, session: client.session, ..socket.into() }, &client).await;
        drop((token, client));
    });
    response.headers_mut().insert(ADDITIONS, HeaderValue::from_static(HEADERS_ADDITION));
    Ok(response)
}

async fn serve(app: &App, socket: Socket, client: &Client) {
    let ended = match app.sites.connect(client.peer.as_ref()) {
        Ok(site) => converse(app, &site, socket, client).await,
        Err(error) => {
            let refused = Disconnect::from(error);
            socket.close(refused.code(), &refused.to_string()).await;
            Some(refused)
        }
    };
    let Some(reason) = ended else { return };
    let peer = client.peer.as_ref().filter(|_| app.sites.are_several()).map(PeerName::as_str);
    info!(ended = %reason, site = peer, "disconnected from the far web-app");
}

/// Serves the WebSocket once it is the site's turn. Returns why it ended, if that came.
async fn converse(app: &App, site: &Arc<Site>, socket: Socket, client: &Client) -> Option<Disconnect> {
    let slot = &site.slot;
    let number = slot.announce();
    let superseded = slot.superseded(number);
    tokio::pin!(superseded);
    let _occupied = match slot.try_occupy() {
        Some(occupied) => occupied,
        None => {
            let (address, site) = (client.address, app.shown(site));
            app.log_limits.replaced.log(|suppressed| {
                warn!(%address, site, suppressed, "a second WebSocket arrived at /ws: it replaces the first");
            });
            tokio::select! {
                occupied = slot.occupy() => occupied,
                () = &mut superseded => return None,
                () = app.phases.ended.cancelled() => return None,
            }
        }
    };
    if site.outbox.is_closed() {
        socket.close(Disconnect::Forgotten.code(), &Disconnect::Forgotten.to_string()).await;
        return Some(Disconnect::Forgotten);
    }
    Some(delivery::run(app, site, socket, superseded).await)
}
