//! Stores what waits in the outbox and in the output: everything that came while one commit was under way is the next.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::app::App;
use crate::message::SenderId;
use crate::outbox::{Draft, Numbered};
use crate::output::{Change, Outcome, Source};
use crate::store::{Commit, Store, StoreError};
use crate::webapp::StopError;

/// What one commit holds at most.
const MESSAGES_MAX: usize = 4096;
const BYTES_MAX: usize = 16 << 20;
/// How long acknowledged messages may lie in the store: trimming alone is worth a commit, but in no hurry.
const TRIM_AFTER: Duration = Duration::from_millis(200);
/// How often a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(500);
/// Triggers are refused when the disk has less room than this, or than an eighth of it where it is small, so that
/// acknowledging and trimming can go on.
const RESERVE: u64 = 4 << 20;

/// A commit that takes longer than this is stuck.
const STUCK_TIMEOUT: Duration = Duration::from_secs(10);

/// When the commit in progress began.
#[derive(Debug, Default)]
pub(crate) struct Committing(Mutex<Option<Instant>>);

impl Committing {
    pub(crate) fn begin(&self) {
        *self.since() = Some(Instant::now());
    }

    pub(crate) fn end(&self) {
        *self.since() = None;
    }

    /// How long a commit has been stuck, if one is.
    pub(crate) fn stuck(&self) -> Option<Duration> {
        let since = *self.since();
        since.map(|since| since.elapsed()).filter(|under_way| *under_way >= STUCK_TIMEOUT)
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores until the web-app has ended, and once more if it ends in good order.
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
            Ok(room) => {
                dropped = batch.publish(&app);
                trimmed = acked;
                set_full(&app, room == Room::Little);
            }
            Err(StoreError::Full) => {
                set_full(&app, true);
                app.outbox.refuse(&StoreError::Full);
                // What is acknowledged gives its room back first.
                let result;
                (disk, _, result) = commit(&app, disk, batch.commit.trim()).await?;
                match result {
                    Ok(_) => trimmed = acked,
                    Err(StoreError::Full) => {}
                    Err(error) => return fail(&app, error),
                }
                tokio::select! {
                    () = sleep(FULL_PAUSE) => {}
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
    app.outbox.refuse(&error);
    Err(StopError::Store(error))
}

/// Waits until there is something to store.
async fn work(app: &App, trimmed: u64) {
    let room = async {
        match app.full.load(Ordering::Relaxed) {
            true => sleep(FULL_PAUSE).await,
            false => std::future::pending().await,
        }
    };
    let outbox = async {
        if app.outbox.unstored(trimmed).await {
            return;
        }
        tokio::select! {
            () = sleep(TRIM_AFTER) => {}
            // Nothing is acknowledged beyond the greatest number, so this waits for messages only.
            _ = app.outbox.unstored(u64::MAX) => {}
        }
    };
    tokio::select! {
        () = outbox => {}
        () = app.output.unstored() => {}
        () = room => {}
    }
}

/// Commits where blocking is allowed.
async fn commit(
    app: &App,
    mut disk: Disk,
    commit: Commit,
) -> Result<(Disk, Commit, Result<Room, StoreError>), StopError> {
    app.committing.begin();
    let blocking = spawn_blocking(move || {
        let result = disk.commit(&commit);
        (disk, commit, result)
    });
    let done = blocking.await;
    app.committing.end();
    done.map_err(|error| StopError::Panicked(error.to_string()))
}

/// The store, and the directory whose disk it fills; `None` for a store in memory.
struct Disk {
    store: Store,
    data: Option<PathBuf>,
}

/// Whether the disk has enough left for acknowledging and trimming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    Little,
}

impl Disk {
    /// Commits, and says what room is left. The log's room is taken back before that is little, or not enough to commit.
    fn commit(&mut self, commit: &Commit) -> Result<Room, StoreError> {
        match self.store.commit(commit) {
            Err(StoreError::Full) => {
                self.store.relieve()?;
                self.store.commit(commit)?;
            }
            result => result?,
        }
        match self.room()? {
            Room::Enough => Ok(Room::Enough),
            Room::Little => {
                self.store.relieve()?;
                self.room()
            }
        }
    }

    fn room(&self) -> Result<Room, StoreError> {
        let Some(data) = &self.data else { return Ok(Room::Enough) };
        let spare = self.store.spare()?;
        // A file system that does not tell is found full by its writes.
        let little = rustix::fs::statvfs(data).is_ok_and(|disk| {
            let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
            free.saturating_add_signed(spare) < RESERVE.min(all / 8)
        });
        Ok(if little { Room::Little } else { Room::Enough })
    }
}

/// What one commit stores, and what to publish then.
struct Batch {
    commit: Commit,
    numbered: Vec<Numbered>,
    replies: usize,
    changes: usize,
    fates: usize,
}

impl Batch {
    fn collect(app: &App, dropped: &[u64]) -> Self {
        let (changes, start, end) = app.output.waiting(MESSAGES_MAX);
        let replies: Vec<&Draft> = changes.iter().filter_map(|change| change.reply.as_ref()).collect();
        let numbered = app.outbox.number(&replies, MESSAGES_MAX, BYTES_MAX);
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
            raised: dropped.to_vec(),
            ..Commit::default()
        };
        add_changes(&mut commit, &changes, end, app.output.next_grave());
        Self { commit, replies: replies.len(), numbered, changes: changes.len(), fates }
    }

    /// Shows and confirms what is stored now. Returns the numbers of the dead messages that are to be dropped.
    fn publish(self, app: &App) -> Vec<u64> {
        app.outbox.stored(self.numbered, self.replies);
        app.outbox.fates_stored(self.fates);
        let (results, dead) = app.output.stored(self.changes);
        app.metrics.dropped_results.inc_by(results);
        if !dead.is_empty() {
            warn!(count = dead.len(), "too many dead messages: the oldest are dropped");
        }
        dead
    }
}

fn add_changes(commit: &mut Commit, changes: &[Arc<Change>], mut position: u64, mut grave: u64) {
    let mut watermarks = HashMap::<&SenderId, u64>::new();
    for change in changes {
        match &change.source {
            Source::Message(sender, seq) => _ = watermarks.insert(sender, *seq),
            Source::Grave(number) => commit.raised.push(*number),
        }
        match &change.outcome {
            Outcome::Result(arrival) => {
                commit.output.push((position, text(&**arrival)));
                position += 1;
            }
            Outcome::Dead(dead) => {
                commit.buried.push((grave, text(&**dead)));
                grave += 1;
            }
        }
    }
    commit.watermarks = watermarks.into_iter().map(|(sender, watermark)| (sender.clone(), watermark)).collect();
}

/// An arrival was JSON when it came, so this cannot fail; an empty row would be found at the next start.
fn text(row: &impl serde::Serialize) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

fn set_full(app: &App, full: bool) {
    if app.full.swap(full, Ordering::Relaxed) != full {
        match full {
            true => warn!("{}", StoreError::Full),
            false => info!("the disk under the data directory has room again"),
        }
    }
}
