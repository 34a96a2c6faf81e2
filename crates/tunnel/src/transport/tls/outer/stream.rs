//! The bytes of a connection in TLS, after its handshake.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::memory::scratch::WIRE_SIZE;
use crate::net::Stream;
use crate::transport::layer::{Io, Layer, Layered};

/// The connection as a stream.
pub(super) fn layered(mut socket: TlsStream<Io>) -> Box<dyn Stream> {
    // All that is brought at once is sealed, and then written at once.
    socket.get_mut().1.set_buffer_limit(Some(WIRE_SIZE));
    Layered::new(Outer { socket, failure: None })
}

struct Outer {
    socket: TlsStream<Io>,
    /// What comes behind the bytes that were read last.
    failure: Option<io::Error>,
}

impl Layer for Outer {
    fn io(&self) -> &Io {
        self.socket.get_ref().0
    }

    fn io_mut(&mut self) -> &mut Io {
        self.socket.get_mut().0
    }

    /// Reads all the records that are there: the library hands over one at a time.
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Poll::Ready(Ok(0)) };
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        let mut buf = ReadBuf::new(buf);
        while buf.remaining() > 0 {
            let filled = buf.filled().len();
            match AsyncRead::poll_read(Pin::new(&mut self.socket), cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > filled => {}
                Poll::Ready(Ok(())) => break,
                // An endpoint that closes without a close_notify: what is inside has an end of its own.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    self.failure = Some(error);
                    break;
                }
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let brought = bufs.iter().any(|buf| !buf.is_empty());
        loop {
            match self.socket.get_mut().1.writer().write_vectored(bufs)? {
                // It is full of what the library itself had to say.
                0 if brought => ready!(self.poll_flush(cx))?,
                count => return Poll::Ready(Ok(count)),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.socket), cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
