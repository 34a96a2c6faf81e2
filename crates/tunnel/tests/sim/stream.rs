//! A simulated connection and its two ends.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ferry_tunnel::net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::Dialling;
use crate::pipe::{Arrived, Cargo, Line, Pipe};

/// Most bytes of one segment.
const SEGMENT: usize = 1024 * 1024;

/// A connection; its end `i` writes to pipe `i` and reads from the other. End 0 has dialled.
pub struct Connection {
    pipes: Mutex<[Pipe; 2]>,
    /// The congestion control that each end has asked for.
    congestion: Mutex<[Option<String>; 2]>,
    begun: Instant,
}

impl Connection {
    pub fn open(line: Line, dialling: Option<Dialling>) -> (Arc<Self>, [End; 2]) {
        let pipes = Mutex::new([Pipe::new(line), Pipe::new(line)]);
        let connection = Arc::new(Self { pipes, congestion: Mutex::default(), begun: Instant::now() });
        let end = |index, dialling| End {
            connection: connection.clone(),
            index,
            dialling,
            ended: false,
            resets: false,
            timers: [None, None],
        };
        let ends = [end(0, dialling), end(1, None)];
        (connection, ends)
    }

    pub fn pipes(&self) -> MutexGuard<'_, [Pipe; 2]> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn congestion(&self) -> MutexGuard<'_, [Option<String>; 2]> {
        self.congestion.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Something on the way ends it: each end reads a FIN or a reset, and what it writes is answered by a reset.
    pub fn cut(&self, reset: bool, loses: bool) {
        for pipe in self.pipes().iter_mut() {
            pipe.deafen(loses);
            pipe.release(Duration::ZERO);
            pipe.send(if reset { Cargo::Rst } else { Cargo::Fin });
        }
    }

    /// Nothing gets through any more, and nobody is told.
    pub fn blacken(&self) {
        self.pipes().iter_mut().for_each(Pipe::blacken);
    }
}

/// An end of a connection, for the tunnel and for applications.
pub struct End {
    connection: Arc<Connection>,
    index: usize,
    /// Counted as being dialled until something comes.
    dialling: Option<Dialling>,
    /// The direction that is written has ended.
    ended: bool,
    resets: bool,
    /// For reading and for writing.
    timers: [Option<Pin<Box<Sleep>>>; 2],
}

/// Waits for `at`.
pub fn poll_at(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    if timer.deadline() != at {
        timer.as_mut().reset(at);
    }
    timer.as_mut().poll(cx)
}

/// Reads what has arrived.
fn fill(pipe: &mut Pipe, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let mut count = 0;
    for buf in bufs {
        let mut filled = 0;
        while filled < buf.len()
            && let Arrived::Data(data) = pipe.arrived()
        {
            let taken = data.read(&mut buf[filled..])?;
            pipe.took(taken);
            filled += taken;
        }
        count += filled;
    }
    Ok(count)
}

impl Stream for End {
    fn poll_read(&mut self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let mut pipes = self.connection.pipes();
            let pipe = &mut pipes[1 - self.index];
            let count = fill(pipe, bufs)?;
            if count > 0 {
                self.dialling = None;
                return Poll::Ready(Ok(count));
            }
            let at = match pipe.arrived() {
                Arrived::Data(_) | Arrived::Fin => return Poll::Ready(Ok(0)),
                Arrived::Rst => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                Arrived::At(at) => Some(at),
                Arrived::Nothing => None,
            };
            pipe.await_cargo(cx);
            let Some(at) = at else { return Poll::Pending };
            drop(pipes);
            ready!(poll_at(&mut self.timers[0], at, cx));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let mut pipes = self.connection.pipes();
            let [out, back] = pick(&mut pipes, self.index);
            if back.has_reset() {
                return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
            }
            if self.ended {
                return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
            }
            let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
            if out.bounces() {
                // The one write succeeds, and tells by the answer that nobody is there.
                let way = out.latency() * 2;
                back.send_after(way.saturating_sub(back.latency()), Cargo::Rst);
                return Poll::Ready(Ok(wanted));
            }
            let at = match out.room() {
                Ok(room) => {
                    let mut left = room.min(SEGMENT);
                    let mut data = VecDeque::with_capacity(wanted.min(left));
                    for buf in bufs {
                        data.extend(&buf[..buf.len().min(left)]);
                        left = room.min(SEGMENT) - data.len();
                    }
                    let count = data.len();
                    out.send(Cargo::Data(data));
                    return Poll::Ready(Ok(count));
                }
                Err(at) => at,
            };
            out.await_room(cx);
            let Some(at) = at else { return Poll::Pending };
            drop(pipes);
            ready!(poll_at(&mut self.timers[1], at, cx));
        }
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            self.resets = false;
            self.connection.pipes()[self.index].send(Cargo::Fin);
        }
        Poll::Ready(Ok(()))
    }

    fn set_unsent_limit(&mut self, bytes: u32) {
        self.connection.pipes()[self.index].set_unsent_limit(bytes as usize);
    }

    fn set_congestion_control(&mut self, name: &str) -> io::Result<()> {
        self.connection.congestion()[self.index] = Some(name.to_owned());
        Ok(())
    }

    fn register_here(self: Box<Self>) -> Box<dyn Stream> {
        self
    }

    fn reset_on_drop(&mut self) {
        self.resets = true;
    }

    fn reset_unless_ended(&mut self) {
        self.resets = true;
    }
}

/// The pipe that end `index` writes, and the one that it reads.
fn pick(pipes: &mut [Pipe; 2], index: usize) -> [&mut Pipe; 2] {
    let [first, second] = pipes;
    if index == 0 { [first, second] } else { [second, first] }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut pipes = self.connection.pipes();
        let [out, back] = pick(&mut pipes, self.index);
        let (unread, coming) = (back.has_unread(), !back.is_empty());
        back.deafen(true);
        if self.resets || unread {
            return out.send(Cargo::Rst);
        }
        if !self.ended {
            out.send(Cargo::Fin);
        }
        if coming {
            // It finds nobody when it arrives.
            out.send_after(back.latency(), Cargo::Rst);
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unfilled = buf.initialize_unfilled();
        let count = ready!(Stream::poll_read(self.get_mut(), cx, &mut [IoSliceMut::new(unfilled)]))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(self.get_mut(), cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown(self.get_mut(), cx)
    }
}
