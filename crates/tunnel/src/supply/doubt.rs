//! QUIC that has gone silent: the dial that is to replace such a link does not wait for QUIC first.
//!
//! Datagrams that are dropped in silence look like a path that is slow to answer, so a dial that prefers QUIC gives it a
//! head start. Whoever has just waited for an answer has given it one already.

use std::time::Duration;

use ferry_session::LinkKind;
use tokio::time::Instant;

/// What was not dialled by then is for something else.
const LASTS: Duration = Duration::from_secs(1);

/// Dials that are to try TCP first: as many as links over QUIC have gone silent.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    own: u32,
    offered: u32,
    until: Option<Instant>,
}

impl Doubt {
    /// A link over QUIC has gone silent, and a dial for another one of this kind is to follow.
    pub(crate) fn raise(&mut self, now: Instant, kind: LinkKind) {
        if self.until.is_none_or(|until| until < now) {
            *self = Self::default();
        }
        *self.count(kind) += 1;
        self.until = Some(now + LASTS);
    }

    /// Whether a dial of this kind is to try TCP first. The others go on as ever: they show whether QUIC is back.
    pub(crate) fn take(&mut self, now: Instant, kind: LinkKind) -> bool {
        let until = self.until.filter(|until| now <= *until);
        let count = self.count(kind);
        let takes = until.is_some() && *count > 0;
        *count -= u32::from(takes);
        takes
    }

    fn count(&mut self, kind: LinkKind) -> &mut u32 {
        match kind {
            LinkKind::Own => &mut self.own,
            LinkKind::Offered => &mut self.offered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_dials_try_tcp_first_as_links_have_gone_silent_and_the_others_go_on() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        assert!(!doubt.take(now, LinkKind::Own));
        doubt.raise(now, LinkKind::Own);
        doubt.raise(now, LinkKind::Own);
        assert_eq!([0; 3].map(|_| doubt.take(now, LinkKind::Own)), [true, true, false]);
        assert!(!doubt.take(now, LinkKind::Offered));
    }

    #[test]
    fn a_dial_that_comes_later_is_not_meant() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        doubt.raise(now, LinkKind::Own);
        assert!(!doubt.take(now + LASTS + Duration::from_nanos(1), LinkKind::Own));
        doubt.raise(now + 2 * LASTS, LinkKind::Offered);
        assert!(!doubt.take(now + 2 * LASTS, LinkKind::Own), "nor the dial of before");
        assert!(doubt.take(now + 3 * LASTS, LinkKind::Offered));
    }
}
