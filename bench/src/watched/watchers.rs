//! Those who watch a tunnel: what a page in a browser asks for, `ferry top`, and Prometheus.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::terminal::Terminal;
use crate::tunnels::ferry_program;

/// As the page asks, from an answer on.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How many sessions the page lists.
const LISTED: usize = 100;

/// As the stream of events asks for itself.
const NEXT_STREAM_DELAY: Duration = Duration::from_millis(500);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a reader of events looks whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// They watch until they are told to finish.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    seen: Arc<AtomicU64>,
    /// Each ends when its sender is dropped.
    threads: Vec<(Sender<()>, JoinHandle<Result<()>>)>,
    terminal: Option<Terminal>,
}

impl Watchers {
    /// What the page of a browser asks for.
    pub(super) fn page(&mut self, admin: SocketAddr) {
        let path = format!("/status?sessions={LISTED}");
        self.spawn(move |over, seen| ask(admin, &path, (Duration::ZERO, STATUS_INTERVAL), over, seen));
        self.spawn(move |over, seen| follow(admin, over, seen));
    }

    /// What Prometheus asks for.
    pub(super) fn scrapes(&mut self, admin: SocketAddr, first: Duration, interval: Duration) {
        self.spawn(move |over, seen| ask(admin, "/metrics", (first, interval), over, seen));
    }

    /// `ferry top` on a terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn top(&mut self, admin: SocketAddr) -> Result<()> {
        let url = format!("http://{admin}");
        self.terminal = Some(Terminal::start(&ferry_program()?, &["top", &url], self.seen.clone())?);
        Ok(())
    }

    fn spawn(&mut self, watch: impl FnOnce(&Receiver<()>, &AtomicU64) -> Result<()> + Send + 'static) {
        let (sender, over) = channel();
        let seen = self.seen.clone();
        self.threads.push((sender, thread::spawn(move || watch(&over, &seen))));
    }

    /// Ends them, and says how much they have seen.
    ///
    /// # Errors
    /// When one of them did not get what it asked for.
    pub(super) fn finish(mut self) -> Result<u64> {
        let watch = !self.threads.is_empty() || self.terminal.is_some();
        let (senders, threads): (Vec<_>, Vec<_>) = self.threads.drain(..).unzip();
        drop(senders);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("somebody who watches has panicked"))??;
        }
        if let Some(mut terminal) = self.terminal.take() {
            ensure!(terminal.runs(), "ferry top has ended by itself");
        }
        let seen = self.seen.load(Relaxed);
        ensure!(seen > 0 || !watch, "nothing was seen by those who watch");
        Ok(seen)
    }
}

/// Waits; `false` when it is over.
fn pause(over: &Receiver<()>, duration: Duration) -> bool {
    matches!(over.recv_timeout(duration), Err(RecvTimeoutError::Timeout))
}

/// Asks for a path after a first pause, and then again and again with a pause after each answer.
fn ask(
    admin: SocketAddr,
    path: &str,
    (first, interval): (Duration, Duration),
    over: &Receiver<()>,
    seen: &AtomicU64,
) -> Result<()> {
    let (mut kept, mut next) = (None, first);
    while pause(over, next) {
        // The endpoint ends a connection at some age, and when it is idle.
        let answer = match kept.take() {
            Some(connection) => get(connection, path).or_else(|_| get(connect(admin)?, path)),
            None => get(connect(admin)?, path),
        };
        kept = Some(answer?);
        seen.fetch_add(1, Relaxed);
        next = interval;
    }
    Ok(())
}

/// Follows events, one stream after another.
fn follow(admin: SocketAddr, over: &Receiver<()>, seen: &AtomicU64) -> Result<()> {
    loop {
        let mut stream = connect(admin)?;
        request(&mut stream, "/events")?;
        ensure!(head(&mut stream)?.first.contains(" 200 "), "/events is refused");
        stream.get_ref().set_read_timeout(Some(LOOK_INTERVAL))?;
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {
                    seen.fetch_add(1, Relaxed);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("/events"),
            }
            if !pause(over, Duration::ZERO) {
                return Ok(());
            }
        }
        if !pause(over, NEXT_STREAM_DELAY) {
            return Ok(());
        }
    }
}

type Connection = BufReader<TcpStream>;

fn connect(admin: SocketAddr) -> Result<Connection> {
    let socket = TcpStream::connect(admin).context("the admin endpoint")?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(socket))
}

fn request(connection: &mut Connection, path: &str) -> Result<()> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    Ok(connection.get_mut().write_all(text.as_bytes())?)
}

/// Gets a path, and gives the connection back.
fn get(mut connection: Connection, path: &str) -> Result<Connection> {
    request(&mut connection, path)?;
    let head = head(&mut connection)?;
    if !head.first.contains(" 200 ") {
        bail!("{path} is answered with {}", head.first.trim());
    }
    let length = head.length.with_context(|| format!("the answer to {path} has no length"))?;
    let read = std::io::copy(&mut connection.by_ref().take(length), &mut std::io::sink())?;
    ensure!(read == length, "the answer to {path} breaks off");
    Ok(connection)
}

/// What of the head of a request or an answer counts here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The first line.
    pub(super) first: String,
    /// Bytes behind the head, if it tells them.
    pub(super) length: Option<u64>,
}

/// Reads a head, up to the empty line.
///
/// # Errors
/// When the connection ends before.
pub(super) fn head(reader: &mut impl BufRead) -> Result<Head> {
    let mut head = Head { first: String::new(), length: None };
    ensure!(reader.read_line(&mut head.first)? > 0, "the connection has ended");
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ends within a head");
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.trim().parse()?);
        }
    }
    ensure!(line.trim().is_empty(), "a line that is no header: {}", line.trim());
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_length_however_it_is_written() {
        let mut text = &b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: a:b\r\n\r\nrest"[..];
        let expected = Head { first: "HTTP/1.1 200 OK\r\n".to_owned(), length: Some(12) };
        assert_eq!(head(&mut text).unwrap(), expected);
        assert_eq!(text, b"rest");
        assert!(head(&mut &b"HTTP/1.1 200 OK\r\nX: y"[..]).is_err());
    }

    #[test]
    fn who_gets_no_answer_says_so() {
        // It ends a connection on which a request has no length, which those of watchers have not.
        let collector = super::super::collector::Collector::start().unwrap();
        let (_sender, over) = channel();
        let seen = AtomicU64::new(0);
        ask(collector.addr, "/metrics", (Duration::ZERO, Duration::ZERO), &over, &seen).unwrap_err();
        assert_eq!(seen.load(Relaxed), 0);
    }
}
