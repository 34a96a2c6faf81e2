//! What a handshake tells about the path.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split};
use tokio::time::sleep;

use super::*;

const WAY: Duration = Duration::from_millis(50);

/// Between two pieces of one flight.
const GAP: Duration = Duration::from_millis(1);

/// A flight comes in as many pieces of this size as it takes.
const PIECE: usize = 100;

impl Stream for DuplexStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(&mut bufs[0]);
        ready!(AsyncRead::poll_read(Pin::new(self), cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(Pin::new(self), cx, bufs)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), cx)
    }

    fn limit_unsent(&mut self, _: u32) {}

    fn be_local(&mut self) {}

    fn settle(self: Box<Self>) -> Box<dyn Stream> {
        self
    }

    fn reset_on_drop(&mut self) {}
}

/// The first piece of a flight takes [`WAY`], each further one [`GAP`] more.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut flight = vec![0; MAX_HANDSHAKE];
    while let Ok(length @ 1..) = from.read(&mut flight).await {
        sleep(WAY).await;
        for piece in flight[..length].chunks(PIECE) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            sleep(GAP).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_is_the_first_flights_though_the_answer_comes_in_pieces() {
    let (near, far) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let dialler = Dialler::new(&near, [far.public_key()]).unwrap();
    let acceptor = Acceptor::new(&far, [near.public_key()]).unwrap();
    let (ours, near_end) = duplex(MAX_HANDSHAKE);
    let (mut theirs, far_end) = duplex(MAX_HANDSHAKE);
    let ((from_near, to_near), (from_far, to_far)) = (split(near_end), split(far_end));
    tokio::spawn(carry(from_near, to_far));
    tokio::spawn(carry(from_far, to_near));
    let accepting = async {
        let hello = Acceptor::client_hello(&mut theirs).await?;
        acceptor.handshake(Box::new(theirs), hello).await
    };
    let (dialled, accepted) = tokio::join!(dialler.handshake(Box::new(ours)), accepting);
    let dialled = dialled.unwrap().round_trip.unwrap();
    let accepted = accepted.unwrap().round_trip.unwrap();
    assert!(dialled >= 2 * WAY, "{dialled:?}");
    assert!(accepted >= 2 * WAY, "{accepted:?}");
}
