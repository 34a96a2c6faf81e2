//! Commits what waits in the outbox and in the output. Everything that came during one commit makes up the next.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use crate::app::App;
use crate::error::StopError;
use crate::message::SenderId;
use crate::outbox::{NewMessage, NumberedMessage};
use crate::output::{Change, Outcome, Source};
use crate::sites::Site;
use crate::store::{Commit, OutboxCommit, Store, StoreError};

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
    let (mut dropped, mut turn, mut last) = (Vec::new(), 0, false);
    while !last {
        last = tokio::select! {
            biased;
            () = app.phases.committing.cancelled() => true,
            () = app.phases.ended.cancelled() => return Ok(()),
            () = work(&app) => false,
        };
        let mut batch = Batch::collect(&app, &dropped, turn);
        turn += 1;
        let result;
        (disk, batch.commit, result) = commit(&app, disk, batch.commit).await?;
        match result {
            Ok(space) => {
                dropped = batch.publish(&app);
                set_full(&app, space == DiskSpace::Low);
            }
            Err(StoreError::Full) => {
                set_full(&app, true);
                reject_waiting(&app, &StoreError::Full);
                // Free the space of acknowledged messages first.
                let (trim, result);
                (disk, trim, result) = commit(&app, disk, batch.commit.trim()).await?;
                match result {
                    Ok(_) => {
                        for (site, trimmed) in batch.outboxes.iter().zip(&trim.outboxes) {
                            site.site.mark_stored(None, trimmed.acked);
                        }
                        app.sites.mark_forgotten(&trim.forgotten);
                    }
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
    reject_waiting(app, &error);
    Err(StopError::Store(error))
}

fn reject_waiting(app: &App, error: &StoreError) {
    for site in app.sites.all() {
        site.outbox.reject_waiting(error);
    }
}

/// Waits until there is something to store.
async fn work(app: &App) {
    let disk_retry = async {
        match app.disk_full.load(Ordering::Relaxed) {
            true => sleep(DISK_RETRY_INTERVAL).await,
            false => std::future::pending().await,
        }
    };
    let outboxes = async {
        let mut trim_at: Option<Instant> = None;
        loop {
            let changed = app.sites.pool().work.notified();
            let (store, free) = app.sites.are_unstored();
            if store {
                return;
            }
            if free && trim_at.is_none() {
                trim_at = Some(Instant::now() + TRIM_DELAY);
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(trim_at.unwrap_or_else(Instant::now)), if trim_at.is_some() => return,
            }
        }
    };
    tokio::select! {
        () = outboxes => {}
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
    /// In the order of the commit's.
    outboxes: Vec<OutboxBatch>,
    changes: usize,
}

/// The part of one site.
struct OutboxBatch {
    site: Arc<Site>,
    numbered: Vec<NumberedMessage>,
    replies: usize,
    fates: usize,
}

impl Batch {
    /// What waits. If that is more than a commit holds, the site that is served first depends on whose `turn` it is.
    fn collect(app: &App, dropped: &[u64], turn: usize) -> Self {
        let (changes, start, end) = app.output.waiting(MAX_COMMIT_MESSAGES);
        // Read before the sites: what is removed here must not have anything in this commit.
        let forgotten = app.sites.forgotten();
        let mut sites = app.sites.all();
        let first = turn % sites.len();
        sites.rotate_left(first);
        let mut replies = HashMap::<*const Site, Vec<&NewMessage>>::new();
        for (site, reply) in changes.iter().filter_map(|change| change.reply.as_ref()) {
            replies.entry(Arc::as_ptr(site)).or_default().push(reply);
        }
        let mut commit = Commit {
            forgotten,
            output_start: start,
            dead_start: app.output.dead_start(),
            removed_dead: dropped.to_vec(),
            ..Commit::default()
        };
        let (mut messages, mut bytes, mut outboxes) = (MAX_COMMIT_MESSAGES, MAX_COMMIT_BYTES, Vec::new());
        for site in sites {
            let replies = replies.remove(&Arc::as_ptr(&site)).unwrap_or_default();
            if replies.is_empty() && site.is_unstored() == (false, false) {
                continue;
            }
            let numbered = site.outbox.number(&replies, if bytes == 0 { 0 } else { messages }, bytes);
            messages = messages.saturating_sub(numbered.len());
            bytes = bytes.saturating_sub(numbered.iter().map(|numbered| numbered.text.len()).sum());
            // Read before the fates, so that every message acknowledged here has its fate stored with it.
            let acked = site.outbox.acked();
            let mut keys = site.outbox.fates();
            let fates = keys.len();
            keys.extend(numbered.iter().filter_map(|numbered| numbered.key.clone()));
            commit.outboxes.push(OutboxCommit {
                site: site.number,
                record: site.record(),
                outbox: numbered.iter().map(|numbered| (numbered.seq, numbered.text.clone())).collect(),
                headers: numbered.iter().filter_map(NumberedMessage::stored_headers).collect(),
                acked,
                keys,
                keys_start: site.outbox.keys_start(),
            });
            outboxes.push(OutboxBatch { site, replies: replies.len(), numbered, fates });
        }
        add_changes(&mut commit, &changes, end, app.output.next_dead());
        let peer = |(sender, _): &(SenderId, u64)| Some((sender.clone(), app.output.peer_of(sender)?));
        commit.peers = commit.watermarks.iter().filter_map(peer).collect();
        Self { commit, outboxes, changes: changes.len() }
    }

    /// Shows and confirms what is stored now. Returns the numbers of the dead messages to drop.
    fn publish(self, app: &App) -> Vec<u64> {
        for (batch, stored) in self.outboxes.into_iter().zip(&self.commit.outboxes) {
            let OutboxBatch { site, numbered, replies, fates } = batch;
            site.outbox.mark_stored(numbered, replies);
            site.outbox.mark_fates_stored(fates);
            site.mark_stored(stored.record.as_ref(), stored.acked);
        }
        app.sites.mark_forgotten(&self.commit.forgotten);
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
