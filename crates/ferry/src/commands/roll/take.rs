//! `ferry roll --take PEER`: the other end of a roll, where the one that rolls is dialled.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anstream::eprintln;
use anyhow::{anyhow, bail};

use super::{Own, RETRY_INTERVAL, check_free};
use crate::commands::own_config::unwritable;
use ferry_config::{Name, Peer, PublicKey, RolledPeer};
use ferry_text::Foreign;
use ferry_tunnel::{RollError, RollRequest, RollResponse, ask_to_roll};

/// Lists the peer's next key, tells it so, and parts with the key before once the peer proves the next one.
pub(super) async fn run(mut own: Own, name: &Name, wait: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + wait;
    let mut told = None;
    loop {
        let peer = peer(&own, name)?;
        let problem = match ask_to_roll(&own.tunnel.identity, &peer, RollRequest::Ask).await {
            Ok((proved, RollResponse::Next(next))) => {
                if let Some(done) = part(&own, name, proved)? {
                    eprintln!("{name} uses its new key; the one before is not accepted any more");
                    writeln!(io::stdout(), "{done}")?;
                    return Ok(());
                }
                match next {
                    Some(next) if next == proved => {
                        eprintln!(
                            "{name} uses its new key, which is listed by hand: remove the one before from tunnel.yaml"
                        );
                        writeln!(io::stdout(), "{proved}")?;
                        return Ok(());
                    }
                    Some(next) => {
                        own = list(own, name, proved, next)?;
                        tell(&own, name, next, &mut told).await?
                    }
                    None if told.is_some() => "it has no next key any more".to_owned(),
                    None => bail!("{name} has no next key; run `ferry roll` there first"),
                }
            }
            Ok((_, RollResponse::Refused(why))) => bail!("{name} refuses: {}", Foreign(&why)),
            Ok(_) => bail!("{name} answers something else than was asked"),
            Err(error @ RollError::Unknown) => bail!("{name}: {error}; list its next key in tunnel.yaml by hand"),
            Err(error) => error.to_string(),
        };
        if Instant::now() + RETRY_INTERVAL > end {
            bail!("{name} does not use its next key yet: {problem}; run this again to continue");
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

fn peer(own: &Own, name: &Name) -> anyhow::Result<Peer> {
    let config = own.path.display();
    let peer = own.tunnel.peers.iter().find(|peer| peer.name == *name);
    let peer = peer.ok_or_else(|| anyhow!("there is no peer {name} in {config}"))?;
    if peer.addresses.is_empty() {
        bail!("{name} dials this end, so it announces its next key itself: run `ferry roll` there, and nothing here");
    }
    Ok(peer.clone())
}

/// Lists the next key in addition, unless it is.
fn list(own: Own, name: &Name, proved: PublicKey, next: PublicKey) -> anyhow::Result<Own> {
    if own.tunnel.peers.iter().any(|peer| peer.name == *name && peer.keys.contains(&next)) {
        return Ok(own);
    }
    check_free(&own.tunnel, name, next)?;
    let path = RolledPeer::path(&own.state, name);
    let failed = |error: io::Error| unwritable(&path, &error);
    RolledPeer::load(&own.state, name).map_err(failed)?.with_next(proved, next).write(&own.state).map_err(failed)?;
    eprintln!("the next key of {name} is accepted next to the one in use: {next}");
    Own::load(&own.path)
}

/// Tells the peer that its next key is listed. What is waited for then.
async fn tell(own: &Own, name: &Name, next: PublicKey, told: &mut Option<PublicKey>) -> anyhow::Result<String> {
    let waiting = format!("it waits for its other peers; `ferry roll` on {name} says for whom");
    if *told == Some(next) {
        return Ok(waiting);
    }
    match ask_to_roll(&own.tunnel.identity, &peer(own, name)?, RollRequest::Listed(next)).await {
        Ok((_, RollResponse::Noted)) => {
            eprintln!("{name} knows; waiting until it uses its next key");
            *told = Some(next);
            Ok(waiting)
        }
        Ok((_, RollResponse::Refused(why))) => Ok(format!("it refuses: {}", Foreign(&why))),
        Ok(_) => Ok("it answers something else than was asked".to_owned()),
        Err(error) => Ok(error.to_string()),
    }
}

/// Parts with the key before, if a roll has led to this one. The key that is accepted then.
fn part(own: &Own, name: &Name, proved: PublicKey) -> anyhow::Result<Option<PublicKey>> {
    let path = RolledPeer::path(&own.state, name);
    let failed = |error: io::Error| unwritable(&path, &error);
    let rolled = RolledPeer::load(&own.state, name).map_err(failed)?;
    if !rolled.is_rolling_to(proved) {
        return Ok(None);
    }
    if let Some(parted) = rolled.with_only(proved) {
        parted.write(&own.state).map_err(failed)?;
    }
    Ok(Some(proved))
}
