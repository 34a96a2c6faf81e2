//! How a key is replaced at a peer: one request and one answer over a connection that can do nothing else, between two
//! tunnels that list each other. Whoever dials asks.
//!
//! ```text
//!   dialler ──ClientHello, ALPN ferry-roll/1──▶  a peer's tunnel
//!           ◀── handshake as of a link ────────
//!           ─── Request ──▶                      lists a key, parts with one, tells its own next one, notes
//!           ◀── Response ──
//! ```

use std::sync::Arc;
use std::time::Duration;

use ferry_config::{Identity, Peer, PublicKey};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::join::Channel;
use crate::net::{Network, Tcp};
use crate::transport::dial::DialError;
use crate::transport::dialler::{Aim, Destination, Dialler, Progress};
use crate::transport::probe::{self, ProbeError};
use crate::transport::tls::TlsError;

/// Longest wait for the answer: the peer's tunnel reads its configuration again before it gives one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a peer is asked. Each message is a TLS record with a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollRequest {
    /// Accept this key of mine, too.
    Announce(PublicKey),
    /// Accept no other key of mine than the one that I prove.
    Part,
    /// Which key comes next of yours?
    Ask,
    /// I accept this next key of yours.
    Listed(PublicKey),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollResponse {
    /// The key that was announced is accepted.
    Accepted,
    /// Only the key that was proved is accepted.
    Parted,
    /// It is not by a roll that the key is listed: somebody has to change that by hand.
    ByHand,
    /// This key comes next; none, where no roll is under way.
    Next(Option<PublicKey>),
    /// It was written down.
    Noted,
    /// It is not done, and this is why.
    Refused(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// The peer was not reached, or it does not accept the key.
    #[error(transparent)]
    Unreachable(#[from] ProbeError),
    /// Its tunnel knows nothing of rolls.
    #[error("the ferry there is too old to be asked")]
    Unknown,
    /// It was asked, and there is no answer.
    #[error("the connection was lost before the answer: {0}")]
    Unanswered(String),
}

/// Asks a peer, whose addresses are dialled as for a link. Says which key it proves.
///
/// # Errors
///
/// Why there is no answer.
pub async fn ask_to_roll(
    identity: &Identity,
    peer: &Peer,
    request: RollRequest,
) -> Result<(PublicKey, RollResponse), RollError> {
    let destination = Destination::new(identity, peer).map_err(probe::judge_tls)?.for_rolling();
    let network: Arc<dyn Network> = Arc::new(Tcp);
    let established = async |established| Ok(established);
    let dialled =
        Dialler::default().dial(&network, &destination, Aim::default(), &Progress::default(), established).await;
    let established = dialled.map_err(|error| match error {
        DialError::Tls(error) if error.is_protocol_refused() => RollError::Unknown,
        error => probe::judge(error).into(),
    })?;
    let key = established.proven.key;
    let mut channel = Channel::new(established);
    let exchange = async {
        channel.send(&request).await?;
        channel.receive::<RollResponse>().await
    };
    let response = timeout(ANSWER_TIMEOUT, exchange).await;
    let response = response.map_err(|_| RollError::Unanswered(format!("none within {ANSWER_TIMEOUT:?}")))?;
    // In TLS 1.3 the dialler is done before the other end has judged its key.
    let response = response.map_err(|error| match error {
        TlsError::KeyRefused => RollError::Unreachable(ProbeError::KeyRefused),
        error => RollError::Unanswered(error.to_string()),
    })?;
    channel.close().await;
    Ok((key, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes over the wire, to the letter.
    #[test]
    fn requests_and_responses_are_what_the_specification_says() {
        let key = Identity::generate().unwrap().public_key();
        let requests = [
            (RollRequest::Announce(key), format!("{{\"announce\":\"{key}\"}}")),
            (RollRequest::Part, "\"part\"".to_owned()),
            (RollRequest::Ask, "\"ask\"".to_owned()),
            (RollRequest::Listed(key), format!("{{\"listed\":\"{key}\"}}")),
        ];
        for (request, text) in requests {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<RollRequest>(&text).unwrap(), request);
        }
        let responses = [
            (RollResponse::Accepted, "\"accepted\"".to_owned()),
            (RollResponse::Parted, "\"parted\"".to_owned()),
            (RollResponse::ByHand, "\"by_hand\"".to_owned()),
            (RollResponse::Next(Some(key)), format!("{{\"next\":\"{key}\"}}")),
            (RollResponse::Next(None), "{\"next\":null}".to_owned()),
            (RollResponse::Noted, "\"noted\"".to_owned()),
            (RollResponse::Refused("why".to_owned()), "{\"refused\":\"why\"}".to_owned()),
        ];
        for (response, text) in responses {
            assert_eq!(serde_json::to_string(&response).unwrap(), text);
            assert_eq!(serde_json::from_str::<RollResponse>(&text).unwrap(), response);
        }
    }
}
