//! One connection: accepted on one side, dialled on the other, carried in both directions until it ends.

use crate::control::{Control, Cut, Order, Stats};
use crate::line::{End, Line};
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes per read at most.
const READ: usize = 64 * 1024;

/// A throttled connection reads in steps of this length.
const STEPS_PER_SECOND: u64 = 50;

/// How long an end may take to close after it was sent a FIN for a cut.
const LINGER: Duration = Duration::from_millis(200);

/// Why a connection ended.
enum Ending {
    /// Both directions are finished.
    Finished,
    /// One side sent an RST, or the target could not be reached.
    Reset,
    Cut(Cut),
    /// The relay is gone.
    Stopped,
}

/// A connection that has been accepted, under a number of its own, and counted as open.
pub(crate) struct Connection {
    number: u64,
    control: watch::Receiver<Control>,
    stats: Arc<watch::Sender<Stats>>,
}

/// Also when its task is aborted.
impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.send_modify(|stats| stats.open -= 1);
    }
}

/// One of the two sockets.
struct Side {
    stream: TcpStream,
    /// A write failed, which took the socket's error: its next end of file is in truth a reset.
    broken: AtomicBool,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        // A relay that holds small writes back would delay what it is to show; where it cannot be set nothing is lost.
        let _ = stream.set_nodelay(true);
        Self { stream, broken: AtomicBool::new(false) }
    }
}

impl Connection {
    pub(crate) fn new(number: u64, control: watch::Receiver<Control>, stats: Arc<watch::Sender<Stats>>) -> Self {
        Self { number, control, stats }
    }

    /// Carries the connection to its end.
    pub(crate) async fn run(mut self, accepted: TcpStream) {
        let near = Side::new(accepted);
        let mut far = None;
        let ending = self.carry(&near, &mut far).await.unwrap_or_else(|ending| ending);
        let far = far.as_ref();
        match ending {
            Ending::Finished | Ending::Stopped => {}
            Ending::Reset | Ending::Cut(Cut::Rst) => {
                reset(&near);
                far.inspect(|far| reset(far));
            }
            Ending::Cut(Cut::Fin) => {
                let far = async {
                    if let Some(far) = far {
                        finish(far).await;
                    }
                };
                tokio::join!(finish(&near), far);
            }
        }
    }

    /// Dials and carries. `far` is set as soon as there is a socket, so that it is ended like the near one.
    async fn carry(&mut self, near: &Side, far: &mut Option<Side>) -> Result<Ending, Ending> {
        let target = self.admitted().await?;
        let far = &*far.insert(Side::new(begin_connect(target).map_err(|_| Ending::Reset)?));
        self.connected(far).await?;
        let unfinished = AtomicUsize::new(2);
        let up = Way::new(near, far, &unfinished, |stats| &mut stats.bytes_up);
        let down = Way::new(far, near, &unfinished, |stats| &mut stats.bytes_down);
        Ok(tokio::select! {
            ending = up.carry(self) => ending,
            ending = down.carry(self) => ending,
        })
    }

    /// Waits until the connection may flow and its handshake would have crossed the delay both ways.
    async fn admitted(&mut self) -> Result<SocketAddr, Ending> {
        let accepted = Instant::now();
        loop {
            let (control, flows) = self.orders()?;
            tokio::select! {
                biased;
                changed = self.control.changed() => changed.map_err(|_| Ending::Stopped)?,
                () = sleep_until(accepted + 2 * control.delay), if flows => return Ok(control.target),
            }
        }
    }

    async fn connected(&mut self, far: &Side) -> Result<(), Ending> {
        loop {
            self.orders()?;
            tokio::select! {
                biased;
                changed = self.control.changed() => changed.map_err(|_| Ending::Stopped)?,
                _ = far.stream.writable() => return far.stream.peer_addr().map(drop).map_err(|_| Ending::Reset),
            }
        }
    }

    /// What holds now, and whether the connection may flow.
    fn orders(&mut self) -> Result<(Control, bool), Ending> {
        let control = *self.control.borrow_and_update();
        match control.order(self.number) {
            Order::End(cut) => Err(Ending::Cut(cut)),
            Order::Stand => Ok((control, false)),
            Order::Flow => Ok((control, true)),
        }
    }
}

/// One direction.
struct Way<'a> {
    from: &'a Side,
    to: &'a Side,
    line: Line,
    /// Directions of this connection whose FIN is not passed on yet.
    unfinished: &'a AtomicUsize,
    finished: bool,
    /// When a throttled direction may read again.
    read_again: Instant,
    count: fn(&mut Stats) -> &mut u64,
}

impl<'a> Way<'a> {
    fn new(from: &'a Side, to: &'a Side, unfinished: &'a AtomicUsize, count: fn(&mut Stats) -> &mut u64) -> Self {
        let line = Line::default();
        Self { from, to, line, unfinished, finished: false, read_again: Instant::now(), count }
    }

    /// Carries the direction, and returns only when the whole connection has to end.
    async fn carry(mut self, connection: &Connection) -> Ending {
        let mut control = connection.control.clone();
        loop {
            let orders = *control.borrow_and_update();
            match orders.order(connection.number) {
                Order::End(cut) => return Ending::Cut(cut),
                Order::Flow => {}
                Order::Stand => match control.changed().await {
                    Ok(()) => continue,
                    Err(_) => return Ending::Stopped,
                },
            }
            let now = Instant::now();
            let blocked = self.write_due(now, orders.delay, &connection.stats);
            match self.line.end_due(now, orders.delay) {
                Some(End::Reset) => return Ending::Reset,
                Some(End::Finish) if self.pass_finish() => return Ending::Finished,
                _ => {}
            }
            let paused = orders.rate.map(|_| self.read_again).filter(|again| *again > now);
            let ended = self.line.ended();
            let reads = ended.is_none() && paused.is_none() && self.line.has_room(now, orders.delay);
            let wake = [paused, self.line.next(now, orders.delay)].into_iter().flatten().min();
            tokio::select! {
                biased;
                changed = control.changed() => if changed.is_err() {
                    return Ending::Stopped;
                },
                _ = self.to.stream.writable(), if blocked => {}
                _ = self.from.stream.readable(), if reads => self.read(orders.rate),
                // What is not read is not asked for its errors either: an RST would go unnoticed.
                _ = self.from.stream.ready(Interest::ERROR), if !reads && ended != Some(End::Reset) => {
                    self.line.end(Instant::now(), End::Reset);
                }
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// Writes what has come out of the line; true if the receiver takes no more for now.
    fn write_due(&mut self, now: Instant, delay: Duration, stats: &watch::Sender<Stats>) -> bool {
        while let Some(bytes) = self.line.due(now, delay) {
            let length = bytes.len();
            if self.to.broken.load(Ordering::Relaxed) {
                // The other direction finds out how the receiver ended, behind the bytes that it had sent before.
                self.line.take(length);
                continue;
            }
            match self.to.stream.try_write(bytes) {
                Ok(written) => {
                    self.line.take(written);
                    stats.send_modify(|stats| *(self.count)(stats) += written as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.to.broken.store(true, Ordering::Relaxed),
            }
        }
        false
    }

    /// Reads once and says when to read again under `rate`.
    fn read(&mut self, rate: Option<u64>) {
        let step = rate.map_or(READ as u64, |rate| (rate / STEPS_PER_SECOND).clamp(1, READ as u64));
        let mut bytes = vec![0; step as usize];
        let now = Instant::now();
        match self.from.stream.try_read(&mut bytes) {
            Ok(0) if self.from.broken.load(Ordering::Relaxed) => self.line.end(now, End::Reset),
            Ok(0) => self.line.end(now, End::Finish),
            Ok(count) => {
                bytes.truncate(count);
                bytes.shrink_to_fit();
                self.line.push(now, bytes);
                if let Some(rate) = rate {
                    self.read_again = now + Duration::from_secs_f64(count as f64 / rate.max(1) as f64);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.line.end(now, End::Reset),
        }
    }

    /// Passes the FIN on, once; true if it was the connection's last.
    fn pass_finish(&mut self) -> bool {
        if self.finished {
            return false;
        }
        self.finished = true;
        // A receiver that is gone already shows as a reset of the other direction.
        let _ = SockRef::from(&self.to.stream).shutdown(Shutdown::Write);
        self.unfinished.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// A socket on its way to `target`. It exists before it is connected, so that a cut in between ends it as told.
fn begin_connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // In progress, or failed already; whether it is connected shows once it is writable.
    let _ = socket.connect(&target.into());
    TcpStream::from_std(socket.into())
}

/// Makes the close to come an RST.
fn reset(side: &Side) {
    // Fails only on a socket that has been reset already.
    let _ = side.stream.set_zero_linger();
}

/// Sends a FIN, then takes and discards what still arrives until the other end has closed too: a close over unread
/// bytes would be an RST, which can overtake the FIN. An end that does not close gets the RST after [`LINGER`].
async fn finish(side: &Side) {
    let _ = SockRef::from(&side.stream).shutdown(Shutdown::Write);
    let mut discarded = vec![0; READ];
    let taken = async {
        while side.stream.readable().await.is_ok() {
            match side.stream.try_read(&mut discarded) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => break,
            }
        }
    };
    let _ = timeout(LINGER, taken).await;
}
