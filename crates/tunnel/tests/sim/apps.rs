//! Applications at both ends of a session, and a checked stream each way: every byte says where it belongs.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_tunnel::net::Stream as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::net::Listening;
use crate::rng::Rng;
use crate::stream::End;

/// The application that connected writes this many bytes first: which session it is.
const KEY: u64 = 8;

/// What one end's application does.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// How much it writes in all.
    pub bytes: u64,
    /// In pieces of this size, with this pause before each.
    pub chunk: usize,
    pub pause: Duration,
    /// Writes no more than this before the quiet time.
    pub hold: u64,
    /// It reads in such pieces, with such pauses, before the quiet time.
    pub read_chunk: usize,
    pub read_pause: Duration,
    /// It ends its direction only when it has read the other one's end.
    pub answers: bool,
    /// It resets the connection when it has written everything.
    pub resets: bool,
}

impl Part {
    /// Writes `bytes` as fast as it can, reads as fast as it can, and keeps the connection until the quiet time.
    pub fn eager(bytes: u64) -> Self {
        Self {
            bytes,
            chunk: 16 * 1024,
            pause: Duration::ZERO,
            hold: bytes.saturating_sub(1),
            read_chunk: 64 * 1024,
            read_pause: Duration::ZERO,
            answers: false,
            resets: false,
        }
    }

    pub fn random(rng: &mut Rng) -> Self {
        let most = rng.pick(&[0, 100, 10_000, 100_000, 400_000]);
        let bytes = rng.below(most + 1);
        let millis = |rng: &mut Rng, most: &[u64]| {
            let most = rng.pick(most);
            Duration::from_millis(rng.below(most + 1))
        };
        Self {
            bytes,
            chunk: rng.pick(&[100, 3_000, 16_384, 60_000]).max(bytes as usize / 200),
            pause: millis(rng, &[0, 20, 500]),
            hold: if rng.chance(60) { rng.below(bytes + 1) } else { bytes },
            read_chunk: rng.pick(&[500, 5_000, 64 * 1024]).max(most as usize / 200),
            read_pause: millis(rng, &[0, 0, 50, 2_000]),
            answers: false,
            resets: false,
        }
    }
}

/// How a connection ended for one application.
#[derive(Debug)]
pub enum Ending {
    /// It read everything, to the end.
    Whole,
    /// The connection failed.
    Failed,
}

/// What stands for one session in a test.
pub struct Talk {
    pub key: u64,
    /// The application that connected.
    pub caller: JoinHandle<Ending>,
    /// The one that was connected to; nothing comes if it never was.
    pub called: oneshot::Receiver<Ending>,
}

impl Talk {
    /// Both applications have read everything, to the end.
    pub async fn ends_whole(self) {
        match (self.caller.await, self.called.await) {
            (Ok(Ending::Whole), Ok(Ending::Whole)) => {}
            other => panic!("session {}: {other:?}", self.key),
        }
    }
}

impl Talk {
    /// Both applications see the connection fail before `time` is over; the one that is called, if it ever was.
    pub async fn ends_reset(self, apps: &Apps, time: Duration) {
        let key = self.key;
        assert!(!self.ends_within(apps, time).await, "session {key} has ended well");
    }

    /// Both applications see the same end before `time` is over, and whether that is a good one.
    pub async fn ends_within(self, apps: &Apps, time: Duration) -> bool {
        let over = sleep(time);
        tokio::pin!(over);
        let caller = tokio::select! {
            ended = self.caller => matches!(ended.expect("what came is right"), Ending::Whole),
            () = &mut over => panic!("session {}: the caller has got stuck", self.key),
        };
        let called = tokio::select! {
            ended = self.called => matches!(ended, Ok(Ending::Whole)),
            () = &mut over => {
                assert!(apps.forget(self.key), "session {}: the called one has got stuck", self.key);
                false
            }
        };
        assert_eq!(caller, called, "session {} ended well only at one end", self.key);
        caller
    }
}

/// How far along a life is, for its applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    /// They pause and hold back as they were told to.
    Busy,
    /// They read without pauses.
    Attentive,
    /// They also write everything, and end.
    Quiet,
}

struct Expected {
    part: Part,
    /// What the caller writes.
    other: u64,
    done: oneshot::Sender<Ending>,
}

/// The applications that are connected to, and what is known to all.
#[derive(Clone)]
pub struct Apps {
    expected: Arc<Mutex<BTreeMap<u64, Expected>>>,
    time: Arc<watch::Sender<Time>>,
    /// Connections that a test plays itself, at the end that is called.
    played: Played,
}

type Played = (mpsc::UnboundedSender<End>, Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<End>>>);

impl Apps {
    pub fn serve(listeners: [Listening; 2]) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let played = (sender, Arc::new(tokio::sync::Mutex::new(receiver)));
        let apps = Self { expected: Arc::default(), time: Arc::new(watch::Sender::new(Time::Busy)), played };
        for mut listener in listeners {
            let apps = apps.clone();
            tokio::spawn(async move {
                loop {
                    let end = listener.next().await;
                    tokio::spawn(apps.clone().answer(end));
                }
            });
        }
        apps
    }

    /// From now on everybody writes all, reads on, and ends.
    pub fn quiet(&self) {
        self.time.send_replace(Time::Quiet);
    }

    /// From now on everybody reads what comes.
    pub fn attend(&self) {
        self.time.send_replace(Time::Attentive);
    }

    /// From now on new sessions do as they were told to again.
    pub fn be_busy(&self) {
        self.time.send_replace(Time::Busy);
    }

    /// Whether the session has not got as far as to be answered.
    pub fn is_waiting(&self, key: u64) -> bool {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    /// As [`is_waiting`](Self::is_waiting), for the last time.
    fn forget(&self, key: u64) -> bool {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&key).is_some()
    }

    /// A session over the connection `end` to an egress; the two parts are those of the caller and the called.
    pub fn talk(&self, end: End, key: u64, parts: [Part; 2]) -> Talk {
        let (done, called) = oneshot::channel();
        let [caller, part] = parts;
        let expected = Expected { part, other: caller.bytes, done };
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).insert(key, expected);
        let apps = self.clone();
        let caller = tokio::spawn(async move { apps.run(end, key, caller, part.bytes, true).await });
        Talk { key, caller, called }
    }

    /// Both ends of a session that a test plays itself, over the connection `end` to an egress.
    pub async fn play(&self, mut end: End) -> [End; 2] {
        end.write_all(&[0; KEY as usize]).await.unwrap();
        [end, self.played().await]
    }

    /// The called end of such a session.
    pub async fn played(&self) -> End {
        self.played.1.lock().await.recv().await.unwrap()
    }

    async fn answer(self, mut end: End) {
        let mut header = [0; KEY as usize];
        // A connection that ends before is one of a session that ended.
        if end.read_exact(&mut header).await.is_err() {
            return;
        }
        let key = u64::from_be_bytes(header);
        if key == 0 {
            self.played.0.send(end).unwrap_or_else(|_| panic!("nobody plays"));
            return;
        }
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let Expected { part, other, done } = expected.expect("a session is opened once");
        let ending = self.run(end, key, part, other, false).await;
        // Who asked may have given up.
        let _ = done.send(ending);
    }

    async fn run(&self, mut end: End, key: u64, part: Part, other: u64, calls: bool) -> Ending {
        if part.resets {
            end.reset_on_drop();
        }
        let (read, mut write) = tokio::io::split(end);
        let (ended, end_seen) = oneshot::channel();
        let reader = async {
            let read = self.read(read, key ^ u64::from(calls), part, other).await;
            let _ = ended.send(());
            read
        };
        let writer = async {
            if calls {
                write.write_all(&key.to_be_bytes()).await?;
            }
            self.write(&mut write, key ^ u64::from(!calls), part).await?;
            if part.resets {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if part.answers {
                let _ = end_seen.await;
            }
            write.shutdown().await
        };
        match tokio::try_join!(reader, writer) {
            Ok(_) => Ending::Whole,
            Err(_) => Ending::Failed,
        }
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin), key: u64, part: Part) -> io::Result<()> {
        let mut time = self.time.subscribe();
        let mut at = 0;
        while at < part.bytes {
            let hurry = *time.borrow_and_update() == Time::Quiet;
            if at >= part.hold && !hurry {
                // The sender lives as long as this.
                let _ = time.changed().await;
                continue;
            }
            if !hurry && !part.pause.is_zero() {
                sleep(part.pause).await;
            }
            let most = if hurry { part.bytes } else { part.hold };
            let to_send = (most - at).min(part.chunk as u64);
            let bytes: Vec<u8> = (at..at + to_send).map(|offset| pattern(key, offset)).collect();
            to.write_all(&bytes).await?;
            at += to_send;
        }
        Ok(())
    }

    /// Reads to the end, and checks every byte and how many there are.
    async fn read(&self, mut from: impl AsyncRead + Unpin, key: u64, part: Part, expected: u64) -> io::Result<()> {
        let mut buffer = vec![0; part.read_chunk];
        let mut at = 0;
        loop {
            if *self.time.borrow() == Time::Busy && !part.read_pause.is_zero() {
                sleep(part.read_pause).await;
            }
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                assert_eq!(at, expected, "stream {key:#x} ended early");
                return Ok(());
            }
            for byte in &buffer[..count] {
                assert_eq!(*byte, pattern(key, at), "stream {key:#x} is wrong at byte {at}");
                at += 1;
            }
        }
    }
}

/// The byte at `offset` of the stream called `key`.
fn pattern(key: u64, offset: u64) -> u8 {
    let word = (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key.wrapping_mul(0xd1b5_4a32_d192_ed03);
    (word >> ((offset % 8) * 8)) as u8
}
