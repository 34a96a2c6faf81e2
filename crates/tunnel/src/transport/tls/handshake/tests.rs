//! What a handshake costs, and what it tells about the path.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split};
use tokio::time::{Sleep, sleep};

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

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
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

/// Two ends that know each other.
fn ends() -> (ClientHandshake, ServerHandshake) {
    let (near, far) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    (
        ClientHandshake::new(&near, [far.public_key()], None).unwrap(),
        ServerHandshake::new(&far, [near.public_key()]).unwrap(),
    )
}

/// A handshake over these two ends of a connection.
async fn shake(near: impl Stream, far: impl Stream) -> (Established, Established) {
    shake_as(near, far, |_| {}).await
}

/// A handshake of a dialler that was changed.
pub(super) async fn shake_as(
    near: impl Stream,
    mut far: impl Stream,
    change: impl FnOnce(&mut ClientHandshake),
) -> (Established, Established) {
    let (mut dialler, acceptor) = ends();
    change(&mut dialler);
    let dialling = async {
        let mut dialled = dialler.handshake(Box::new(near), None).await?;
        let flight = std::mem::take(&mut dialled.flight);
        // What the link does, with its first frame behind it.
        std::future::poll_fn(|cx| dialled.stream.poll_write(cx, &[IoSlice::new(&flight)])).await?;
        Ok::<_, TlsError>(dialled)
    };
    let accepting = async {
        let hello = ClientHello::read(&mut far).await?;
        let answer = acceptor.answer(hello).map_err(|(error, _)| error)?;
        answer.finish(Box::new(far), &Semaphore::new(1)).await
    };
    let (dialled, accepted) = tokio::join!(dialling, accepting);
    (dialled.unwrap(), accepted.unwrap())
}

/// Both ends of a connection over a path that takes [`WAY`] each way.
fn connected() -> (DuplexStream, DuplexStream) {
    let (near, near_end) = duplex(MAX_HANDSHAKE);
    let (far, far_end) = duplex(MAX_HANDSHAKE);
    let ((from_near, to_near), (from_far, to_far)) = (split(near_end), split(far_end));
    tokio::spawn(carry(from_near, to_far));
    tokio::spawn(carry(from_far, to_near));
    (near, far)
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_is_the_first_flights_though_the_answer_comes_in_pieces() {
    let (near, far) = connected();
    let (dialled, accepted) = shake(near, far).await;
    let (dialled, accepted) = (dialled.round_trip.unwrap(), accepted.round_trip.unwrap());
    assert!(dialled >= 2 * WAY, "{dialled:?}");
    assert!(accepted >= 2 * WAY, "{accepted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_held_up_behind_its_flight_does_not_make_the_round_trip_shorter() {
    let (near, far) = connected();
    let (near, far) = (Busy::new(near, 3 * WAY), Busy::new(far, 3 * WAY));
    let (dialled, accepted) = shake(near, far).await;
    let (dialled, accepted) = (dialled.round_trip.unwrap(), accepted.round_trip.unwrap());
    assert!(dialled >= 2 * WAY, "{dialled:?}");
    assert!(accepted >= 2 * WAY, "{accepted:?}");
}

/// A stream whose writes are counted, and that holds up for a while who has written.
struct Busy {
    end: DuplexStream,
    writes: Arc<AtomicUsize>,
    pause: Duration,
    /// What was written, until when.
    held: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Busy {
    fn new(end: DuplexStream, pause: Duration) -> Self {
        Self { end, writes: Arc::default(), pause, held: None }
    }
}

impl Stream for Busy {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        Stream::poll_read(&mut self.end, cx, bufs)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.held.is_none() {
            self.writes.fetch_add(1, Ordering::Relaxed);
            let written = ready!(Stream::poll_write(&mut self.end, cx, bufs))?;
            self.held = Some((written, Box::pin(sleep(self.pause))));
        }
        if let Some((_, pause)) = &mut self.held {
            ready!(pause.as_mut().poll(cx));
        }
        Poll::Ready(Ok(self.held.take().map_or(0, |(written, _)| written)))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown(&mut self.end, cx)
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }
}

#[tokio::test]
async fn a_process_that_is_asked_for_is_read_by_who_looks_and_agreed_on_by_nobody() {
    let (dialler, acceptor) = ends();
    for wanted in [None, Some(Hint([7; Hint::LENGTH]))] {
        let (near, mut far) = duplex(MAX_HANDSHAKE);
        let accepting = async {
            let hello = ClientHello::read(&mut far).await.unwrap();
            assert_eq!(hello.hint(), wanted);
            let answer = acceptor.answer(hello).map_err(|(error, _)| error).unwrap();
            answer.finish(Box::new(far), &Semaphore::new(1)).await
        };
        let dialling = async {
            let mut dialled = dialler.handshake(Box::new(near), wanted).await?;
            let flight = std::mem::take(&mut dialled.flight);
            std::future::poll_fn(|cx| dialled.stream.poll_write(cx, &[IoSlice::new(&flight)])).await?;
            Ok::<_, TlsError>(dialled)
        };
        let (dialled, accepted) = tokio::join!(dialling, accepting);
        assert!(dialled.unwrap().proven.tells_origin && accepted.unwrap().proven.tells_origin);
    }
}

#[tokio::test]
async fn every_flight_is_one_write() {
    let (near, far) = duplex(MAX_HANDSHAKE);
    let (near, far) = (Busy::new(near, Duration::ZERO), Busy::new(far, Duration::ZERO));
    let writes = [&near, &far].map(|end| end.writes.clone());
    shake(near, far).await;
    assert_eq!(writes.map(|writes| writes.load(Ordering::Relaxed)), [2, 1]);
}
