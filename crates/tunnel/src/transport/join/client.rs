//! The end that has been invited.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_config::{EntryLimits, Identity, Name, Peer, Route, Token};
use tokio::time::timeout;

use super::{Channel, JoinRefusal, Request, Response};
use crate::net::{Network, Tcp};
use crate::transport::dial::DialError;
use crate::transport::dialler::{Aim, Destination, Dialler, Progress};
use crate::transport::probe::{self, ProbeError};
use crate::transport::tls::TlsError;

/// Longest wait for the answer: the inviting tunnel reads its configuration again before it gives one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an invitation could not be redeemed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The inviting tunnel was not reached. Another key there is [`ProbeError::Unlisted`].
    #[error(transparent)]
    Unreachable(#[from] ProbeError),
    /// It has no invitation at all.
    #[error("the tunnel there has no open invitation")]
    NoInvitations,
    /// It refuses this one.
    #[error("the invitation was refused: {0:?}")]
    Refused(JoinRefusal),
    /// It was asked, and there is no answer: it may have listed this end or not.
    #[error("the connection was lost before the answer: {0}")]
    Unanswered(String),
}

/// Proves the secret of `token` to the tunnel that it names, which lists `identity` from then on. Says by which name.
///
/// # Errors
///
/// Why it does not. Only after [`JoinError::Unanswered`] it may have; to ask again with the same identity does no harm.
pub async fn join(identity: &Identity, token: &Token, name: &Name) -> Result<Name, JoinError> {
    let peer = Peer {
        name: token.peer.clone(),
        keys: [token.key].into(),
        addresses: token.addresses.clone(),
        route: Route::default(),
        limits: EntryLimits::default(),
    };
    let destination = Destination::new(identity, &peer).map_err(probe::judge_tls)?.for_joining();
    let network: Arc<dyn Network> = Arc::new(Tcp);
    let established = async |established| Ok(established);
    let dialled =
        Dialler::default().dial(&network, &destination, Aim::default(), &Progress::default(), established).await;
    let mut channel = Channel::new(dialled.map_err(|error| match error {
        DialError::Tls(error) if error.is_protocol_refused() => JoinError::NoInvitations,
        error => probe::judge(error).into(),
    })?);
    let request = Request {
        id: token.id.to_string(),
        secret: URL_SAFE_NO_PAD.encode(token.secret.expose()),
        name: name.to_string(),
    };
    let exchange = async {
        channel.send(&request).await?;
        channel.receive::<Response>().await
    };
    let response = timeout(ANSWER_TIMEOUT, exchange).await;
    let unanswered = |error: &dyn std::fmt::Display| JoinError::Unanswered(error.to_string());
    let response = response.map_err(|_| unanswered(&format_args!("none within {ANSWER_TIMEOUT:?}")))?;
    let response = response.map_err(|error: TlsError| unanswered(&error))?;
    channel.close().await;
    match response {
        Response::Welcome { name } => name.parse().map_err(|error| unanswered(&error)),
        Response::Refused(refusal) => Err(JoinError::Refused(refusal)),
    }
}
