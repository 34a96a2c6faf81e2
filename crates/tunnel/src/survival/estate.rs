use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use ferry_arena::{Arena, Inheritance, Sizes};
use ferry_keeper::{Client, Inherited};
use ferry_session::{Block, Instance};
use tracing::{info, warn};

use super::{Listeners, Survival, tag};
use crate::telemetry::metrics::Started;

/// How long a keeper may take to hand everything over: the process before this one may be ending still.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Records for sessions that have ended and are not gone yet.
const SPARE_RECORDS: u32 = 1024;

/// Slots that a session may hold beyond those that its buffer fills: the first and the last are filled in part.
const SPARE_SLOTS: u32 = 4;

/// What the process before this one left.
pub(crate) struct Estate {
    pub(crate) start: Started,
    /// Nothing if the arena could not be read.
    pub(super) sessions: Option<Inheritance>,
    /// By the key of the session's record.
    pub(super) sockets: HashMap<u64, OwnedFd>,
    /// Processes crash one soon after another.
    pub(super) crash_loop: bool,
}

/// Whether this system has what sessions need to outlive a process, if there is a keeper.
///
/// # Errors
/// What it does not have.
pub fn can_outlive_a_process<I>(config: &ferry_config::Tunnel<I>) -> Result<(), String> {
    ferry_arena::self_test()?;
    let arena = Arena::create(sizes(&config.settings.limits), Instance([0; 16]));
    arena.map(drop).map_err(no_memory)
}

fn no_memory(error: io::Error) -> String {
    format!("no memory that outlives the process: {error}")
}

/// Takes over what is in the keeper at `path`. Without one, or on a system that does not count as it should, sessions end
/// with this process, which is said once. Waits; not for a runtime's thread.
pub(crate) fn connect(path: &Path, limits: &ferry_config::Limits) -> Option<(Survival, Estate)> {
    let is_parent = path == Path::new(ferry_keeper::PARENT);
    // One that is the parent has tried it before it became a keeper.
    let tried = if is_parent { Ok(()) } else { ferry_arena::self_test() };
    let tried = tried.and_then(|()| {
        let inherited = Client::connect(path, HAND_OVER_TIMEOUT);
        let at = if is_parent { String::new() } else { format!(" at {}", path.display()) };
        inherited.map_err(|error| format!("the keeper{at} cannot be used: {error}"))
    });
    let taken = tried.and_then(|(keeper, inherited)| take_over(keeper, inherited, limits).map_err(no_memory));
    taken.inspect_err(|reason| warn!("sessions end with this process: {reason}")).ok()
}

fn take_over(
    mut keeper: Client,
    inherited: Inherited,
    limits: &ferry_config::Limits,
) -> io::Result<(Survival, Estate)> {
    let mut start = Started::New;
    let (mut sockets, mut listeners, mut arena) = (HashMap::new(), HashMap::new(), None);
    for (tag, descriptor) in inherited.descriptors {
        start = if inherited.crashes > 0 { Started::Crash } else { Started::Replaced };
        if tag == tag::arena() {
            arena = Some(descriptor);
        } else if let Some(key) = tag::session_of(&tag) {
            sockets.insert(key, descriptor);
        } else if let Some(address) = tag::listener_of(&tag) {
            listeners.insert(address, descriptor);
        }
    }
    let opened = arena.and_then(|descriptor| {
        let opened = Arena::open(descriptor);
        opened.inspect_err(|error| warn!("the sessions of the process before are lost: its memory: {error}")).ok()
    });
    let (arena, sessions) = match opened {
        Some((arena, sessions)) => (arena, Some(sessions)),
        None => {
            let mut instance = [0; 16];
            getrandom::fill(&mut instance).map_err(io::Error::other)?;
            let arena = Arena::create(sizes(limits), Instance(instance))?;
            if let Some(descriptor) = arena.fd() {
                keeper.store(&tag::arena(), descriptor)?;
            }
            (arena, None)
        }
    };
    if start != Started::New {
        info!(sessions = sockets.len(), ?start, "taking over from the process before");
    }
    let listeners = Listeners { inherited: listeners, kept: HashMap::new() };
    let ends_with_keeper = keeper.is_parent();
    let survival = Survival { arena, keeper: Some(keeper).into(), listeners: listeners.into(), ends_with_keeper };
    Ok((survival, Estate { start, sessions, sockets, crash_loop: inherited.crash_loop }))
}

fn sizes(limits: &ferry_config::Limits) -> Sizes {
    let filled = u32::try_from(limits.memory / Block::ROOM as u64).unwrap_or(u32::MAX);
    let partly = limits.sessions.saturating_mul(SPARE_SLOTS);
    Sizes {
        records: limits.sessions.saturating_add(SPARE_RECORDS),
        slots: filled.saturating_add(partly).saturating_add(SPARE_RECORDS),
    }
}
