//! The applications of a speed measurement: blocking threads, so that they cost little beside the tunnel.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use ferry_relay::Pattern;

/// Bytes of one system call.
const CALL: usize = 256 * 1024;

/// The stream repeats after this many bytes: a prime, so that no frame, record or buffer has its length, and what
/// is lost, doubled or swapped does not fit where it comes.
const PERIOD: usize = 262_147;

/// How long an application waits for its socket before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From the end that connects.
    Up,
    /// To the end that connects.
    Down,
    /// Both at once.
    Both,
}

impl Way {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Both];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both ways",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|way| *way as u8 == byte)
    }
}

/// A first byte that asks for everything, this byte too, to be sent back.
const ECHO: u8 = crate::pair::FILLING;

/// What all streams of a run have done.
#[derive(Debug, Default)]
struct Board {
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Board {
    fn fail(&self, error: &anyhow::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| format!("{error:#}"));
        self.stop.store(true, Relaxed);
    }
}

/// The application that is connected to: a thread per connection.
#[derive(Debug)]
pub(crate) struct App {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    stream: Arc<Stream>,
    board: Arc<Mutex<Arc<Board>>>,
    closed: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl App {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST)
    }

    /// Listens on a free port of an address.
    ///
    /// # Errors
    /// Those of binding.
    pub(crate) fn start_on(ip: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0))?;
        let (addr, stream, board) = (listener.local_addr()?, Arc::new(Stream::new()), Arc::<Mutex<_>>::default());
        let closed = Arc::new(AtomicBool::new(false));
        let accepting = thread::spawn({
            let (stream, board, closed) = (stream.clone(), Arc::clone(&board), closed.clone());
            move || {
                for socket in listener.incoming().flatten() {
                    if closed.load(Relaxed) {
                        return;
                    }
                    let (stream, board) = (stream.clone(), board.clone());
                    thread::spawn(move || serve(socket, &stream, &board));
                }
            }
        });
        Ok(Self { addr, stream, board, closed, accepting: Some(accepting) })
    }

    /// Connects streams through `near` and lets them run.
    ///
    /// # Errors
    /// When one cannot be connected.
    pub(crate) fn run(&self, near: SocketAddr, streams: u8, way: Way) -> Result<Run> {
        let board = Arc::new(Board::default());
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = board.clone();
        let mut run = Run { board: board.clone(), threads: Vec::new() };
        for number in 0..streams {
            let mut socket = TcpStream::connect(near)?;
            prepare(&socket)?;
            socket.write_all(&[way as u8, number])?;
            let (stream, board) = (self.stream.clone(), board.clone());
            let directions = [way != Way::Down, way != Way::Up];
            run.threads.push(thread::spawn(move || transfer(&socket, &stream, &board, number, directions, true)));
        }
        Ok(run)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.closed.store(true, Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Streams that run. Dropping it stops them, and does not wait.
#[derive(Debug)]
pub(crate) struct Run {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
}

impl Run {
    /// Bytes that arrived and were right, in all streams and both ways.
    pub(crate) fn received(&self) -> u64 {
        self.board.received.load(Relaxed)
    }

    /// Stops sending, and checks that everything sent arrived.
    ///
    /// # Errors
    /// When a stream failed, a byte was wrong or some are missing.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.board.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            ensure!(thread.join().is_ok(), "a thread panicked");
        }
        if let Some(failure) = self.board.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bail!("{failure}");
        }
        let [sent, received] = [&self.board.sent, &self.board.received].map(|count| count.load(Relaxed));
        ensure!(sent == received, "{sent} bytes were sent and {received} arrived");
        Ok(())
    }
}

impl Run {
    /// Stops sending, and checks what has arrived so far: over a path that loses packets the rest may take minutes.
    ///
    /// # Errors
    /// When a stream failed or a byte was wrong.
    pub(crate) fn abandon(self) -> Result<()> {
        match self.board.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.board.stop.store(true, Relaxed);
    }
}

/// The bytes that all streams carry, each from another place on; twice in a row, so that a call needs no seam.
#[derive(Debug)]
struct Stream(Vec<u8>);

impl Stream {
    fn new() -> Self {
        let mut bytes = vec![0; 2 * PERIOD];
        let (first, second) = bytes.split_at_mut(PERIOD);
        Pattern::new(0x000f_e441).fill(0, first);
        second.copy_from_slice(first);
        Self(bytes)
    }

    /// Up to [`CALL`] bytes at `position`.
    fn at(&self, position: usize) -> &[u8] {
        &self.0[position..position + CALL]
    }

    /// Where stream `number` begins, so that bytes that get into another stream show.
    fn start(number: u8) -> usize {
        usize::from(number) * 1009
    }
}

fn prepare(socket: &TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

fn serve(mut socket: TcpStream, stream: &Stream, board: &Mutex<Arc<Board>>) {
    let mut first = [0];
    if prepare(&socket).is_err() || socket.read_exact(&mut first).is_err() {
        return;
    }
    let board = board.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if first[0] == ECHO {
        // How it ends is seen by who asked for it.
        let _ = echo(&socket, ECHO);
    } else if let Some(way) = Way::from_byte(first[0]) {
        let mut number = [0];
        if socket.read_exact(&mut number).is_ok() {
            transfer(&socket, stream, &board, number[0], [way != Way::Up, way != Way::Down], false);
        }
    }
}

fn echo(mut socket: &TcpStream, first: u8) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    bytes[0] = first;
    let mut count = 1;
    while count > 0 {
        socket.write_all(&bytes[..count])?;
        count = socket.read(&mut bytes)?;
    }
    Ok(())
}

/// One end of a stream until both ways have ended. Who sends ends first, so that nobody half-closes before everything
/// has arrived: some tunnels do not survive that. Of two who send, the one that `leads` does.
fn transfer(socket: &TcpStream, stream: &Stream, board: &Board, number: u8, [sends, receives]: [bool; 2], leads: bool) {
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            if sends {
                send(socket, stream, board, number).unwrap_or_else(|error| board.fail(&error));
                if leads || !receives {
                    // Fails where the connection has; its reader says why.
                    let _ = socket.shutdown(Shutdown::Write);
                }
            }
        });
        let received = receive(socket, stream, board, number, receives);
        received.unwrap_or_else(|error| board.fail(&error));
        let _ = sending.join();
    });
}

fn send(mut socket: &TcpStream, stream: &Stream, board: &Board, number: u8) -> Result<()> {
    let mut position = Stream::start(number);
    while !board.stop.load(Relaxed) {
        let count = match socket.write(stream.at(position)) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("sending"),
        };
        position = (position + count) % PERIOD;
        board.sent.fetch_add(count as u64, Relaxed);
    }
    Ok(())
}

fn receive(mut socket: &TcpStream, stream: &Stream, board: &Board, number: u8, expected: bool) -> Result<()> {
    let mut position = Stream::start(number);
    let mut bytes = if expected { vec![0; CALL] } else { vec![0; 1] };
    loop {
        let count = match socket.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Nothing comes this way until the other one has ended.
            Err(error) if error.kind() == ErrorKind::WouldBlock && !expected && !board.stop.load(Relaxed) => continue,
            Err(error) => return Err(error).context("receiving"),
        };
        ensure!(expected, "bytes came that nobody sent");
        ensure!(bytes[..count] == stream.at(position)[..count], "a wrong byte came");
        position = (position + count) % PERIOD;
        board.received.fetch_add(count as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_every_way_arrives() {
        let app = App::start().unwrap();
        for way in Way::ALL {
            let run = app.run(app.addr, 3, way).unwrap();
            while run.received() < 10 * PERIOD as u64 {
                thread::yield_now();
            }
            run.finish().unwrap();
        }
    }

    #[test]
    fn a_wrong_byte_fails_the_run() {
        let app = App::start().unwrap();
        let run = app.run(app.addr, 1, Way::Down).unwrap();
        while run.received() == 0 {
            thread::yield_now();
        }
        let mut stray = TcpStream::connect(app.addr).unwrap();
        stray.write_all(&[Way::Up as u8, 0]).unwrap();
        stray.write_all(&[0; 100]).unwrap();
        let mut end = Vec::new();
        stray.read_to_end(&mut end).unwrap_or_default();
        assert!(run.finish().unwrap_err().to_string().contains("wrong byte"));
    }
}
