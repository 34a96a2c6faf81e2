use std::sync::Arc;
use std::time::{Duration, Instant};

use ferry_keeper::{Client, Event};
use tracing::{info, warn};

use super::{Survival, tag};
use crate::sessions::mailbox::Command;
use crate::shared::Shared;

/// How often the keeper's word is looked for. Nothing waits for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Requests wait for a keeper that is slow: they are sent on this soon.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// How long sessions have to store their sockets again after the keeper was lost.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(2);

/// What was last said of the keeper, and is still to be done.
#[derive(Default)]
struct Attendance {
    lost: bool,
    complete_at: Option<Instant>,
    refused: bool,
}

/// Tells the keeper that this process lives, and stores everything again with the one that comes after a lost one.
pub(crate) async fn attend(shared: Arc<Shared>) {
    let Some(survival) = shared.survival.clone() else { return };
    let mut attendance = Attendance::default();
    loop {
        let pause = attendance.look(&shared, &survival);
        tokio::select! {
            () = shared.stopping() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Attendance {
    /// Says when to look again.
    fn look(&mut self, shared: &Arc<Shared>, survival: &Survival) -> Duration {
        let mut guard = survival.keeper();
        let Some(keeper) = guard.as_mut() else { return LOOK_INTERVAL };
        if keeper.is_lost() {
            if !std::mem::replace(&mut self.lost, true) {
                warn!("the keeper is gone: sessions end with this process until there is another one");
            }
            // It is tried again until there is one.
            let _ = keeper.reconnect();
            return LOOK_INTERVAL;
        }
        // A keeper that is lost is noticed at the next look.
        let _ = keeper.alive();
        let mut welcomed = false;
        while let Ok(Some(event)) = keeper.poll_event() {
            match event {
                Event::Welcomed => welcomed = true,
                Event::Refused { .. } if !std::mem::replace(&mut self.refused, true) => {
                    warn!("the keeper holds as much as it can: further sessions end with this process");
                }
                Event::Refused { .. } | Event::Confirmed { .. } => {}
            }
        }
        if self.complete_at.is_some_and(|at| Instant::now() >= at) {
            self.complete_at = None;
            let _ = keeper.complete();
            let _ = keeper.ready();
        }
        let pause = pause(keeper);
        drop(guard);
        if welcomed {
            (self.lost, self.complete_at) = (false, Some(Instant::now() + RESTORE_TIMEOUT));
            restore(shared, survival);
        }
        pause
    }
}

fn pause(keeper: &Client) -> Duration {
    if keeper.wants_write() { FLUSH_INTERVAL } else { LOOK_INTERVAL.min(keeper.alive_timeout() / 4) }
}

/// Stores everything again.
fn restore(shared: &Arc<Shared>, survival: &Survival) {
    if let Some(descriptor) = survival.arena.fd() {
        survival.store(&tag::arena(), &descriptor);
    }
    for (address, descriptor) in &survival.listeners().kept {
        survival.store(&tag::listener(*address), descriptor);
    }
    let sessions = shared.sessions.list(usize::MAX);
    info!(sessions = sessions.len(), "there is a keeper again");
    for handle in sessions {
        // One that has just ended has nothing to keep.
        let _ = handle.mailbox.send(Command::Hold);
    }
}
