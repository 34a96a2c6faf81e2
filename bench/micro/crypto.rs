//! A send buffer whose records are opened as a link does.

use crate::tls::{HEADER, Opened, RecordDecryptor, RecordEncryptor, SEAL, TlsError, ends};
use ferry_session::{Block, Frame, Payload};

/// One direction's keys, and a buffer for one record.
pub(crate) struct Records {
    sealer: RecordEncryptor,
    opener: RecordDecryptor,
    head: Vec<u8>,
    buffer: Vec<u8>,
}

impl Records {
    pub(crate) fn new() -> Result<Self, TlsError> {
        let (sealer, opener) = ends()?;
        Ok(Self { sealer, opener, head: Vec::new(), buffer: vec![0; 2 * Block::SIZE] })
    }

    /// Seals a record of the frame: from where its payload is, if that is as it has to be.
    fn seal(&mut self, frame: &Frame<'_>) -> Result<&mut [u8], TlsError> {
        self.head.clear();
        let payload = frame.encode(&mut self.head);
        let front = HEADER + self.head.len();
        let record = &mut self.buffer[..front + payload.len() + SEAL];
        record[HEADER..front].copy_from_slice(&self.head);
        match payload.trailed() {
            Some(trailed) => self.sealer.seal_from(record, trailed)?,
            None => {
                record[front..front + payload.len()].copy_from_slice(payload);
                self.sealer.seal(record)?;
            }
        }
        Ok(record)
    }

    /// Seals a frame and opens it where it was sealed.
    pub(crate) fn carry(&mut self, frame: &Frame<'_>) -> Result<&[u8], TlsError> {
        let length = self.seal(frame)?.len();
        data(self.opener.open(&mut self.buffer[..length])?)
    }

    /// Seals a Data frame and opens it into a block.
    pub(crate) fn carry_into(&mut self, frame: &Frame<'_>, mut block: Block) -> Result<Payload<'static>, TlsError> {
        let length = self.seal(frame)?.len();
        let end = data(self.opener.open_into(&self.buffer[..length], &mut block[..])?)?.len();
        Ok(Payload::owned(block, self.head.len()..end))
    }
}

fn data(opened: Opened<'_>) -> Result<&[u8], TlsError> {
    opened.data()?.ok_or(TlsError::Record("that ends the link"))
}
