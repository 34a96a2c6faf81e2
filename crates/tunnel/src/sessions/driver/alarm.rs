//! What wakes a session's task when nothing else does.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use ferry_session::Time;
use tokio::time::{Instant, Sleep};

/// The moment at which something is due, as it was told last.
#[derive(Default)]
pub(super) struct Alarm {
    due: Option<Time>,
    /// Rings at `at`, which is not later. The moment mostly moves away: to ring too early now and then costs less than to
    /// follow it each time.
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Time>,
}

impl Alarm {
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Something is `due` then. Has the task woken by that time, or says that it rings now.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        due: Option<Time>,
        instant: impl FnOnce(Time) -> Instant,
    ) -> bool {
        self.due = due;
        let Some(due) = due else { return false };
        if self.at.is_none_or(|at| at > due) {
            self.at = Some(due);
            match self.sleep.as_mut() {
                Some(sleep) => sleep.as_mut().reset(instant(due)),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(instant(due)))),
            }
        }
        let rings = self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if rings {
            self.at = None;
        }
        rings
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_origin(Duration::from_millis(millis))
    }

    struct Clock(Instant);

    impl Clock {
        fn now(&self) -> Time {
            Time::from_origin(self.0.elapsed())
        }

        fn instant(&self, time: Time) -> Instant {
            self.0 + time.since_origin()
        }

        /// Sleeps until the alarm rings.
        async fn ring(&self, alarm: &mut Alarm, due: Time) -> Duration {
            poll_fn(
                |cx| if alarm.poll(cx, Some(due), |at| self.instant(at)) { Poll::Ready(()) } else { Poll::Pending },
            )
            .await;
            self.0.elapsed()
        }

        /// Tells it another moment, which is not now.
        async fn tell(&self, alarm: &mut Alarm, due: Option<Time>) {
            let rings = poll_fn(|cx| Poll::Ready(alarm.poll(cx, due, |at| self.instant(at)))).await;
            assert!(!rings, "too early");
        }
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_something_is_due_that_has_come_nearer() {
        let (clock, mut alarm) = (Clock(Instant::now()), Alarm::default());
        clock.tell(&mut alarm, Some(at(1000))).await;
        assert_eq!(clock.ring(&mut alarm, at(25)).await, 25 * MILLI);
        assert!(alarm.is_due(clock.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_may_ring_early_when_that_has_moved_away_and_then_rings_in_time() {
        let (clock, mut alarm) = (Clock(Instant::now()), Alarm::default());
        clock.tell(&mut alarm, Some(at(25))).await;
        assert_eq!(clock.ring(&mut alarm, at(1000)).await, 25 * MILLI);
        assert!(!alarm.is_due(clock.now()));
        assert_eq!(clock.ring(&mut alarm, at(1000)).await, 1000 * MILLI);
        assert!(alarm.is_due(clock.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_any_more_once_it_was_told_so() {
        let (clock, mut alarm) = (Clock(Instant::now()), Alarm::default());
        clock.tell(&mut alarm, Some(at(25))).await;
        clock.tell(&mut alarm, None).await;
        tokio::time::advance(50 * MILLI).await;
        assert!(!alarm.is_due(clock.now()));
    }
}
