//! The configuration is read again while sessions live.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::{Egress, Watch};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::mailbox::Command;
use crate::net::Listener;
use crate::peer::Peer;
use crate::plan::Plan;
use crate::shared::Shared;
use crate::tls::TlsError;
use crate::{egress, peer};

/// How often the file is looked at: a projected ConfigMap changes by a symlink swap, which is easier to see by
/// looking than by being told.
const LOOK: Duration = Duration::from_secs(1);

/// Listeners for applications, by what the configuration says of them.
#[derive(Default)]
pub(crate) struct Egresses(Mutex<Vec<(Egress, Serving)>>);

struct Serving {
    withdrawn: CancellationToken,
    task: JoinHandle<()>,
}

impl Egresses {
    /// Serves another egress.
    pub(crate) async fn serve(&self, shared: &Arc<Shared>, entry: Egress, listener: Box<dyn Listener>) {
        let withdrawn = CancellationToken::new();
        let (peer, service) = (entry.peer.clone(), entry.service.clone());
        let listen = egress::listen(shared.clone(), listener, peer, service, withdrawn.clone());
        let task = shared.tasks.spawn_on(listen, shared.workers.place().handle());
        self.0.lock().await.push((entry, Serving { withdrawn, task }));
    }

    /// Stops what the configuration no longer has and starts what is new. Sessions are not touched.
    async fn update(&self, shared: &Arc<Shared>, wanted: &[Egress]) {
        let mut serving = std::mem::take(&mut *self.0.lock().await);
        let (kept, gone): (Vec<_>, Vec<_>) = serving.drain(..).partition(|(entry, _)| wanted.contains(entry));
        for (_, gone) in gone {
            gone.withdrawn.cancel();
            // The address is free once the listener is dropped. A task that panicked has dropped it too.
            let _ = gone.task.await;
        }
        let new: Vec<_> = wanted.iter().filter(|entry| kept.iter().all(|(kept, _)| kept != *entry)).cloned().collect();
        *self.0.lock().await = kept;
        for entry in new {
            match shared.network.bind(entry.listen).await {
                Ok(listener) => self.serve(shared, entry, listener).await,
                Err(error) => error!("egress {} is not served: {error}", entry.listen),
            }
        }
    }
}

impl Shared {
    /// Puts `config` in force without touching sessions, except those whose peer or right was withdrawn.
    pub(crate) async fn reload(self: &Arc<Self>, config: ferry_config::Tunnel) -> Result<(), TlsError> {
        let before = self.plan();
        for (changed, key) in [
            (config.name != before.config.name, "name"),
            (config.listen != before.config.listen, "listen"),
            (config.admin != before.config.admin, "admin"),
            (config.limits != before.config.limits, "limits"),
        ] {
            if changed {
                warn!("{key} has changed: it takes effect when the tunnel is restarted");
            }
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
                    let peer = Arc::new(Peer::new(&config.identity, entry.clone())?);
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
        self.set_plan(Plan::new(config, peers)?);
        for peer in new {
            self.tasks.spawn(peer::keep_warm(self.clone(), peer));
        }
        for entry in self.sessions.list(usize::MAX) {
            // One that has just ended needs no second look.
            let _ = entry.mailbox.send(Command::Recheck);
        }
        self.egresses.update(self, &egress).await;
        Ok(())
    }
}

/// Reads the file again whenever it has changed, or when told to.
pub(crate) async fn follow(shared: Arc<Shared>, path: PathBuf, now: Arc<Notify>) {
    let mut watch = Watch::new(path);
    let mut reported = None;
    loop {
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            () = now.notified() => {
                watch.forget();
                reported = None;
            }
        }
        match watch.look() {
            None => {}
            Some(Err(report)) => {
                let text = report.to_string();
                if reported.as_ref() != Some(&text) {
                    error!("the configuration has changed and cannot be used; the one before stays in force:\n{text}");
                    reported = Some(text);
                }
            }
            Some(Ok(loaded)) => {
                reported = None;
                if loaded.tunnel == shared.plan().config {
                    continue;
                }
                loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
                match shared.reload(loaded.tunnel).await {
                    Ok(()) => info!("configuration read again"),
                    Err(error) => error!("the configuration has changed and cannot be used: {error}"),
                }
            }
        }
    }
}
