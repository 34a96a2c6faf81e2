//! The configuration is read again while sessions live.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::{Loaded, Report, RollNotes, Watch};
use tracing::{error, info, warn};

use crate::config::{ConfigSnapshot, changes};
use crate::peer::Peer;
use crate::sessions::mailbox::Command;
use crate::shared::Shared;
use crate::supply;
use crate::telemetry::events::Event;
use crate::transport::congestion;
use crate::transport::tls::TlsError;

/// How often the file is looked at: a projected ConfigMap changes by a symlink swap, which is easier to see by
/// looking than by being told.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Between the looks that have to agree before a change counts.
const SETTLE_DELAY: Duration = Duration::from_millis(250);

/// Looks that have to agree before all peers, or all services, are withdrawn.
const MIN_LOOKS_BEFORE_WITHDRAWAL: u32 = 3;

/// Puts `config` in force without touching sessions, except those whose peer or right was withdrawn.
pub(crate) async fn apply(shared: &Arc<Shared>, config: ferry_config::Tunnel) -> Result<(), TlsError> {
    let before = shared.config();
    for (changed, key) in [
        (config.name != before.tunnel.name, "name"),
        (config.listen != before.tunnel.listen, "listen"),
        (config.listen_quic != before.tunnel.listen_quic, "listen_quic"),
        (config.listen_ws != before.tunnel.listen_ws, "listen_ws"),
        (config.ws_path != before.tunnel.ws_path, "ws_path"),
        (config.ws_max_life != before.tunnel.ws_max_life, "ws_max_life"),
        (config.replicas.is_empty() != before.tunnel.replicas.is_empty(), "replicas"),
        (config.admin != before.tunnel.admin, "admin"),
        (config.keeper != before.tunnel.keeper, "keeper"),
        (config.settings.limits != before.tunnel.settings.limits, "limits"),
    ] {
        if changed {
            warn!("{key} has changed: it takes effect when the tunnel is restarted");
        }
    }
    if config.settings.congestion != before.tunnel.settings.congestion {
        congestion::check(&*shared.network, config.settings.congestion.as_ref());
    }
    let mut peers: BTreeMap<_, Arc<Peer>> = BTreeMap::new();
    let mut new = Vec::new();
    for entry in &config.peers {
        let known = before.peers.get(&entry.name).cloned();
        let peer = match known {
            Some(peer) => {
                peer.update(&config.identity, entry.clone())?;
                peer
            }
            None => {
                let peer = Arc::new(Peer::new(&config.identity, entry.clone(), &shared.quic)?);
                new.push(peer.clone());
                peer
            }
        };
        peers.insert(entry.name.clone(), peer);
    }
    let gone = before.peers.values().filter(|peer| !peers.contains_key(&peer.name));
    gone.for_each(|peer| {
        peer.withdrawn.cancel();
        peer.pool.distrust();
    });
    let egress = config.egress.clone();
    shared.set_config(ConfigSnapshot::new(config, peers, &before.limits)?);
    for peer in new {
        shared.tasks.spawn(supply::keep_warm(shared.clone(), peer));
    }
    for entry in shared.sessions.list(usize::MAX) {
        // One that has just ended needs no second look.
        let _ = entry.mailbox.send(Command::Recheck);
    }
    shared.app_listeners.update(shared, &egress).await;
    Ok(())
}

/// What the files say once looks a moment apart agree: a file that is being written may parse at any length.
async fn settled(
    watch: &mut Watch,
    first: Result<Loaded, Report>,
    current: &ferry_config::Tunnel,
) -> Result<Loaded, Report> {
    let (mut seen, mut agreed) = (first, 0);
    loop {
        let withdraws = seen.as_ref().is_ok_and(|loaded| withdraws_everything(&loaded.tunnel, current));
        if agreed >= if withdraws { MIN_LOOKS_BEFORE_WITHDRAWAL } else { 1 } {
            return seen;
        }
        tokio::time::sleep(SETTLE_DELAY).await;
        match (watch.look(), &seen) {
            (None, _) => agreed += 1,
            (Some(Err(again)), Err(before)) if again.to_string() == before.to_string() => agreed += 1,
            (Some(other), _) => (seen, agreed) = (other, 0),
        }
    }
}

/// Of something that there was, nothing is left.
fn withdraws_everything(wanted: &ferry_config::Tunnel, current: &ferry_config::Tunnel) -> bool {
    (wanted.peers.is_empty() && !current.peers.is_empty())
        || (wanted.egress.is_empty() && !current.egress.is_empty())
        || (wanted.ingress.is_empty() && !current.ingress.is_empty())
}

/// Reads the file again whenever it has changed, or when told to.
pub(crate) async fn follow(shared: Arc<Shared>, path: PathBuf) {
    let mut watch = Watch::new(path);
    let mut reported = None;
    loop {
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = shared.read_again.notified() => {
                watch.forget();
                reported = None;
            }
        }
        let looked = watch.look();
        let current = shared.config();
        if let Some(state) = &current.tunnel.state {
            // Whoever rolls this end's key waits for it, also where a new process is the first with the next one.
            RollNotes::of(state).note_proved(current.tunnel.identity.public_key());
        }
        let Some(first) = looked else { continue };
        let settled = tokio::select! {
            () = shared.draining.cancelled() => return,
            settled = settled(&mut watch, first, &current.tunnel) => settled,
        };
        match settled {
            Err(report) => {
                let text = report.to_string();
                if reported.as_ref() != Some(&text) {
                    error!("new configuration rejected; keeping the previous one:\n{text}");
                    shared.events.tell(Event::ConfigRefused { problem: text.clone() });
                    reported = Some(text);
                }
            }
            Ok(loaded) => {
                reported = None;
                let current = shared.config();
                if loaded.tunnel == current.tunnel {
                    continue;
                }
                let changes = changes::between(&current.tunnel, &loaded.tunnel);
                loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
                match apply(&shared, loaded.tunnel).await {
                    Ok(()) => {
                        info!("configuration read again");
                        shared.events.tell(Event::ConfigReloaded { changes });
                    }
                    Err(error) => {
                        error!("new configuration rejected; keeping the previous one: {error}");
                        shared.events.tell(Event::ConfigRefused { problem: error.to_string() });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name: a\nidentity: identity.key\nlisten: 127.0.0.1:0\n";

    /// A watch of a configuration with a peer and a service, that configuration, and its text.
    fn watched(dir: &std::path::Path) -> (Watch, ferry_config::Tunnel, String) {
        let identity = ferry_config::Identity::generate().unwrap();
        identity.write_new(&dir.join("identity.key")).unwrap();
        let key = ferry_config::Identity::generate().unwrap().public_key();
        let text = format!(
            "{HEAD}peers: [{{name: b, keys: [\"{key}\"]}}]\ningress: [{{service: s, forward: \"h:1\", allow: [b]}}]\n"
        );
        std::fs::write(dir.join("tunnel.yaml"), &text).unwrap();
        let mut watch = Watch::new(dir.join("tunnel.yaml"));
        let current = watch.look().unwrap().unwrap().tunnel;
        (watch, current, text)
    }

    /// What comes of a file that holds `first`, and `second` after a while.
    async fn written(first: &str, after: Duration, second: impl Fn(&str) -> String) -> (usize, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let (mut watch, current, text) = watched(dir.path());
        let path = dir.path().join("tunnel.yaml");
        std::fs::write(&path, first).unwrap();
        let (begun, first) = (tokio::time::Instant::now(), watch.look().unwrap());
        let more = async {
            tokio::time::sleep(after).await;
            std::fs::write(&path, second(&text)).unwrap();
        };
        let settling = async {
            let settled = settled(&mut watch, first, &current).await.unwrap();
            (settled.tunnel.peers.len(), begun.elapsed())
        };
        tokio::join!(settling, more).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_half_written_withdraws_nothing() {
        for after in [Duration::from_millis(100), 2 * SETTLE_DELAY + Duration::from_millis(100)] {
            let (peers, _) = written(HEAD, after, |text| format!("{text}drain: 3s\n")).await;
            assert_eq!(peers, 1, "written on after {after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawal_of_everything_counts_within_a_second_if_it_stays() {
        let (peers, took) = written(HEAD, Duration::ZERO, |_| HEAD.to_owned()).await;
        assert_eq!((peers, took), (0, 3 * SETTLE_DELAY));
    }
}
