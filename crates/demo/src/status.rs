//! A tunnel's `/status`, as far as the demo reads it.

use std::net::SocketAddr;

use serde::Deserialize;

use ferry::client;

/// What a tunnel says about itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) sessions: Vec<Session>,
}

/// One of its sessions.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) peer: String,
    pub(crate) service: String,
    /// 0 while it has no link.
    pub(crate) epoch: u64,
    pub(crate) key_exchange: String,
    pub(crate) cipher: String,
    pub(crate) key_age_seconds: f64,
    /// Bytes of the application, to the peer and from it.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Status {
    /// Asks the tunnel with this admin endpoint.
    pub(crate) async fn read(admin: SocketAddr) -> anyhow::Result<Self> {
        client::json_at(&format!("http://{admin}/status")).await
    }

    /// The sessions with this peer for this service.
    pub(crate) fn sessions_of(self, service: &str, peer: &str) -> Vec<Session> {
        self.sessions.into_iter().filter(|session| session.peer == peer && session.service == service).collect()
    }
}
