//! `GET /ws`: where the initiator's WebSocket arrives at the terminator, through the tunnel.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tracing::{info, warn};

use super::access::require_tunnel;
use super::{ApiError, Client};
use crate::app::App;
use crate::delivery;
use crate::socket::{self, Socket};
use crate::wire::SUBPROTOCOL;

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
    Ok(socket::limited(upgrade).on_upgrade(async move |socket| {
        serve(&app, socket.into(), &client).await;
        drop((token, client));
    }))
}

async fn serve(app: &App, socket: Socket, client: &Client) {
    let slot = &app.far_slot;
    let number = slot.announce();
    let superseded = slot.superseded(number);
    tokio::pin!(superseded);
    let _occupied = match slot.try_occupy() {
        Some(occupied) => occupied,
        None => {
            warn!(address = %client.address, "a second WebSocket arrived at /ws: it replaces the first");
            tokio::select! {
                occupied = slot.occupy() => occupied,
                () = &mut superseded => return,
                () = app.phases.ended.cancelled() => return,
            }
        }
    };
    let reason = delivery::run(app, socket, client.peer.as_ref(), superseded).await;
    info!(ended = %reason, "disconnected from the far web-app");
}
