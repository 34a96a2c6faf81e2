//! A few short messages over a connection whose handshake is done.

use std::io::{self, IoSliceMut};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::net::Stream;
use crate::transport::tls::{
    Established, RECORD_HEADER, RECORD_SEAL, RecordDecryptor, RecordEncryptor, TlsError, send,
};

/// The longest record of a message.
const MAX_RECORD: usize = 4 * 1024;

/// Longest wait for the other end to read what was said last.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// One message each way, each in a record.
pub(crate) struct Channel {
    stream: Box<dyn Stream>,
    encryptor: RecordEncryptor,
    decryptor: RecordDecryptor,
    received: Vec<u8>,
    /// What goes first: the end of the handshake.
    flight: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(established: Established) -> Self {
        let Established { stream, encryptor, decryptor, rest, flight, .. } = established;
        Self { stream, encryptor, decryptor, received: rest, flight }
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), TlsError> {
        let text = serde_json::to_vec(message).map_err(io::Error::other)?;
        let mut record = vec![0; RECORD_HEADER];
        record.extend_from_slice(&text);
        record.resize(record.len() + RECORD_SEAL, 0);
        self.encryptor.seal(&mut record)?;
        let mut bytes = std::mem::take(&mut self.flight);
        bytes.append(&mut record);
        Ok(send(&mut *self.stream, &bytes).await?)
    }

    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, TlsError> {
        loop {
            if let Some(length) = RecordDecryptor::length(&self.received)? {
                let opened = self.decryptor.open(&mut self.received[..length])?;
                let text = opened.data()?.ok_or_else(ended)?;
                return serde_json::from_slice(text).map_err(|_| TlsError::Record("that holds no message"));
            }
            if self.received.len() > MAX_RECORD {
                return Err(TlsError::Record("longer than a message"));
            }
            if self.read_more().await? == 0 {
                return Err(ended());
            }
        }
    }

    /// Says that nothing follows, and waits a moment for the other end to have read it all.
    pub(crate) async fn close(mut self) {
        let closing = async {
            let notify = self.encryptor.close_notify()?;
            send(&mut *self.stream, &notify).await?;
            std::future::poll_fn(|cx| self.stream.poll_shutdown(cx)).await?;
            while self.read_more().await? > 0 {
                self.received.clear();
            }
            Ok::<_, TlsError>(())
        };
        // All has been said: an end that is not heard changes nothing.
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        let (mut chunk, stream) = ([0; 2048], &mut self.stream);
        let count = std::future::poll_fn(|cx| stream.poll_read(cx, &mut [IoSliceMut::new(&mut chunk)])).await?;
        self.received.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

fn ended() -> TlsError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}
