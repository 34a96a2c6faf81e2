use crate::link::Link;
use crate::{Epoch, Intent};

/// How a session stands to its links. The diagram is in the crate's documentation.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// No link.
    Detached,
    /// Opener: the Hello is on its way on `next`. A rotate, or a resume of a suspect link, leaves `current` in use.
    Attaching { current: Option<Link>, next: Link, intent: Intent },
    /// One link carries everything.
    Attached { link: Link },
    /// A rotation: what this end sends goes on `link`; what it receives comes from `old` up to the peer's Retire.
    Draining { old: Link, link: Link },
    /// One last frame is to be sent.
    Closing { link: Link, farewell: Farewell },
    /// Over.
    Closed,
}

/// The last frame of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Answers the peer's Reset.
    Done,
    /// Tells the peer how it broke the protocol.
    Reset(Box<str>),
}

/// The part that a link plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Read and written.
    Current,
    /// A Hello is out on it.
    Next,
    /// Read to its Retire.
    Old,
    /// Written; read when the old one has ended.
    Fresh,
}

impl Attachment {
    /// What it was, to become something else. Detached until then.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Detached)
    }

    /// The part that the link of this epoch plays, if it still has one.
    pub(crate) fn part(&self, epoch: Epoch) -> Option<Part> {
        let is = |link: &Link| link.epoch == epoch;
        match self {
            Self::Attaching { current: Some(link), .. } if is(link) => Some(Part::Current),
            Self::Attaching { next, .. } if is(next) => Some(Part::Next),
            Self::Attached { link } | Self::Closing { link, .. } if is(link) => Some(Part::Current),
            Self::Draining { old, .. } if is(old) => Some(Part::Old),
            Self::Draining { link, .. } if is(link) => Some(Part::Fresh),
            _ => None,
        }
    }

    pub(crate) fn link_mut(&mut self, epoch: Epoch) -> Option<&mut Link> {
        match self.pair_mut() {
            (Some(link), _) | (_, Some(link)) if link.epoch == epoch => Some(link),
            _ => None,
        }
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        let (first, second) = match self {
            Self::Detached | Self::Closed => (None, None),
            Self::Attaching { current, next, .. } => (current.as_ref(), Some(next)),
            Self::Attached { link } | Self::Closing { link, .. } => (Some(link), None),
            Self::Draining { old, link } => (Some(old), Some(link)),
        };
        first.into_iter().chain(second)
    }

    pub(crate) fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        let (first, second) = self.pair_mut();
        first.into_iter().chain(second)
    }

    fn pair_mut(&mut self) -> (Option<&mut Link>, Option<&mut Link>) {
        match self {
            Self::Detached | Self::Closed => (None, None),
            Self::Attaching { current, next, .. } => (current.as_mut(), Some(next)),
            Self::Attached { link } | Self::Closing { link, .. } => (Some(link), None),
            Self::Draining { old, link } => (Some(old), Some(link)),
        }
    }

    /// The established link that application bytes are sent on.
    pub(crate) fn write_link(&self) -> Option<&Link> {
        match self {
            Self::Attaching { current: Some(link), .. } | Self::Attached { link } | Self::Draining { link, .. } => {
                Some(link)
            }
            _ => None,
        }
    }

    /// The links that are read now: silence says something only of them.
    pub(crate) fn read_links(&self) -> impl Iterator<Item = &Link> {
        self.links().filter(|link| self.is_read(link.epoch))
    }

    /// Whether frames of this link are taken now. While a rotation drains the old link, the new one waits.
    pub(crate) fn is_read(&self, epoch: Epoch) -> bool {
        match self {
            Self::Draining { old, .. } if old.peer_retired => epoch != old.epoch,
            Self::Draining { old, .. } => epoch == old.epoch,
            attachment => attachment.part(epoch).is_some(),
        }
    }

    /// Whether an established link carries the session.
    pub(crate) fn is_attached(&self) -> bool {
        matches!(self, Self::Attaching { current: Some(_), .. } | Self::Attached { .. } | Self::Draining { .. })
    }
}
