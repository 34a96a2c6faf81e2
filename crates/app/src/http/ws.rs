//! The terminator's side of the WebSocket: `GET /ws`, where the initiator arrives through the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::access::by_the_tunnel;
use crate::app::App;
use crate::delivery;
use crate::http::{ApiError, Client};
use crate::socket::{self, Socket};
use crate::wire::SUBPROTOCOL;

/// The one seat for a WebSocket from the far side. The newest to arrive gets it: when a second one comes, the first is
/// most likely dead and has not been told.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    newest: watch::Sender<u64>,
    turn: Mutex<()>,
}

impl Seat {
    /// Takes a number, which tells all earlier ones to go.
    fn number(&self) -> u64 {
        let mut number = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        number
    }

    /// Waits until a newer one has come.
    async fn replaced(&self, number: u64) {
        // An error would mean that the watch's sender is gone, which `self` owns.
        let _ = self.newest.subscribe().wait_for(|newest| *newest > number).await;
    }
}

/// `GET /ws`.
pub(crate) async fn ws(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    by_the_tunnel(&app.access, &client, &headers).await?;
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
    // Held until the WebSocket has ended, also while the upgrade is still under way.
    let (token, client) = (app.tasks.token(), client.clone());
    Ok(socket::limited(upgrade).on_upgrade(async move |socket| {
        serve(&app, socket.into(), client.address).await;
        drop((token, client));
    }))
}

async fn serve(app: &App, socket: Socket, address: SocketAddr) {
    let number = app.seat.number();
    let replaced = app.seat.replaced(number);
    tokio::pin!(replaced);
    let _turn = match app.seat.turn.try_lock() {
        Ok(turn) => turn,
        Err(_) => {
            warn!(%address, "a second WebSocket arrived at /ws: it replaces the first");
            tokio::select! {
                turn = app.seat.turn.lock() => turn,
                () = &mut replaced => return,
                () = app.phases.ended.cancelled() => return,
            }
        }
    };
    let ended = delivery::run(app, socket, replaced).await;
    info!(%ended, "disconnected from the far web-app");
}
