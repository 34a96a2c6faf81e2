use std::io::{Error, ErrorKind};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use super::*;

/// Far beyond what a loaded machine needs.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A file that takes what it is given only when the test lets it.
struct Held {
    turns: Receiver<io::Result<()>>,
    taken: Sender<Vec<u8>>,
    /// Told that a write has begun.
    begun: SyncSender<()>,
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.begun.send(());
        // The test has ended.
        self.turns.recv().map_err(|_| Error::from(ErrorKind::BrokenPipe))??;
        let _ = self.taken.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Scene {
    queue: Queue,
    flush: Flush,
    turns: Sender<io::Result<()>>,
    taken: Receiver<Vec<u8>>,
    begun: Receiver<()>,
}

/// A queue in front of a held file; what it reports it logs.
fn scene() -> Scene {
    let (turns, allowed) = mpsc::channel();
    let (taker, taken) = mpsc::channel();
    let (begin, begun) = mpsc::sync_channel(1000);
    let report = |queue: &Queue, lines| queue.push(format!("{lines} lost\n").as_bytes());
    let (queue, flush) = Queue::start(Held { turns: allowed, taken: taker, begun: begin }, report).unwrap();
    Scene { queue, flush, turns, taken, begun }
}

impl Scene {
    fn write_begins(&self) {
        self.begun.recv_timeout(TEST_TIMEOUT).unwrap();
    }

    fn next(&self) -> String {
        String::from_utf8(self.taken.recv_timeout(TEST_TIMEOUT).unwrap()).unwrap()
    }
}

#[test]
fn a_file_that_takes_nothing_costs_lines_and_never_waiting_and_the_gap_is_reported_in_its_place() {
    let scene = scene();
    scene.queue.push(b"first\n");
    scene.write_begins();
    // Nothing is taken now. Were one of these to wait, the test would not end.
    let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
    let fit = MAX_QUEUED / line.len();
    for _ in 0..fit + 500 {
        scene.queue.push(&line);
    }
    // Shorter, so it would fit, but the gap before it would not be reported.
    scene.queue.push(b"y\n");
    assert!(lost_lines() >= 501);
    for _ in 0..4 {
        scene.turns.send(Ok(())).unwrap();
    }
    assert_eq!(scene.next(), "first\n");
    scene.write_begins();
    scene.queue.push(b"after\n");
    assert_eq!(scene.next().len(), fit * line.len());
    let rest = scene.next();
    assert!(rest.starts_with("501 lost\n"), "{rest}");
    assert!(rest.ends_with("after\n") || scene.next() == "after\n", "{rest}");
}

#[test]
fn the_end_waits_for_what_is_queued_and_not_for_a_file_that_takes_nothing() {
    let scene = scene();
    scene.queue.push(b"last\n");
    scene.turns.send(Ok(())).unwrap();
    drop(scene.flush);
    assert_eq!(scene.taken.try_recv().unwrap(), b"last\n");

    let stuck = self::scene();
    stuck.queue.push(b"never\n");
    // Returns at all.
    drop(stuck.flush);
    assert!(stuck.taken.try_recv().is_err());
}

#[test]
fn lines_that_a_file_refuses_are_reported_once_it_takes_others() {
    let scene = scene();
    scene.queue.push(b"a\nb\n");
    scene.turns.send(Err(ErrorKind::StorageFull.into())).unwrap();
    scene.write_begins();
    assert!(scene.queue.flush(TEST_TIMEOUT));
    for _ in 0..2 {
        scene.turns.send(Ok(())).unwrap();
    }
    scene.queue.push(b"c\n");
    assert_eq!(scene.next(), "c\n");
    assert_eq!(scene.next(), "2 lost\n");
}

#[test]
fn a_file_that_is_set_to_non_blocking_loses_nothing() {
    let scene = scene();
    scene.queue.push(b"a\n");
    scene.turns.send(Err(ErrorKind::WouldBlock.into())).unwrap();
    scene.turns.send(Ok(())).unwrap();
    assert_eq!(scene.next(), "a\n");
}

fn lost_lines() -> u64 {
    crate::lost_lines()
}
