//! What a tunnel's process holds, against what it counts, under shapes of frames that a listed peer may choose.
//!
//!     cargo build --release && cargo run -p ferry-tunnel --example shapes -- target/release/ferry
//!
//! A real process serves a peer that makes its records by hand, and an application that reads nothing. Each shape fills all
//! windows of a fresh process. What is resident beyond the idle process may be at most twice `ferry_memory_lent_bytes`, and
//! the buffers that threads keep.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a measurement, a panic is the report")]

#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use all of it")]
#[path = "../tests/tunnel/manners.rs"]
mod manners;

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ferry_config::Identity;
use ferry_session::{Epoch, Frame, Hello, Instance, Intent, LinkKind, Preface, SessionId, VERSION, decode};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ConnectionTrafficSecrets};

use manners::Manners;

/// Most of a record's plaintext.
const RECORD: usize = 1 << 14;

/// Bytes of a Data frame in front of its payload.
const DATA: usize = 12;

/// What does not grow with what waits: spare blocks of each thread, the connections themselves, pages half used.
const SLACK: u64 = 8 << 20;

/// A peer that finds a window closed for so long sends no more.
const STALLED: Duration = Duration::from_millis(300);

struct Shape {
    name: &'static str,
    sessions: usize,
    /// Lengths of payloads, in turn.
    payloads: &'static [usize],
    /// How many frames are in one record.
    frames: usize,
    /// How long each record is made by padding.
    padded: usize,
    /// Bytes of a session at most, or its records would take too long.
    most: u64,
}

const ALL: u64 = u64::MAX;

const SHAPES: [Shape; 6] = [
    Shape { name: "whole records", sessions: 64, payloads: &[RECORD - DATA], frames: 1, padded: 0, most: ALL },
    Shape { name: "1 byte a frame", sessions: 64, payloads: &[1], frames: 1_200, padded: 0, most: ALL },
    Shape { name: "1 byte a frame and record", sessions: 16, payloads: &[1], frames: 1, padded: 0, most: 60_000 },
    Shape { name: "1 byte a frame, padded", sessions: 8, payloads: &[1], frames: 1, padded: RECORD, most: 20_000 },
    Shape { name: "3,000 bytes, padded", sessions: 64, payloads: &[3_000], frames: 1, padded: RECORD, most: ALL },
    Shape {
        name: "1 byte, 8,200 bytes, padded",
        sessions: 64,
        payloads: &[1, 8_200],
        frames: 1,
        padded: RECORD,
        most: ALL,
    },
];

fn main() {
    let ferry = PathBuf::from(std::env::args().nth(1).expect("usage: shapes FERRY")).canonicalize().unwrap();
    println!("| shape | sessions | sent | counted | held | held/counted |\n|---|---|---|---|---|---|");
    let mut all_hold = true;
    for shape in &SHAPES {
        let Measured { sent, counted, held } = measure(&ferry, shape);
        let ratio = held as f64 / counted as f64;
        println!(
            "| {} | {} | {} KiB | {} KiB | {} KiB | {ratio:.2} |",
            shape.name,
            shape.sessions,
            sent / 1024,
            counted / 1024,
            held / 1024
        );
        all_hold &= held <= 2 * counted + SLACK;
        assert!(held > counted / 2, "the tunnel is elsewhere: nothing of what it counts is in the processes looked at");
    }
    assert!(all_hold, "more than twice what is counted");
}

struct Measured {
    sent: u64,
    counted: u64,
    held: u64,
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(ferry: &Path, shape: &Shape) -> Measured {
    let directory = tempfile::tempdir().unwrap();
    let (own, rogue) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    own.write_new(&directory.path().join("far.key")).unwrap();
    let application = deaf();
    let (links, admin) = (free(), free());
    let text = format!(
        "name: b/far\nidentity: far.key\nlisten: {links}\nadmin: {admin}\nlimits: {{memory: 64MiB}}\nliveness: 60s\n\
         peers: [{{name: x/rogue, keys: [\"{}\"]}}]\n\
         ingress: [{{service: trap, forward: \"{}\", allow: [x/rogue]}}]\n",
        rogue.public_key(),
        application.local_addr().unwrap(),
    );
    let file = directory.path().join("far.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(ferry);
    command.args(["tunnel", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    wait_for(admin);

    // Its code and its first buffers are no memory of sessions.
    let warm = Link::dial(links, &rogue);
    let before = resident(&running);
    drop(warm);
    let each = shape.sessions.div_ceil(4);
    let (sent, resident, counted) = thread::scope(|scope| {
        let threads = (0..4).map(|_| {
            scope.spawn(|| {
                let mut links: Vec<_> = (0..each).map(|_| Link::dial(links, &rogue)).collect();
                let sent: u64 = links.iter_mut().map(|link| link.fill(shape)).sum();
                (sent, links)
            })
        });
        let threads: Vec<_> = threads.collect();
        let filled: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        // All of them are open while it is looked at.
        let sent: u64 = filled.iter().map(|(sent, _)| sent).sum();
        (sent, resident(&running), metric(admin, "ferry_memory_lent_bytes"))
    });
    Measured { sent, counted, held: resident.saturating_sub(before) }
}

/// An application whose connections take hardly anything. It never accepts one: the kernel does.
fn deaf() -> std::net::TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(1024).unwrap();
    socket.into()
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn get(admin: SocketAddr, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(admin).ok()?;
    write!(connection, "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn wait_for(admin: SocketAddr) {
    let is_there = || get(admin, "/livez").is_some_and(|answer| answer.contains(" 200 "));
    (0..200)
        .find(|_| {
            is_there() || {
                thread::sleep(Duration::from_millis(50));
                false
            }
        })
        .expect("the tunnel starts");
}

fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = get(admin, "/metrics").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.expect("the metric is there")
}

/// Bytes of memory that the process has to itself, and that it shares with those to come; its keeper is its parent.
fn resident(running: &Running) -> u64 {
    let id = running.0.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let family = children.split_whitespace().map(str::to_owned).chain([id.to_string()]);
    family.map(|id| ["RssAnon:", "RssShmem:"].map(|kind| of_status(&id, kind)).iter().sum::<u64>()).sum()
}

fn of_status(id: &str, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// One direction's key, and how often it was used.
struct Cipher {
    key: LessSafeKey,
    iv: [u8; 12],
    count: u64,
}

impl Cipher {
    fn new((count, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => panic!("another cipher"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().try_into().unwrap(), count }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.count.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        self.count += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A session's link, from its Hello on.
struct Link {
    stream: TcpStream,
    sealing: Cipher,
    opening: Cipher,
    received: Vec<u8>,
    plain: Vec<u8>,
    window: u64,
    sent: u64,
}

impl Link {
    fn dial(addr: SocketAddr, identity: &Identity) -> Self {
        let mut config = Manners::honest(identity).client();
        // The records are made by hand.
        config.enable_secret_extraction = true;
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from("ferry").unwrap()).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        while tls.wants_write() {
            tls.write_tls(&mut stream).unwrap();
        }
        let secrets = tls.dangerous_extract_secrets().unwrap();
        stream.set_read_timeout(Some(STALLED)).unwrap();
        let (sealing, opening) = (Cipher::new(secrets.tx), Cipher::new(secrets.rx));
        let (received, plain) = (Vec::new(), Vec::new());
        let mut link = Self { stream, sealing, opening, received, plain, window: 0, sent: 0 };
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        let mut first = Vec::new();
        Frame::Preface(Preface { version: VERSION, instance: Instance([7; 16]), kind: LinkKind::Own })
            .encode(&mut first);
        let hello = Hello {
            session: SessionId(id),
            epoch: Epoch(1),
            intent: Intent::Open,
            received: 0,
            window: 0,
            resume_window: Duration::from_secs(60),
            service: Cow::Borrowed("trap"),
        };
        Frame::Hello(hello).encode(&mut first);
        link.seal(first, 0);
        link
    }

    /// Sends one record, made at least so long.
    fn seal(&mut self, mut plain: Vec<u8>, padded: usize) {
        plain.push(23);
        plain.resize(plain.len().max(padded), 0);
        let length = u16::try_from(plain.len() + 16).unwrap().to_be_bytes();
        let mut record = vec![23, 3, 3, length[0], length[1]];
        let nonce = self.sealing.nonce();
        self.sealing.key.seal_in_place_append_tag(nonce, Aad::from(&record), &mut plain).unwrap();
        record.append(&mut plain);
        if let Err(error) = self.stream.write_all(&record) {
            // It says why.
            while self.wait_for_window() {}
            panic!("{error} after {} bytes", self.sent);
        }
    }

    /// Reads until the window has opened further. Says whether it has.
    fn wait_for_window(&mut self) -> bool {
        let before = self.window;
        while self.window == before {
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the tunnel ended the link after {} bytes", self.sent),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(error) => panic!("{error}"),
            }
            self.open_records();
        }
        true
    }

    fn open_records(&mut self) {
        while let Some((header, _)) = self.received.split_first_chunk::<5>()
            && let length = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]))
            && self.received.len() >= length
        {
            let mut record: Vec<u8> = self.received.drain(..length).collect();
            let (header, body) = record.split_at_mut(5);
            let nonce = self.opening.nonce();
            let plain = self.opening.key.open_in_place(nonce, Aad::from(&*header), body).unwrap();
            let end = plain.iter().rposition(|byte| *byte != 0).unwrap();
            self.plain.extend_from_slice(&plain[..end]);
        }
        let mut taken = 0;
        while let Some((frame, length)) = decode(&self.plain[taken..]).unwrap() {
            taken += length;
            match frame {
                Frame::Accept(accept) => self.window = accept.window,
                Frame::Ack { window, .. } => self.window = self.window.max(window),
                Frame::Reject(_) | Frame::Reset(_) => panic!("{frame:?}"),
                _ => {}
            }
        }
        self.plain.drain(..taken);
    }

    /// Fills what is behind the tunnel, the kernel's buffers, and leaves half of the window or more.
    fn fill_the_kernel(&mut self) {
        while self.wait_for_window() {
            for _ in 0..(self.window - self.sent) / (RECORD as u64 / 2) {
                let mut plain = Vec::new();
                self.frame(RECORD / 4, &mut plain);
                self.seal(plain, 0);
            }
        }
    }

    fn frame(&mut self, length: usize, plain: &mut Vec<u8>) {
        let payload = &[0x55; RECORD][..length];
        let frame = Frame::Data { offset: self.sent, payload: payload.into() };
        let rest = frame.encode(plain);
        plain.extend_from_slice(rest);
        self.sent += length as u64;
    }

    /// Sends until the window opens no further; returns how many bytes of the application's wait.
    fn fill(&mut self, shape: &Shape) -> u64 {
        self.fill_the_kernel();
        let begin = self.sent;
        let mut lengths = shape.payloads.iter().copied().cycle().peekable();
        loop {
            loop {
                let mut plain = Vec::new();
                for _ in 0..shape.frames {
                    let length = *lengths.peek().unwrap();
                    let end = self.sent + length as u64;
                    if end > self.window.min(begin.saturating_add(shape.most)) || plain.len() + DATA + length > RECORD {
                        break;
                    }
                    lengths.next();
                    self.frame(length, &mut plain);
                }
                if plain.is_empty() {
                    break;
                }
                self.seal(plain, shape.padded);
            }
            if self.sent - begin >= shape.most || !self.wait_for_window() {
                return self.sent - begin;
            }
        }
    }
}
