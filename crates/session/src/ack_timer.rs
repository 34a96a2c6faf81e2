use std::time::Duration;

use crate::Time;

/// How long an ack waits for data to travel with.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// When an ack goes out that has nothing to travel with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AckTimer {
    #[default]
    Idle,
    At(Time),
    Due,
}

impl AckTimer {
    /// Something is to be acknowledged; an ack that is owed already is not put off.
    pub(crate) fn start(&mut self, now: Time) {
        if *self == Self::Idle {
            *self = Self::At(now + ACK_DELAY);
        }
    }

    /// An ack was sent. `more`: what the application takes later is acknowledged a little later, too.
    pub(crate) fn on_told(&mut self, now: Time, more: bool) {
        *self = if more { Self::At(now + ACK_DELAY) } else { Self::Idle };
    }

    pub(crate) fn is_due(self) -> bool {
        self == Self::Due
    }

    pub(crate) fn poll_timeout(self) -> Option<Time> {
        match self {
            Self::At(at) => Some(at),
            Self::Idle | Self::Due => None,
        }
    }

    pub(crate) fn on_timeout(&mut self, now: Time) {
        if matches!(*self, Self::At(at) if now >= at) {
            *self = Self::Due;
        }
    }
}
