//! Connections made one after another reach the far application in that order, where nothing stands in the way.
//!
//! Each is a session with a link of its own, and links know nothing of each other. So the opener numbers the sessions of
//! an egress in their ids, and the acceptor lets the one before connect to the application first, if it is only a moment
//! behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ferry_session::SessionId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// How long a session waits for the ones before it. They may come late, or never.
const EARLIER_SESSION_TIMEOUT: Duration = Duration::from_millis(20);

/// Series of one peer that are remembered.
const MAX_SERIES: usize = 64;

/// An ordinal up to which a series that is new here is taken for one that has just begun.
const MAX_FIRST: u32 = 16;

/// Numbers the sessions of one egress.
pub(crate) struct Series {
    id: [u8; 8],
    next: u32,
}

impl Series {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut id = [0; 8];
        getrandom::fill(&mut id)?;
        Ok(Self { id, next: 0 })
    }

    /// The next session's id: four random bytes, which logs show, then the series and the ordinal within it.
    pub(crate) fn next(&mut self) -> Result<SessionId, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id[..4])?;
        id[4..12].copy_from_slice(&self.id);
        id[12..].copy_from_slice(&self.next.to_be_bytes());
        self.next = self.next.wrapping_add(1);
        Ok(SessionId(id))
    }
}

fn parse(id: SessionId) -> ([u8; 8], u32) {
    let (mut series, mut ordinal) = ([0; 8], [0; 4]);
    series.copy_from_slice(&id.0[4..12]);
    ordinal.copy_from_slice(&id.0[12..]);
    (series, u32::from_be_bytes(ordinal))
}

/// How far the sessions that one peer opens have come.
#[derive(Default)]
pub(crate) struct Arrivals(Mutex<HashMap<[u8; 8], Line>>);

struct Line {
    /// All before it have had their turn.
    next: u32,
    moved: Arc<Notify>,
    used: Instant,
}

/// A session's turn to connect: dropped, it is the next one's.
pub(crate) struct Turn<'a> {
    arrivals: &'a Arrivals,
    series: [u8; 8],
    ordinal: u32,
}

impl Arrivals {
    /// Waits until the sessions that were opened before this one have connected, but not for long.
    pub(crate) async fn turn(&self, id: SessionId) -> Turn<'_> {
        let (series, ordinal) = parse(id);
        let deadline = Instant::now() + EARLIER_SESSION_TIMEOUT;
        loop {
            let moved = self.moved(series, ordinal);
            let notified = moved.notified();
            tokio::pin!(notified);
            // From here on it is told; before, it looks.
            notified.as_mut().enable();
            let is_next = self.is_next(series, ordinal);
            let is_late = !is_next && timeout_at(deadline, notified).await.is_err();
            if is_late {
                debug!(session = %id, "an earlier session is not here in time: this one connects before it");
            }
            if is_next || is_late {
                return Turn { arrivals: self, series, ordinal };
            }
        }
    }

    fn moved(&self, series: [u8; 8], ordinal: u32) -> Arc<Notify> {
        let mut lines = self.lines();
        if lines.len() >= MAX_SERIES && !lines.contains_key(&series) {
            let oldest = lines.iter().min_by_key(|(_, line)| line.used).map(|(series, _)| *series);
            oldest.and_then(|oldest| lines.remove(&oldest));
        }
        let now = Instant::now();
        // Other tunnels' ids are random, and what was before this process began is not waited for.
        let next = if ordinal < MAX_FIRST { 0 } else { ordinal };
        let line = lines.entry(series).or_insert_with(|| Line { next, moved: Arc::default(), used: now });
        line.used = now;
        line.moved.clone()
    }

    fn is_next(&self, series: [u8; 8], ordinal: u32) -> bool {
        // As it wraps: half of all ordinals are before, half behind.
        self.lines().get(&series).is_none_or(|line| ordinal.wrapping_sub(line.next).cast_signed() <= 0)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<[u8; 8], Line>> {
        self.0.lock()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.arrivals.lines().get_mut(&self.series)
            && self.ordinal.wrapping_sub(line.next).cast_signed() >= 0
        {
            line.next = self.ordinal.wrapping_add(1);
            line.moved.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions that arrive in this order and take a moment to connect; in which order they did.
    async fn connected(arrivals: &Arrivals, ids: &[SessionId]) -> Vec<u32> {
        let order = Mutex::new(Vec::new());
        let connect = async |id: SessionId| {
            let turn = arrivals.turn(id).await;
            tokio::task::yield_now().await;
            order.lock().push(parse(id).1);
            drop(turn);
        };
        let connecting: Vec<_> = ids.iter().map(|id| connect(*id)).collect();
        futures_util::future::join_all(connecting).await;
        order.into_inner()
    }

    fn ids(count: usize) -> Vec<SessionId> {
        let mut series = Series::new().expect("random numbers");
        (0..count).map(|_| series.next().expect("random numbers")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_connect_in_the_order_in_which_they_were_opened() {
        let (arrivals, mut ids) = (Arrivals::default(), ids(8));
        ids.reverse();
        assert_eq!(connected(&arrivals, &ids).await, (0..8).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_comes_holds_up_the_others_for_a_moment_only() {
        let (arrivals, ids) = (Arrivals::default(), ids(4));
        let begun = Instant::now();
        let mut order = connected(&arrivals, &[ids[3], ids[1], ids[2]]).await;
        assert!(begun.elapsed() <= EARLIER_SESSION_TIMEOUT + Duration::from_millis(2), "{:?}", begun.elapsed());
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3]);
        let begun = Instant::now();
        assert_eq!(connected(&arrivals, &[ids[0]]).await, [0], "late, it waits for nobody");
        assert!(begun.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn ids_that_tell_no_order_wait_for_nobody() {
        let arrivals = Arrivals::default();
        let begun = Instant::now();
        for number in 0..2 * MAX_SERIES {
            let mut id = [0xab; 16];
            id[4..12].copy_from_slice(&(number as u64).to_be_bytes());
            connected(&arrivals, &[SessionId(id)]).await;
        }
        assert!(begun.elapsed().is_zero());
        assert!(arrivals.lines().len() <= MAX_SERIES);
    }

    #[test]
    fn ids_of_a_series_differ_and_logs_show_them_apart() {
        let ids = ids(100);
        let shown: std::collections::HashSet<_> = ids.iter().map(ToString::to_string).collect();
        assert!(shown.len() >= 99, "{} are shown", shown.len());
    }
}
