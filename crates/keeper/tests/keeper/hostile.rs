//! Engines that flood, babble, or are of another version.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::support::*;
use ferry_keeper::{Client, Keeper, Options};

const HELLO: &[u8] = &[1, b'F', b'R', b'Y', b'K', 0, 1, 0, 1, 0, 0, 0, 0];

fn raw(path: &Path) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[&OwnedFd]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    }
    Ok(rustix::net::sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads until the keeper ends the connection, and returns what it said last.
fn last_word(socket: &OwnedFd) -> Vec<u8> {
    let mut last = Vec::new();
    loop {
        let mut buffer = [0; 9000];
        match rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((_, 0)) => return last,
            Ok((_, len)) => last = buffer[..len].to_vec(),
            Err(rustix::io::Errno::CONNRESET) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let keeper = Running::start(Options::default());
    let (mut engine, _) = keeper.connect();
    let seq = store(&mut engine, &tag(1), &descriptor(1));
    confirmed(&mut engine, seq);
    drop(engine);
    let fd = descriptor(9);
    let store = [&[2][..], &[0; 40]].concat();
    let garbage: [(&[u8], Vec<&OwnedFd>); 8] = [
        (b"GET / HTTP/1.1\r\n\r\n", vec![]),
        (&[0xff; 60], vec![]),
        (&[0; 5000], vec![]),
        (&[], vec![]),
        (&[0x81, 0, 1], vec![&fd]),
        (&store, vec![]),
        (&store, vec![&fd; 253]),
        (&[4], vec![&fd]),
    ];
    for (bytes, descriptors) in garbage {
        for hello in [false, true] {
            let babbler = raw(keeper.path());
            if hello {
                send(&babbler, HELLO, &[]).unwrap();
                poll(&mut [PollFd::new(&babbler, PollFlags::IN)], None).unwrap();
            }
            send(&babbler, bytes, &descriptors).unwrap();
            last_word(&babbler);
        }
    }
    assert_eq!(numbers(&keeper.connect().1), [(tag(1), 1)]);
}

#[test]
fn a_version_that_the_keeper_does_not_speak_is_told_which_it_does() {
    let keeper = Running::start(Options::default());
    for (oldest, newest) in [(0, 0), (2, 7)] {
        let other = raw(keeper.path());
        send(&other, &[1, b'F', b'R', b'Y', b'K', 0, oldest, 0, newest, 0, 0, 0, 0], &[]).unwrap();
        assert_eq!(last_word(&other), [0x85, 1, 0, 1, 0, 1]);
    }
    // One that speaks a common one is taken, whatever it has to say beyond it.
    let newer = raw(keeper.path());
    send(&newer, &[1, b'F', b'R', b'Y', b'K', 0, 1, 0, 9, 0xff, 0xff, 0xff, 0xf2, 1, 2, 3], &[]).unwrap();
    let mut welcome = [0; 100];
    let (_, len) = rustix::net::recv(&newer, welcome.as_mut_slice(), RecvFlags::empty()).unwrap();
    assert_eq!((len, &welcome[..3]), (23, &[0x81, 0, 1][..]));
}

#[test]
fn a_flood_of_refused_requests_ends_its_connection_and_keeps_the_store() {
    let keeper = Running::start(Options { max_descriptors: 1, ..Options::default() });
    let (mut engine, _) = keeper.connect();
    let seq = store(&mut engine, &tag(1), &descriptor(1));
    confirmed(&mut engine, seq);
    drop(engine);
    let flooder = raw(keeper.path());
    send(&flooder, HELLO, &[]).unwrap();
    poll(&mut [PollFd::new(&flooder, PollFlags::IN)], None).unwrap();
    let (store, fd) = ([&[2][..], &[7; 40]].concat(), descriptor(9));
    // It never reads. Its sends block until the keeper reads them, or has had enough.
    let ended = (0..100_000).find_map(|_| send(&flooder, &store, &[&fd]).err());
    let ended = ended.expect("the keeper takes everything").kind();
    assert!([io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset].contains(&ended), "{ended}");
    drop(flooder);
    assert_eq!(numbers(&keeper.connect().1), [(tag(1), 1)]);
}

#[test]
fn connections_that_say_nothing_do_not_keep_an_engine_out() {
    let keeper = Running::start(Options::default());
    let idle: Vec<_> = (0..3).map(|_| raw(keeper.path())).collect();
    keeper.connect();
    drop(idle);
}

/// Not a test: a keeper in a process of its own, whose descriptors can be counted.
#[test]
fn keeper_process() {
    let Some(path) = std::env::var_os("KEEPER_AT") else { return };
    let mut keeper = Keeper::bind(Path::new(&path), Options { max_descriptors: 50, ..Options::default() }).unwrap();
    println!(">bound");
    loop {
        keeper.turn(None, None).unwrap();
    }
}

#[test]
fn a_keeper_has_no_descriptor_open_but_those_it_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keeper.sock");
    let mut keeper = EngineProcess::start_as("hostile::keeper_process", "KEEPER_AT", &path);
    keeper.hear();
    let settled = || {
        let (mut engine, _) = Client::connect(&path, PATIENCE).unwrap();
        let seq = engine.remove(&tag(0)).unwrap();
        confirmed(&mut engine, seq);
        engine
    };
    let engine = settled();
    let before = open_descriptors(keeper.pid());
    engine.finish().unwrap();
    let fd = descriptor(1);
    for round in 0..20 {
        let mut engine = settled();
        let seq = (0..80).map(|number| store(&mut engine, &tag(number), &fd)).last().unwrap();
        assert_eq!(confirmed(&mut engine, seq).len(), 30);
        assert_eq!(open_descriptors(keeper.pid()), before + 50);
        drop(engine);
        let hostile = raw(&path);
        send(&hostile, HELLO, &[]).unwrap();
        // What it inherits is on its way, and read by nobody; or it sends descriptors that it should not.
        if round % 2 == 0 {
            poll(&mut [PollFd::new(&hostile, PollFlags::IN)], None).unwrap();
            send(&hostile, &[4], &[&fd; 200]).unwrap();
        }
        drop(hostile);
        settled().finish().unwrap();
    }
    let _engine = settled();
    assert_eq!(open_descriptors(keeper.pid()), before);
    keeper.kill();
}
