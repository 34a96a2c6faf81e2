//! A connection that is led to another replica: its bytes, both ways, as they are.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::memory::scratch::with_read_buffer;
use crate::net::Stream;
use crate::transport::dial::HANDSHAKE_TIMEOUT;

/// A connection that is there after this long is a peer's: the replica at the other end lets nobody stay without a proof
/// for longer than for a ClientHello and a handshake.
const SETTLED_AGE: Duration = HANDSHAKE_TIMEOUT.saturating_mul(2);

/// As is one that the replica has sent this much over: nobody gets half as much without a proof.
const SETTLED_BYTES: u64 = 8 * 1024;

/// A connection over which nothing comes for this long is given up: both ends of a link speak far more often.
const MAX_SILENCE: Duration = Duration::from_secs(300);

/// Once one direction has ended, the other one is waited for no longer than this without a byte.
const MAX_LINGER: Duration = Duration::from_secs(10);

/// Bytes that are taken at once, and so the most that are held in each direction.
const CHUNK: usize = 64 * 1024;

/// Pieces before the task lets others run.
const MAX_PIECES_PER_POLL: usize = 8;

/// One direction. While all that came has gone on it holds nothing.
#[derive(Default)]
struct Direction {
    unsent: Vec<u8>,
    sent: usize,
    came_to_end: bool,
    is_over: bool,
    /// Bytes that came.
    carried: u64,
}

impl Direction {
    /// Moves what can be moved. Ready when the end has been passed on.
    fn poll(&mut self, from: &mut dyn Stream, to: &mut dyn Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..MAX_PIECES_PER_POLL {
            while self.sent < self.unsent.len() {
                self.sent += ready!(to.poll_write(cx, &[IoSlice::new(&self.unsent[self.sent..])]))?;
            }
            (self.unsent, self.sent) = (Vec::new(), 0);
            if self.came_to_end {
                ready!(to.poll_shutdown(cx))?;
                self.is_over = true;
                return Poll::Ready(Ok(()));
            }
            ready!(with_read_buffer(|buffer| self.poll_piece(from, to, cx, &mut buffer[..CHUNK])))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_piece(
        &mut self,
        from: &mut dyn Stream,
        to: &mut dyn Stream,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let count = ready!(from.poll_read(cx, &mut [IoSliceMut::new(buffer)]))?;
        self.came_to_end = count == 0;
        self.carried += count as u64;
        let mut piece = &buffer[..count];
        while !piece.is_empty() {
            match to.poll_write(cx, &[IoSlice::new(piece)])? {
                Poll::Ready(written) => piece = &piece[written..],
                Poll::Pending => {
                    self.unsent = piece.to_vec();
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What happens with a spliced connection.
#[derive(Debug, PartialEq, Eq)]
enum Happened {
    Settled,
    OneEnded,
    Over,
}

struct Splice {
    near: Box<dyn Stream>,
    far: Box<dyn Stream>,
    up: Direction,
    down: Direction,
    has_settled: bool,
    one_ended: bool,
}

impl Splice {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let up = self.up.poll(&mut *self.near, &mut *self.far, cx);
        let down = self.down.poll(&mut *self.far, &mut *self.near, cx);
        let one_ended = match (up, down) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(Happened::Over),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Happened::Over),
            (up, down) => up.is_ready() || down.is_ready(),
        };
        if !self.has_settled && self.down.carried >= SETTLED_BYTES {
            self.has_settled = true;
            return Poll::Ready(Happened::Settled);
        }
        if one_ended && !self.one_ended {
            self.one_ended = true;
            return Poll::Ready(Happened::OneEnded);
        }
        Poll::Pending
    }

    fn carried(&self) -> u64 {
        self.up.carried + self.down.carried
    }
}

/// Carries bytes between a dialler and a replica until both directions have ended, or the connection is given up.
/// `on_settled` is called once it must have proved a key to the replica.
pub(crate) async fn carry(near: Box<dyn Stream>, far: Box<dyn Stream>, on_settled: impl FnOnce()) {
    let (up, down) = (Direction::default(), Direction::default());
    let mut splice = Splice { near, far, up, down, has_settled: false, one_ended: false };
    let settled_at = Instant::now() + SETTLED_AGE;
    let mut on_settled = Some(on_settled);
    loop {
        let before = splice.carried();
        let patience = if splice.one_ended { MAX_LINGER } else { MAX_SILENCE };
        let has_settled = tokio::select! {
            happened = std::future::poll_fn(|cx| splice.poll(cx)) => match happened {
                Happened::Over => return,
                Happened::OneEnded => false,
                Happened::Settled => true,
            },
            () = sleep_until(settled_at), if on_settled.is_some() => true,
            () = sleep(patience) => {
                if splice.carried() == before {
                    return;
                }
                false
            }
        };
        if has_settled {
            splice.has_settled = true;
            on_settled.take().into_iter().for_each(|tell| tell());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    /// The two outer ends of a splice through pipes that hold little, and the splice.
    fn spliced(on_settled: impl FnOnce()) -> (DuplexStream, DuplexStream, impl Future<Output = ()>) {
        let ((dialler, near), (far, replica)) = (duplex(1000), duplex(1000));
        (dialler, replica, carry(Box::new(near), Box::new(far), on_settled))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_both_ways_as_they_are_and_so_do_their_ends() {
        let (mut dialler, mut replica, splice) = spliced(|| ());
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let up = async {
            dialler.write_all(&sent).await.unwrap();
            dialler.shutdown().await.unwrap();
            let mut answer = String::new();
            dialler.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let down = async {
            let mut received = Vec::new();
            replica.read_to_end(&mut received).await.unwrap();
            replica.write_all(b"an answer after the end of the other direction").await.unwrap();
            replica.shutdown().await.unwrap();
            received
        };
        let ((), answer, received) = tokio::join!(splice, up, down);
        assert_eq!(answer, "an answer after the end of the other direction");
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn it_has_settled_with_more_than_a_stranger_gets_or_with_time() {
        for (bytes, expected) in [(SETTLED_BYTES, Duration::ZERO), (SETTLED_BYTES / 2, SETTLED_AGE)] {
            let (tell, told) = tokio::sync::oneshot::channel();
            let (mut dialler, mut replica, splice) = spliced(|| tell.send(Instant::now()).unwrap());
            let begun = Instant::now();
            let exchange = async {
                let answer = vec![7; bytes as usize];
                let read = async { dialler.read_exact(&mut vec![0; bytes as usize]).await.map(drop) };
                tokio::try_join!(replica.write_all(&answer), read).unwrap();
                told.await.unwrap()
            };
            let settled = tokio::select! { () = splice => panic!("it is over"), settled = exchange => settled };
            let took = settled - begun;
            assert!(took >= expected && took <= expected + Duration::from_millis(5), "{bytes} bytes: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_silent_for_too_long_or_half_ended_is_given_up() {
        let (dialler, _replica, splice) = spliced(|| ());
        let begun = Instant::now();
        splice.await;
        assert!(
            begun.elapsed() >= MAX_SILENCE && begun.elapsed() <= MAX_SILENCE + 2 * SETTLED_AGE,
            "{:?}",
            begun.elapsed()
        );
        drop(dialler);
        let (mut dialler, _replica, splice) = spliced(|| ());
        dialler.shutdown().await.unwrap();
        timeout(MAX_LINGER + Duration::from_secs(1), splice).await.expect("the other direction says nothing");
    }
}
