//! A send buffer whose records are opened where they were sealed.

use crate::tls::{Opened, Opener, Sealer, TlsError, ends};

/// One direction's keys, and a buffer for one record.
pub(crate) struct Records {
    sealer: Sealer,
    opener: Opener,
    buffer: Vec<u8>,
}

impl Records {
    pub(crate) fn new() -> Result<Self, TlsError> {
        let (sealer, opener) = ends()?;
        Ok(Self { sealer, opener, buffer: Vec::with_capacity(32 * 1024) })
    }

    /// Starts a record in the empty buffer.
    pub(crate) fn begin(&mut self) -> usize {
        self.buffer.clear();
        Sealer::begin(&mut self.buffer)
    }

    /// Where the record's plaintext goes.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Seals the record and opens it again.
    pub(crate) fn carry(&mut self, start: usize) -> Result<&[u8], TlsError> {
        self.sealer.seal(&mut self.buffer, start)?;
        match self.opener.open(&mut self.buffer[start..])? {
            Opened::Data(data) => Ok(data),
            Opened::CloseNotify => Err(TlsError::Record("that ends the link")),
        }
    }
}
