//! What a link sends: frames in records, sealed into one buffer.

use ferry_session::{Frame, TRAILER};

use crate::memory::scratch;
use crate::transport::tls::{APPLICATION_DATA, MAX_PLAINTEXT, RECORD_HEADER, RECORD_SEAL, RecordEncryptor, TlsError};
use crate::transport::unsent::Unsent;

/// Sealed bytes that wait for the socket before no more frames are taken.
const MAX_QUEUED: usize = 256 * 1024;

/// From this on a payload is sealed from where the session keeps it; below, a record is better shared with other frames.
const MIN_IN_PLACE: usize = 4 * 1024;

const _: () = assert!(TRAILER == APPLICATION_DATA, "what stands behind a payload is the content type of its record");

/// The sending half of a link.
pub(super) struct Outgoing {
    encryptor: RecordEncryptor,
    /// Sealed records, and the one that is being filled.
    queue: Unsent,
    /// Where in the queue the record starts that is being filled.
    filling: Option<usize>,
    /// Bytes sealed.
    sealed: u64,
}

impl Outgoing {
    /// The last flight of a handshake goes first.
    pub(super) fn new(encryptor: RecordEncryptor, flight: Vec<u8>) -> Self {
        Self { encryptor, queue: Unsent::new(flight), filling: None, sealed: 0 }
    }

    pub(super) fn records(&self) -> u64 {
        self.encryptor.records()
    }

    pub(super) fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Whether another frame is to be pushed; if not, the socket takes what is queued first.
    pub(super) fn has_room(&self) -> bool {
        !self.queue.is_begun() && self.queue.end() < MAX_QUEUED
    }

    /// Queues a frame. Frames that are pushed together share records.
    pub(super) fn push(&mut self, frame: &Frame<'_>) -> Result<(), TlsError> {
        scratch::with_head(|head| {
            let payload = frame.encode(head);
            let length = head.len() + payload.len();
            if self.filling.is_some_and(|start| self.queue.end() - start - RECORD_HEADER + length > MAX_PLAINTEXT) {
                self.seal()?;
            }
            let start = match self.filling {
                Some(start) => start,
                None => {
                    let start = self.queue.end();
                    self.queue.extend(RECORD_HEADER);
                    start
                }
            };
            self.queue.extend(head.len()).copy_from_slice(head);
            match payload.trailed().filter(|trailed| trailed.len() >= MIN_IN_PLACE) {
                Some(trailed) => {
                    self.queue.extend(payload.len() + RECORD_SEAL);
                    self.filling = None;
                    self.encryptor.seal_from(self.queue.behind(start), trailed)?;
                    self.sealed += (self.queue.end() - start) as u64;
                }
                None => {
                    self.queue.extend(payload.len()).copy_from_slice(payload);
                    self.filling = Some(start);
                }
            }
            Ok(())
        })
    }

    /// Seals the record that is being filled.
    fn seal(&mut self) -> Result<(), TlsError> {
        if let Some(start) = self.filling.take() {
            self.queue.extend(RECORD_SEAL);
            self.encryptor.seal(self.queue.behind(start))?;
            self.sealed += (self.queue.end() - start) as u64;
        }
        Ok(())
    }

    /// What the socket is to take next, sealed.
    pub(super) fn unwritten(&mut self) -> Result<&[u8], TlsError> {
        self.seal()?;
        Ok(self.queue.unwritten())
    }

    /// The socket took so many bytes of it.
    pub(super) fn on_written(&mut self, count: usize) {
        self.queue.on_written(count);
    }

    /// Says that nothing follows.
    pub(super) fn push_close_notify(&mut self) -> Result<(), TlsError> {
        self.seal()?;
        let record = self.encryptor.close_notify()?;
        self.queue.extend(record.len()).copy_from_slice(&record);
        Ok(())
    }
}
