//! Entry points of the fuzz targets into private code.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::socket;
use crate::wire::{Hello, MAX_MESSAGE, Reply, Request, Tag, VERSIONS};

/// What an engine may send, as the keeper understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Hello {
        continues: bool,
        is_spoken: bool,
    },
    Store(Tag),
    Remove(Tag),
    Complete,
    Bye,
    /// Alive and Ready.
    Sign,
}

/// A keeper's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Welcome { stored: u32 },
    Inherit(Vec<Tag>),
    Other,
}

/// Reads bytes as a message in either direction. What is one encodes to the same again, but for what a later version appends.
pub fn message(bytes: &[u8]) -> Option<Said> {
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
    let request = Request::decode(bytes).ok()?;
    let again = request.encode();
    assert_eq!(Request::decode(&again), Ok(request));
    assert!(again == bytes || matches!(request, Request::Hello(_)), "{request:?} has two forms");
    Some(match request {
        Request::Hello(Hello { oldest, newest, continues, .. }) => {
            Said::Hello { continues, is_spoken: oldest <= VERSIONS.1 && newest >= VERSIONS.0 }
        }
        Request::Store { tag, .. } => Said::Store(tag),
        Request::Remove { tag, .. } => Said::Remove(tag),
        Request::Complete => Said::Complete,
        Request::Bye => Said::Bye,
        Request::Alive | Request::Ready => Said::Sign,
    })
}

/// An engine that sends what it likes.
#[derive(Debug)]
pub struct Engine(OwnedFd);

impl Engine {
    /// # Errors
    ///
    /// No keeper is there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        socket::connect(path).map(Self)
    }

    /// # Errors
    ///
    /// The keeper has closed the connection.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(self.0.as_fd(), bytes, descriptors)
    }

    /// What the keeper sent, and the descriptors with it.
    ///
    /// # Errors
    ///
    /// Nothing has come, or the connection has ended.
    pub fn receive(&self) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let packet = socket::receive::<{ socket::BATCH }>(self.0.as_fd(), &mut buffer)?;
        let packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
        let reply = Reply::decode(&buffer[..packet.len]).map_err(|_| io::ErrorKind::InvalidData)?;
        let answer = match reply {
            Reply::Welcome(welcome) => Answer::Welcome { stored: welcome.stored },
            Reply::Inherit(tags) => Answer::Inherit(tags),
            _ => Answer::Other,
        };
        Ok((answer, packet.descriptors))
    }
}
