//! A listed peer that replaces its key, or asks for the next one of this end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::{PublicKey, RollNotes, RolledPeer};
use tokio::time::timeout;

use crate::peer::Peer;
use crate::shared::Shared;
use crate::telemetry::repeats::{Kind, Line};
use crate::transport::dial::HANDSHAKE_TIMEOUT;
use crate::transport::join::Channel;
use crate::transport::link::LinkError;
use crate::transport::roll::{RollRequest, RollResponse};
use crate::transport::tls::Established;

/// Longest wait for a change to be in force: what is answered is true then.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Answers one request of a peer that has proved a listed key.
pub(super) async fn answer(shared: &Arc<Shared>, peer: &Peer, established: Established) -> Result<(), LinkError> {
    let proved = established.proven.key;
    let mut channel = Channel::new(established);
    let request: RollRequest =
        timeout(HANDSHAKE_TIMEOUT, channel.receive()).await.map_err(|_| LinkError::TimedOut)??;
    let response = respond(shared, peer, proved, request).await.unwrap_or_else(|reason| {
        tell(shared, peer, "roll refused", Line::warn(format!("a request to roll a key was refused: {reason}")));
        RollResponse::Refused(reason)
    });
    // Whoever is not there any more may ask again.
    let _ = timeout(HANDSHAKE_TIMEOUT, channel.send(&response)).await;
    channel.close().await;
    Ok(())
}

async fn respond(
    shared: &Shared,
    peer: &Peer,
    proved: PublicKey,
    request: RollRequest,
) -> Result<RollResponse, String> {
    let Some(state) = shared.config().tunnel.state.clone() else {
        return match request {
            // No roll can have led to the key.
            RollRequest::Part => Ok(RollResponse::ByHand),
            RollRequest::Ask => Ok(RollResponse::Next(None)),
            _ => Err("this tunnel has no `state` to write it down in".to_owned()),
        };
    };
    match request {
        RollRequest::Announce(next) => accept(shared, peer, state, proved, next).await,
        RollRequest::Part => part(shared, peer, state, proved).await,
        RollRequest::Ask => Ok(RollResponse::Next(RollNotes::of(&state).next_key())),
        RollRequest::Listed(key) => match RollNotes::of(&state).note_listed(&peer.name, key) {
            Ok(true) => {
                tell(
                    shared,
                    peer,
                    "roll listed",
                    Line::info(format!("the peer lists the next key of this end: {key}")),
                );
                Ok(RollResponse::Noted)
            }
            Ok(false) => Err(format!("the next key here is another one than {key}")),
            Err(error) => Err(format!("it cannot be written down here: {error}")),
        },
    }
}

/// Lists the next key of the peer in addition.
async fn accept(
    shared: &Shared,
    peer: &Peer,
    state: PathBuf,
    proved: PublicKey,
    next: PublicKey,
) -> Result<RollResponse, String> {
    // One after another: what one has written is what the next is checked against.
    let turn = shared.joining.lock().await;
    let config = shared.config();
    if config.tunnel.identity.public_key() == next {
        return Err("that is the key of this end".to_owned());
    }
    match config.peer_of(&next) {
        Some(owner) if owner.name == peer.name => return Ok(RollResponse::Accepted),
        Some(_) => return Err("another peer has that key".to_owned()),
        // The others would not know: they would refuse the peer as soon as it has parted with its key.
        None if !config.tunnel.replicas.is_empty() => {
            return Err(format!("it is one of several replicas: list {next} in the tunnel.yaml of each of them"));
        }
        None => {}
    }
    let name = peer.name.clone();
    write(state, move |state| Ok(Some(RolledPeer::load(state, &name)?.with_next(proved, next)))).await?;
    drop(turn);
    tell(
        shared,
        peer,
        "roll announced",
        Line::info(format!("the peer replaces its key: {next} is accepted next to {proved}")),
    );
    shared.read_again.notify_one();
    let listed = shared.config_where(|config| config.peer_of(&next).is_some());
    let in_force = timeout(IN_FORCE_TIMEOUT, listed).await;
    in_force
        .map_err(|_| "it is written down, and the configuration here cannot be read again: see the log".to_owned())?;
    Ok(RollResponse::Accepted)
}

/// Accepts no key of the peer any more but the one that it proves.
async fn part(shared: &Shared, peer: &Peer, state: PathBuf, proved: PublicKey) -> Result<RollResponse, String> {
    let turn = shared.joining.lock().await;
    let name = peer.name.clone();
    if !write(state, move |state| Ok(RolledPeer::load(state, &name)?.with_only(proved))).await? {
        return Ok(RollResponse::ByHand);
    }
    drop(turn);
    tell(
        shared,
        peer,
        "roll parted",
        Line::info(format!("the peer has replaced its key: only {proved} is accepted now")),
    );
    shared.read_again.notify_one();
    Ok(RollResponse::Parted)
}

/// A peer may ask as often as it likes: what is logged of it is bounded.
fn tell(shared: &Shared, peer: &Peer, what: &'static str, line: Line) {
    shared.repeats.tell(Kind::new(what).peer(&peer.name), line);
}

/// Writes down what has become of the peer's keys. Says whether there was something.
async fn write(
    state: PathBuf,
    change: impl FnOnce(&std::path::Path) -> std::io::Result<Option<RolledPeer>> + Send + 'static,
) -> Result<bool, String> {
    let writing = move || match change(&state)? {
        Some(rolled) => rolled.write(&state).map(|()| true),
        None => Ok(false),
    };
    let written = tokio::task::spawn_blocking(writing).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    written.map_err(|error| format!("it cannot be written down here: {error}"))
}
