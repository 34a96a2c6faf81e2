//! How an invitation is redeemed: one request and one answer over a connection that can do nothing else.
//!
//! ```text
//!   joiner  ──ClientHello, ALPN ferry-join/1──▶  inviting tunnel, which has invitations
//!           ◀── handshake: its pinned key ─────
//!           ─── proof of the joiner's own key, Request{id, secret, name} ──▶   looks, lists the key
//!           ◀── Response: welcome, or why not ──
//! ```

mod channel;
mod client;

use serde::{Deserialize, Serialize};

pub(crate) use channel::Channel;
pub use client::{JoinError, join};

/// What a joiner says. Each message is a TLS record with a JSON object.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// How it calls itself, unless the invitation says.
    pub(crate) name: String,
}

/// What it is answered.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    /// It is listed now, by this name.
    Welcome { name: String },
    /// It is not.
    Refused(JoinRefusal),
}

/// Why an invitation was refused. All but the first are told only to a bearer of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum JoinRefusal {
    /// There is no such invitation, or the secret is another one.
    Unknown,
    /// It was used, by this peer.
    Used {
        /// Its name.
        name: String,
        /// Its key.
        key: String,
        /// So many seconds ago.
        ago: u64,
    },
    /// It is over.
    Expired {
        /// Since so many seconds.
        ago: u64,
        /// The time there, in seconds since 1970.
        now: u64,
    },
    /// Another peer has this name.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The key is a peer's already.
    KeyTaken,
    /// The inviting tunnel cannot write down who has joined.
    Unwritable,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}
