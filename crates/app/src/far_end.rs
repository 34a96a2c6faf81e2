//! Who is at the other end of a WebSocket.

use crate::message::{Location, SenderId};
use crate::peer::SessionId;

/// The far web-app, from its hello.
pub(crate) struct FarEnd {
    pub(crate) sender: SenderId,
    pub(crate) location: Location,
    pub(crate) acked: u64,
    /// It reads the headers of messages.
    pub(crate) takes_headers: bool,
    /// The session of the tunnels that the WebSocket lies in, where that is known.
    pub(crate) session: Option<SessionId>,
}
