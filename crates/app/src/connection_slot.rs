//! Which of several WebSockets from the far side is served.

use tokio::sync::{Mutex, MutexGuard, watch};

/// Serves one WebSocket from the far side at a time. The newest wins: when a second one arrives, the first is most likely
/// dead without its end having been noticed yet.
#[derive(Debug, Default)]
pub(crate) struct ConnectionSlot {
    newest: watch::Sender<u64>,
    occupied: Mutex<()>,
}

impl ConnectionSlot {
    /// Announces a new connection, which tells all earlier ones to end. Returns its number.
    pub(crate) fn announce(&self) -> u64 {
        let mut number = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        number
    }

    /// Waits until a connection newer than `number` has been announced.
    pub(crate) async fn superseded(&self, number: u64) {
        // Fails only if the watch's sender is gone, which `self` owns.
        let _ = self.newest.subscribe().wait_for(|newest| *newest > number).await;
    }

    /// Occupies the slot, if it is free.
    pub(crate) fn try_occupy(&self) -> Option<MutexGuard<'_, ()>> {
        self.occupied.try_lock().ok()
    }

    /// Occupies the slot once the connection in it has ended.
    pub(crate) async fn occupy(&self) -> MutexGuard<'_, ()> {
        self.occupied.lock().await
    }
}
