//! The record of one session.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferry_session::{Block, Epoch, Instance, Origin, ResetCode, SessionId, Side, Snapshot};

use crate::layout::{self, Format};
use crate::slot::LentSlot;
use crate::space::Space;

/// Words of a record. The first makes it valid; identity and check are written before that, and never change.
const VALID: usize = 0;
const CHECK: usize = 1;
const ID: usize = 2;
const KIND: usize = 4;
const EPOCHS: usize = 5;
const GRANTED: usize = 6;
const RECEIVED: usize = 7;
const RESUME_WINDOW: usize = 8;
const PEER: usize = 9;
const FLAGS: usize = 11;
const READ: usize = 12;
const WRITTEN: usize = 13;
const ATTEMPTS: usize = 14;
const NAMES: usize = 16;
const ORIGIN: usize = 91;

/// Bytes of both names together.
const MAX_NAMES: usize = (ORIGIN - NAMES) * 8;

/// Longest preamble: it shares 16 bits with the side.
const MAX_PREAMBLE: u16 = u16::MAX >> 1;

/// Bits of the word of flags; the code of a reset stands above them.
const ESTABLISHED: u64 = 1;
const PEER_KNOWN: u64 = 1 << 1;
const RECEIVED_FINISH: u64 = 1 << 2;
const DISCARDING: u64 = 1 << 3;
const SENT_ALL: u64 = 1 << 4;
const ENDED: u64 = 1 << 5;
const SHUT_DOWN: u64 = 1 << 6;
const RESET_SHIFT: u32 = 8;

/// Set in the first word of an origin; below it are the two ports.
const ORIGIN_KNOWN: u64 = 1 << 32;

/// Which session a record is of. Never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The session.
    pub id: SessionId,
    /// This end's side: an opener's application connected, an acceptor's was connected to.
    pub side: Side,
    /// Whose the other end is.
    pub peer: Box<str>,
    /// What the session connects to.
    pub service: Box<str>,
    /// Bytes that the application gets before those of the session.
    pub preamble: u16,
    /// Where the application that opened it connected from and to, as far as that is known.
    pub origin: Option<Origin>,
}

/// What of a session changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The session's own. Which process accepted it is not stored apart: it is `peer`.
    pub snapshot: Snapshot,
    /// The peer's process that has the other end, or that the Open went to.
    pub peer: Option<Instance>,
    /// Acceptor: the last Open that was accepted.
    pub last_open: Epoch,
    /// The end was passed on to the application, or is being.
    pub shut_down: bool,
}

/// The record of a live session, until dropped.
pub struct Record {
    space: Arc<Space>,
    index: u32,
    generation: u32,
    saved: Option<State>,
}

impl Record {
    pub(crate) fn new(space: Arc<Space>, index: u32, generation: u32, saved: Option<State>) -> Self {
        Self { space, index, generation, saved }
    }

    /// Writes a record that nobody uses, if there is one and the names fit. It is valid once all of it is there.
    pub(crate) fn write(space: &Arc<Space>, identity: &Identity, state: &State) -> Option<Self> {
        let fixed = encode(identity)?;
        let index = space.take_record()?;
        let words = space.record(index);
        let generation = ((words[VALID].load(Ordering::Acquire) >> 1) as u32).wrapping_add(1);
        // From here on dropping it gives the place back.
        let mut record = Self::new(space.clone(), index, generation, None);
        words[VALID].store(u64::from(generation) << 1, Ordering::Release);
        let places = words[ID..=KIND].iter().zip(fixed.head).chain(words[NAMES..].iter().zip(fixed.names));
        for (word, value) in places.chain(words[ORIGIN..].iter().zip(fixed.origin)) {
            word.store(value, Ordering::Release);
        }
        words[READ].store(0, Ordering::Release);
        words[WRITTEN].store(0, Ordering::Release);
        words[ATTEMPTS].store(0, Ordering::Release);
        words[CHECK].store(checked(words, space.format(), key(index, generation)), Ordering::Release);
        record.save(state);
        words[VALID].store(u64::from(generation) << 1 | 1, Ordering::Release);
        Some(record)
    }

    /// Names the session among all that this arena ever has. Never zero.
    pub fn key(&self) -> u64 {
        key(self.index, self.generation)
    }

    /// Stores what has changed. Only then may anything of it be told.
    pub fn save(&mut self, state: &State) {
        if self.saved.as_ref() == Some(state) {
            return;
        }
        let words = self.space.record(self.index);
        let store = |word: usize, value: u64| words[word].store(value, Ordering::Release);
        let Snapshot { epoch, granted, received, received_finish, resume_window, .. } = state.snapshot;
        store(EPOCHS, u64::from(state.last_open.0) << 32 | u64::from(epoch.0));
        store(GRANTED, granted);
        store(RECEIVED, received.saturating_sub(u64::from(received_finish)));
        store(RESUME_WINDOW, u64::try_from(resume_window.as_millis()).unwrap_or(u64::MAX));
        let flags = flags(state);
        if let Some(Instance(bytes)) = state.peer
            && self.saved.is_none_or(|saved| saved.peer != state.peer)
        {
            // Two words: nobody is to find the half of each.
            store(FLAGS, flags & !PEER_KNOWN);
            halves(bytes).into_iter().zip(PEER..).for_each(|(half, word)| store(word, half));
        }
        store(FLAGS, flags);
        self.saved = Some(*state);
    }

    /// Everything below this offset was read from the application.
    pub fn set_read(&self, offset: u64) {
        self.space.record(self.index)[READ].store(offset, Ordering::Release);
    }

    /// Everything below this offset was written to the application.
    pub fn set_written(&self, offset: u64) {
        self.space.record(self.index)[WRITTEN].store(offset, Ordering::Release);
    }

    /// A process is about to adopt the session: says how many have begun that before and have not come through.
    pub fn begin_adoption(&self) -> u64 {
        self.space.record(self.index)[ATTEMPTS].fetch_add(1, Ordering::AcqRel)
    }

    /// The process has adopted the session, and lives.
    pub fn end_adoption(&self) {
        self.space.record(self.index)[ATTEMPTS].store(0, Ordering::Release);
    }

    /// A block for bytes of the session, if one is left.
    pub fn block(&self) -> Option<Block> {
        Some(Block::in_slot(Box::new(self.slot()?)))
    }

    pub(crate) fn slot(&self) -> Option<LentSlot> {
        Some(LentSlot::new(self.space.sizes(), self.key(), self.space.take_slot()?))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.space.record(self.index)[VALID].store(u64::from(self.generation) << 1, Ordering::Release);
        self.space.give_back_record(self.index);
    }
}

pub(crate) fn key(index: u32, generation: u32) -> u64 {
    (u64::from(generation) << 32) | (u64::from(index) + 1)
}

/// What the record of a session says.
pub(crate) struct Contents {
    pub(crate) generation: u32,
    pub(crate) identity: Identity,
    pub(crate) state: State,
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// A record is not as it was written.
pub(crate) struct Damaged;

impl Contents {
    /// Nothing of a record that nobody uses.
    pub(crate) fn read(words: &[AtomicU64], format: Format, index: u32) -> Result<Option<Self>, Damaged> {
        let load = |word: usize| words[word].load(Ordering::Acquire);
        let valid = load(VALID);
        if valid & 1 == 0 {
            return Ok(None);
        }
        let generation = (valid >> 1) as u32;
        if valid >> 33 != 0 || load(CHECK) != checked(words, format, key(index, generation)) {
            return Err(Damaged);
        }
        let (Some(identity), Some(state)) = (identity(words, format), state(words)) else { return Err(Damaged) };
        let state = State {
            // Before an Accept it is only the one that was asked.
            snapshot: Snapshot {
                acceptor: state.peer.filter(|_| state.snapshot.established && identity.side == Side::Opener),
                ..state.snapshot
            },
            ..state
        };
        Ok(Some(Self { generation, identity, state, read: load(READ), written: load(WRITTEN) }))
    }
}

struct Fixed {
    /// From [`ID`] to [`KIND`].
    head: [u64; 3],
    names: Vec<u64>,
    /// From [`ORIGIN`] on.
    origin: [u64; 5],
}

fn encode(identity: &Identity) -> Option<Fixed> {
    let Identity { id: SessionId(id), side, peer, service, preamble, origin } = identity;
    let mut names = [peer.as_bytes(), service.as_bytes()].concat();
    if names.len() > MAX_NAMES {
        return None;
    }
    names.resize(names.len().next_multiple_of(8), 0);
    let words = names.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap_or_default()));
    if *preamble > MAX_PREAMBLE {
        return None;
    }
    // A process that knows no preamble finds a side that it does not know, and takes the record for damaged.
    let low = preamble << 1 | u16::from(*side == Side::Acceptor);
    let kind = (peer.len() as u64) << 32 | (service.len() as u64) << 16 | u64::from(low);
    let [first, second] = halves(*id);
    Some(Fixed { head: [first, second, kind], names: words.collect(), origin: origin.map_or([0; 5], origin_words) })
}

fn identity(words: &[AtomicU64], format: Format) -> Option<Identity> {
    let load = |word: usize| words[word].load(Ordering::Acquire);
    let kind = load(KIND);
    let (peer, service) = ((kind >> 32) as usize, (kind >> 16 & 0xffff) as usize);
    let length = peer.checked_add(service).filter(|length| *length <= MAX_NAMES)?;
    let side = if kind & 1 == 0 { Side::Opener } else { Side::Acceptor };
    let preamble = (kind as u16) >> 1;
    let mut names: Vec<u8> = (NAMES..ORIGIN).flat_map(|word| load(word).to_ne_bytes()).collect();
    names.truncate(length);
    let service = String::from_utf8(names.split_off(peer)).ok()?;
    let peer = String::from_utf8(names).ok()?;
    let id = SessionId(joined([load(ID), load(ID + 1)]));
    let origin = match format {
        Format::First => None,
        Format::Second => read_origin(std::array::from_fn(|at| load(ORIGIN + at))),
    };
    Some(Identity { id, side, peer: peer.into(), service: service.into(), preamble, origin })
}

fn origin_words(origin: Origin) -> [u64; 5] {
    let Origin { source, destination } = origin;
    let ports = u64::from(source.port()) << 16 | u64::from(destination.port());
    let [source, destination] = [source.ip(), destination.ip()].map(|ip| match ip {
        IpAddr::V4(ip) => halves(ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => halves(ip.octets()),
    });
    [ORIGIN_KNOWN | ports, source[0], source[1], destination[0], destination[1]]
}

fn read_origin([first, source @ .., d0, d1]: [u64; 5]) -> Option<Origin> {
    let address = |half, port| SocketAddr::new(Ipv6Addr::from(joined(half)).to_canonical(), port);
    let (source, destination) = (address(source, (first >> 16) as u16), address([d0, d1], first as u16));
    (first & ORIGIN_KNOWN != 0).then_some(Origin { source, destination })
}

/// Of everything that does not change.
fn checked(words: &[AtomicU64], format: Format, key: u64) -> u64 {
    let load = |word: &AtomicU64| word.load(Ordering::Acquire);
    let kind = load(&words[KIND]);
    let used = ((kind >> 32) + (kind >> 16 & 0xffff)).div_ceil(8);
    // What is behind the names is of sessions before.
    let names = words[NAMES..ORIGIN].iter().take(usize::try_from(used).unwrap_or(usize::MAX));
    let named = words[ID..=KIND].iter().chain(names).map(load);
    match format {
        // The generation alone.
        Format::First => layout::check(named.chain([key >> 32])),
        Format::Second => layout::check(named.chain(words[ORIGIN..].iter().map(load)).chain([key])),
    }
}

fn flags(state: &State) -> u64 {
    let Snapshot { received_finish, discarding, established, sent_all, reset, ended, .. } = state.snapshot;
    let bits = [
        (established, ESTABLISHED),
        (state.peer.is_some(), PEER_KNOWN),
        (received_finish, RECEIVED_FINISH),
        (discarding, DISCARDING),
        (sent_all, SENT_ALL),
        (ended, ENDED),
        (state.shut_down, SHUT_DOWN),
    ];
    let set = bits.into_iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, bit)| flags | bit);
    set | reset.map_or(0, |code| code as u64) << RESET_SHIFT
}

fn state(words: &[AtomicU64]) -> Option<State> {
    let load = |word: usize| words[word].load(Ordering::Acquire);
    let (epochs, flags) = (load(EPOCHS), load(FLAGS));
    let is = |bit: u64| flags & bit != 0;
    let reset = match flags >> RESET_SHIFT {
        0 => None,
        code => Some(reset_code(code)?),
    };
    let peer = is(PEER_KNOWN).then(|| Instance(joined([load(PEER), load(PEER + 1)])));
    let snapshot = Snapshot {
        epoch: Epoch(epochs as u32),
        granted: load(GRANTED),
        received: load(RECEIVED).checked_add(u64::from(is(RECEIVED_FINISH)))?,
        received_finish: is(RECEIVED_FINISH),
        discarding: is(DISCARDING),
        established: is(ESTABLISHED),
        acceptor: None,
        resume_window: Duration::from_millis(load(RESUME_WINDOW)),
        sent_all: is(SENT_ALL),
        reset,
        ended: is(ENDED),
    };
    Some(State { snapshot, peer, last_open: Epoch((epochs >> 32) as u32), shut_down: is(SHUT_DOWN) })
}

fn reset_code(code: u64) -> Option<ResetCode> {
    use ResetCode::{Application, Draining, Protocol, Unreachable, Withdrawn};
    [Application, Draining, Withdrawn, Protocol, Unreachable].into_iter().find(|known| *known as u64 == code)
}

pub(crate) fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_ne_bytes(bytes);
    [whole as u64, (whole >> 64) as u64]
}

pub(crate) fn joined([first, second]: [u64; 2]) -> [u8; 16] {
    (u128::from(second) << 64 | u128::from(first)).to_ne_bytes()
}
