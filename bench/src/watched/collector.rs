//! A collector that takes whatever is exported to it, and keeps nothing.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use anyhow::{Context, Result};

use super::watchers::head;

/// What is said to each request: all is well, as an empty message of protobuf.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

/// Listens until it is dropped. Its threads end with their connections.
#[derive(Debug)]
pub(super) struct Collector {
    /// Where it listens.
    pub(super) addr: SocketAddr,
    exports: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
}

impl Collector {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let (exports, closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let collector = Self { addr, exports: exports.clone(), closed: closed.clone() };
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if closed.load(Relaxed) {
                    return;
                }
                let exports = exports.clone();
                // How a connection ends is of no interest: who exports connects again.
                thread::spawn(move || serve(&socket, &exports));
            }
        });
        Ok(collector)
    }

    /// Requests so far.
    pub(super) fn exports(&self) -> u64 {
        self.exports.load(Relaxed)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.closed.store(true, Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut socket: &TcpStream, exports: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(socket);
    let mut body = Vec::new();
    loop {
        let length = head(&mut reader)?.length.context("a request without a length")?;
        body.clear();
        let read = reader.by_ref().take(length).read_to_end(&mut body)?;
        anyhow::ensure!(read as u64 == length, "a request that breaks off");
        exports.fetch_add(1, Relaxed);
        socket.write_all(ANSWER)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_on_a_connection_is_answered_and_counted() {
        let collector = Collector::start().unwrap();
        let mut socket = TcpStream::connect(collector.addr).unwrap();
        for count in 1..=2 {
            socket.write_all(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabc").unwrap();
            let mut answer = vec![0; ANSWER.len()];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(answer, ANSWER);
            assert_eq!(collector.exports(), count);
        }
    }
}
