//! Commits what waits in the outbox and in the output. Everything that came during one commit makes up the next.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::app::App;
use crate::error::StopError;
use crate::message::SenderId;
use crate::outbox::{NewMessage, NumberedMessage};
use crate::output::{Change, Outcome, Source};
use crate::store::{Commit, Store, StoreError};

/// The largest commit.
const MAX_COMMIT_MESSAGES: usize = 4096;
const MAX_COMMIT_BYTES: usize = 16 << 20;
/// How long acknowledged messages may stay in the store: trimming alone is worth a commit, but not an urgent one.
const TRIM_DELAY: Duration = Duration::from_millis(200);
/// How often a full disk is retried.
const DISK_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Triggers are refused when the disk has less free space than this, or than an eighth of a small disk, so that there is
/// always enough for acknowledging and trimming.
const MIN_FREE_BYTES: u64 = 4 << 20;

/// Commits until the web-app has ended, and once more if it ends in good order.
pub(crate) async fn run(app: Arc<App>, store: Store, data: Option<PathBuf>) -> Result<(), StopError> {
    let mut disk = Disk { store, data };
    let (mut trimmed, mut dropped, mut last) = (app.outbox.acked(), Vec::new(), false);
    while !last {
        last = tokio::select! {
            biased;
            () = app.phases.committing.cancelled() => true,
            () = app.phases.ended.cancelled() => return Ok(()),
            () = work(&app, trimmed) => false,
        };
        let mut batch = Batch::collect(&app, &dropped);
        let result;
        (disk, batch.commit, result) = commit(&app, disk, batch.commit).await?;
        let acked = batch.commit.acked;
        match result {
            Ok(space) => {
                dropped = batch.publish(&app);
                trimmed = acked;
                set_full(&app, space == DiskSpace::Low);
            }
            Err(StoreError::Full) => {
                set_full(&app, true);
                app.outbox.reject_waiting(&StoreError::Full);
                // Free the space of acknowledged messages first.
                let result;
                (disk, _, result) = commit(&app, disk, batch.commit.trim()).await?;
                match result {
                    Ok(_) => trimmed = acked,
                    Err(StoreError::Full) => {}
                    Err(error) => return fail(&app, error),
                }
                tokio::select! {
                    () = sleep(DISK_RETRY_INTERVAL) => {}
                    () = app.phases.committing.cancelled() => {}
                }
            }
            Err(error) => return fail(&app, error),
        }
    }
    Ok(())
}

fn fail(app: &App, error: StoreError) -> Result<(), StopError> {
    error!(%error, "the store failed");
    app.outbox.reject_waiting(&error);
    Err(StopError::Store(error))
}

/// Waits until there is something to store.
async fn work(app: &App, trimmed: u64) {
    let disk_retry = async {
        match app.disk_full.load(Ordering::Relaxed) {
            true => sleep(DISK_RETRY_INTERVAL).await,
            false => std::future::pending().await,
        }
    };
    let outbox = async {
        if app.outbox.unstored(trimmed).await {
            return;
        }
        tokio::select! {
            () = sleep(TRIM_DELAY) => {}
            // Nothing is acknowledged beyond the greatest number, so this waits for messages only.
            _ = app.outbox.unstored(u64::MAX) => {}
        }
    };
    tokio::select! {
        () = outbox => {}
        () = app.output.unstored() => {}
        () = disk_retry => {}
    }
}

/// Commits where blocking is allowed.
async fn commit(
    app: &App,
    mut disk: Disk,
    commit: Commit,
) -> Result<(Disk, Commit, Result<DiskSpace, StoreError>), StopError> {
    app.commit_timer.start();
    let blocking = spawn_blocking(move || {
        let result = disk.commit(&commit);
        (disk, commit, result)
    });
    let done = blocking.await;
    app.commit_timer.stop();
    done.map_err(|error| StopError::Panicked(error.to_string()))
}

/// The store, and the directory whose disk it fills; `None` for a store in memory.
struct Disk {
    store: Store,
    data: Option<PathBuf>,
}

/// Whether the disk has enough space left for acknowledging and trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskSpace {
    Enough,
    Low,
}

impl Disk {
    /// Commits, and says how much space is left. The log's space is freed before that is low, or too little to commit.
    fn commit(&mut self, commit: &Commit) -> Result<DiskSpace, StoreError> {
        match self.store.commit(commit) {
            Err(StoreError::Full) => {
                self.store.checkpoint_now()?;
                self.store.commit(commit)?;
            }
            result => result?,
        }
        match self.space()? {
            DiskSpace::Enough => Ok(DiskSpace::Enough),
            DiskSpace::Low => {
                self.store.checkpoint_now()?;
                self.space()
            }
        }
    }

    fn space(&self) -> Result<DiskSpace, StoreError> {
        let Some(data) = &self.data else { return Ok(DiskSpace::Enough) };
        let reusable = self.store.reusable_bytes()?;
        // Where the file system cannot tell, a failed write will.
        let is_low = rustix::fs::statvfs(data).is_ok_and(|disk| {
            let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
            free.saturating_add_signed(reusable) < MIN_FREE_BYTES.min(all / 8)
        });
        Ok(if is_low { DiskSpace::Low } else { DiskSpace::Enough })
    }
}

/// What one commit stores, and what to publish then.
struct Batch {
    commit: Commit,
    numbered: Vec<NumberedMessage>,
    replies: usize,
    changes: usize,
    fates: usize,
}

impl Batch {
    fn collect(app: &App, dropped: &[u64]) -> Self {
        let (changes, start, end) = app.output.waiting(MAX_COMMIT_MESSAGES);
        let replies: Vec<&NewMessage> = changes.iter().filter_map(|change| change.reply.as_ref()).collect();
        let numbered = app.outbox.number(&replies, MAX_COMMIT_MESSAGES, MAX_COMMIT_BYTES);
        // Read before the fates, so that every message acknowledged here has its fate stored with it.
        let acked = app.outbox.acked();
        let mut keys = app.outbox.fates();
        let fates = keys.len();
        keys.extend(numbered.iter().filter_map(|numbered| numbered.key.clone()));
        let mut commit = Commit {
            keys,
            outbox: numbered.iter().map(|numbered| (numbered.seq, numbered.text.clone())).collect(),
            acked,
            keys_start: app.outbox.keys_start(),
            output_start: start,
            dead_start: app.output.dead_start(),
            removed_dead: dropped.to_vec(),
            ..Commit::default()
        };
        add_changes(&mut commit, &changes, end, app.output.next_dead());
        let peer = |(sender, _): &(SenderId, u64)| Some((sender.clone(), app.output.peer_of(sender)?));
        commit.peers = commit.watermarks.iter().filter_map(peer).collect();
        Self { commit, replies: replies.len(), numbered, changes: changes.len(), fates }
    }

    /// Shows and confirms what is stored now. Returns the numbers of the dead messages to drop.
    fn publish(self, app: &App) -> Vec<u64> {
        app.outbox.mark_stored(self.numbered, self.replies);
        app.outbox.mark_fates_stored(self.fates);
        let (results, dead) = app.output.mark_stored(self.changes);
        app.metrics.dropped_results.inc_by(results);
        if !dead.is_empty() {
            warn!(count = dead.len(), "too many dead messages: the oldest are dropped");
        }
        dead
    }
}

fn add_changes(commit: &mut Commit, changes: &[Arc<Change>], mut position: u64, mut dead_number: u64) {
    let mut watermarks = HashMap::<&SenderId, u64>::new();
    for change in changes {
        match &change.source {
            Source::Message(sender, seq) => _ = watermarks.insert(sender, *seq),
            Source::DeadLetter(number) => commit.removed_dead.push(*number),
        }
        match &change.outcome {
            Outcome::Result(arrival) => {
                commit.output.push((position, text(&**arrival)));
                position += 1;
            }
            Outcome::Dead(dead) => {
                commit.dead.push((dead_number, text(&**dead)));
                dead_number += 1;
            }
        }
    }
    commit.watermarks = watermarks.into_iter().map(|(sender, watermark)| (sender.clone(), watermark)).collect();
}

/// An arrival was JSON when it came, so this cannot fail; an empty row would be reported at the next start.
fn text(row: &impl serde::Serialize) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

fn set_full(app: &App, full: bool) {
    if app.disk_full.swap(full, Ordering::Relaxed) != full {
        match full {
            true => warn!("{}", StoreError::Full),
            false => info!("the disk under the data directory has free space again"),
        }
    }
}
