use std::sync::Arc;

use ferry_arena::{Identity, Record, State};
use ferry_session::{Block, Epoch, Instance, Session};

use super::{Step, Survival, tag};
use crate::net::Stream;
use crate::sessions::handle::SessionHandle;

/// One session's part of what outlives the process, until dropped.
pub(crate) struct Kept {
    survival: Arc<Survival>,
    record: Record,
    /// Bytes read from the application, and written to it.
    read: u64,
    written: u64,
    /// The end is being passed on to the application, or was.
    shut_down: bool,
    /// It was adopted, and its driver has not been through a round.
    adopting: bool,
}

impl Survival {
    /// Notes a session, before anything of it is done. Nothing if there is no room: it ends with this process, then.
    ///
    /// `preamble`: bytes that the application gets before those of the session. It has them all by the time that its
    /// connection is held.
    pub(crate) fn note(self: &Arc<Self>, handle: &SessionHandle, session: &Session, preamble: usize) -> Option<Kept> {
        let identity = Identity {
            id: session.id(),
            side: session.side(),
            peer: handle.name.peer.as_str().into(),
            service: session.service().into(),
            preamble: preamble.try_into().ok()?,
            origin: handle.origin(),
        };
        let (snapshot, peer) = (session.snapshot(), handle.peer_instance());
        let state = State { snapshot, peer, last_open: Epoch::NONE, shut_down: false };
        let record = self.arena.note(&identity, &state)?;
        Step::Noted.pass();
        Some(Kept { survival: self.clone(), record, read: 0, written: 0, shut_down: false, adopting: false })
    }
}

impl Kept {
    pub(super) fn adopted(survival: Arc<Survival>, record: Record, read: u64, written: u64, shut_down: bool) -> Self {
        record.set_read(read);
        record.set_written(written);
        Self { survival, record, read, written, shut_down, adopting: true }
    }

    /// Has the keeper hold the application's connection, too.
    pub(crate) fn hold(&self, stream: &mut dyn Stream) {
        let tag = tag::session(self.record.key());
        Step::Holding.pass();
        if let Some(descriptor) = stream.descriptor() {
            self.survival.store(&tag, &descriptor);
        }
        stream.share();
        Step::Held.pass();
    }

    /// Stores what the session is about to tell.
    pub(crate) fn store(&mut self, session: &Session, peer: Option<Instance>, last_open: Epoch) {
        if std::mem::take(&mut self.adopting) {
            self.record.end_adoption();
            Step::Adopted.pass();
        }
        let snapshot = session.snapshot();
        Step::Storing.pass();
        self.record.save(&State { snapshot, peer, last_open, shut_down: self.shut_down });
        Step::Stored.pass();
    }

    /// Memory for bytes of the application. Without any left for it they end with this process, and the session with them.
    pub(crate) fn block(&self) -> Block {
        self.record.block().unwrap_or_default()
    }

    pub(crate) fn on_read(&mut self, count: usize) {
        Step::Read.pass();
        self.read += count as u64;
        self.record.set_read(self.read);
        Step::CountedRead.pass();
    }

    pub(crate) fn on_written(&mut self, count: usize) {
        Step::Written.pass();
        self.written += count as u64;
        self.record.set_written(self.written);
        Step::CountedWritten.pass();
    }

    /// The end is passed on to the application next.
    pub(crate) fn on_shutting_down(&mut self) -> bool {
        !std::mem::replace(&mut self.shut_down, true)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        Step::Over.pass();
        self.survival.remove(&tag::session(self.record.key()));
        Step::LetGo.pass();
    }
}
