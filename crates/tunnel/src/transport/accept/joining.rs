//! Whoever wants to redeem an invitation: a stranger, in the lobby until it is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferry_config::{Claim, Invitations, Joined, Name, PublicKey, RedeemError};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Refused, Seat, handshake};
use crate::config::ConfigSnapshot;
use crate::net::Stream;
use crate::shared::Shared;
use crate::transport::dial::HANDSHAKE_TIMEOUT;
use crate::transport::join::{Channel, JoinRefusal, Request, Response};
use crate::transport::link::LinkError;
use crate::transport::tls::ClientHello;

/// Longest wait for the new peer to be in the configuration: its first link is let in then.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(3);

/// The invitations of this tunnel, if somebody may have been invited.
pub(super) fn invitations(shared: &Shared) -> Option<Invitations> {
    if shared.draining.is_cancelled() {
        return None;
    }
    let invitations = Invitations::of(shared.config().tunnel.state.as_deref()?);
    (!invitations.is_empty()).then_some(invitations)
}

/// Answers a joiner, and lists it if it was invited.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    mut seat: Seat,
    (hello, stream): (ClientHello, Box<dyn Stream>),
    invitations: Invitations,
    from: SocketAddr,
) -> Result<(), Refused> {
    let config = shared.config();
    let asking = async {
        let established = handshake(&mut seat, &config.joiners, hello, stream).await?;
        let key = established.proven.key;
        let mut channel = Channel::new(established);
        let request: Request = channel.receive().await?;
        Ok::<_, LinkError>((key, channel, request))
    };
    let asked = timeout(HANDSHAKE_TIMEOUT, asking).await.unwrap_or(Err(LinkError::TimedOut));
    let (key, mut channel, request) = asked.map_err(Refused::Link)?;
    let redeemed = redeem(shared, config, invitations, key, &request).await;
    let response = match &redeemed {
        Ok(joined) => {
            let name = &joined.peer.name;
            let services: Vec<_> = joined.services.iter().map(|offer| offer.service.to_string()).collect();
            info!(peer = %name, %key, services = services.join(","), "a peer has joined by an invitation, from {from}");
            await_in_force(shared, key).await;
            Response::Welcome { name: name.to_string() }
        }
        Err(error) => Response::Refused(refusal(error)),
    };
    // Whoever is not there any more may ask again.
    let _ = timeout(HANDSHAKE_TIMEOUT, channel.send(&response)).await;
    channel.close().await;
    redeemed.map(drop).map_err(|error| Refused::NotJoined(key, error))
}

async fn redeem(
    shared: &Arc<Shared>,
    config: Arc<ConfigSnapshot>,
    invitations: Invitations,
    key: PublicKey,
    request: &Request,
) -> Result<Joined, RedeemError> {
    let (Ok(id), Ok(secret)) = (request.id.parse(), URL_SAFE_NO_PAD.decode(&request.secret)) else {
        return Err(RedeemError::Unknown);
    };
    let name: Name = request.name.parse().map_err(|_| RedeemError::Unknown)?;
    let claim = Claim { key, name };
    let check = move |claim: &Claim| {
        if config.tunnel.name == claim.name || config.peers.contains_key(&claim.name) {
            return Err(RedeemError::NameTaken(claim.name.clone()));
        }
        if config.tunnel.identity.public_key() == claim.key || config.peer_of(&claim.key).is_some() {
            return Err(RedeemError::KeyTaken(claim.key));
        }
        Ok(())
    };
    // One after another: what one has written is what the next is checked against.
    let _turn = shared.joining.lock().await;
    let redeemed = tokio::task::spawn_blocking(move || invitations.redeem(id, &secret, &claim, check)).await;
    redeemed.unwrap_or_else(|error| Err(RedeemError::Io("".into(), std::io::Error::other(error))))
}

/// Has the configuration read again, and waits until the peer is in it.
async fn await_in_force(shared: &Shared, key: PublicKey) {
    shared.read_again.notify_one();
    let listed = shared.config_where(|config| config.peer_of(&key).is_some());
    if timeout(IN_FORCE_TIMEOUT, listed).await.is_err() {
        warn!("the peer that has joined is listed as soon as the configuration can be read again");
    }
}

fn refusal(error: &RedeemError) -> JoinRefusal {
    match error {
        RedeemError::Unknown => JoinRefusal::Unknown,
        RedeemError::Used { name, key, ago } => JoinRefusal::Used { name: name.clone(), key: key.clone(), ago: *ago },
        RedeemError::Expired { ago, now } => JoinRefusal::Expired { ago: *ago, now: *now },
        RedeemError::NameTaken(name) => JoinRefusal::NameTaken { name: name.to_string() },
        RedeemError::KeyTaken(_) => JoinRefusal::KeyTaken,
        RedeemError::Io(..) => JoinRefusal::Unwritable,
    }
}
