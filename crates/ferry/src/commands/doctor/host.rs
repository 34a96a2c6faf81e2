//! What the host gives a tunnel: files, buffers, time, a directory.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferry_config::{Keeper, Tunnel};
use rustix::process::{Resource, getrlimit};

use super::Check;

/// Files of one session: its link and its application's connection.
const PER_SESSION: u64 = 2;

/// With fewer files a tunnel has hardly room for links.
const MIN_FILES: u64 = 256;

/// When this was written: an earlier time is wrong.
const WRITTEN: Duration = Duration::from_secs(1_764_000_000);

/// Files that are this much younger than now are of another clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(120);

pub(super) fn check(file: &Path, tunnel: &Tunnel) -> Vec<Check> {
    let mut checks = vec![clock(file, SystemTime::now()), files(tunnel), buffers()];
    checks.extend(tunnel.state.as_deref().map(state));
    if let Some(Keeper::At(socket)) = &tunnel.keeper {
        checks.push(keeper(socket));
    }
    checks
}

/// Links need no clock; trails, logs and events do.
fn clock(file: &Path, now: SystemTime) -> Check {
    let written = std::fs::metadata(file).and_then(|facts| facts.modified()).unwrap_or(now);
    let ahead = written.duration_since(now).unwrap_or_default();
    let advice =
        "set the clock (timedatectl, chrony); links work without, but logs, events and trails show wrong times";
    if now < SystemTime::UNIX_EPOCH + WRITTEN {
        return Check::warning("clock", "this host", "its time is before this program was written", advice);
    }
    if ahead > CLOCK_TOLERANCE {
        let found = format!("{} was written {} s in the future", file.display(), ahead.as_secs());
        return Check::warning("clock", "this host", found, advice);
    }
    Check::ok("clock", "this host", "its time is plausible")
}

fn files(tunnel: &Tunnel) -> Check {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let sessions = u64::from(tunnel.settings.limits.sessions);
    let room = (most.saturating_sub(MIN_FILES) / PER_SESSION).min(sessions);
    let advice = "raise the hard limit: ulimit -Hn, LimitNOFILE= of the systemd unit, or of the container runtime";
    if most < MIN_FILES {
        return Check::failed("open files", "this host", format!("only {most} may be open at once"), advice);
    }
    let found = format!("{most} may be open at once: room for about {room} sessions");
    if room < sessions && tunnel.settings.limits.sessions != ferry_config::Limits::default().sessions {
        return Check::warning("open files", "this host", format!("{found} of {sessions} (limits.sessions)"), advice);
    }
    Check::ok("open files", "this host", found)
}

fn buffers() -> Check {
    match ferry_tunnel::kernel_buffers_note() {
        None => Check::ok("buffers", "this host", "the kernel's are large enough for long paths"),
        Some(note) => {
            let advice = "leave them unless one stream has to be fast over a long path";
            Check { advice: advice.to_owned(), ..Check::skipped("buffers", "this host", note) }
        }
    }
}

fn state(dir: &Path) -> Check {
    let subject = dir.display();
    let advice = "make it a directory that the tunnel's user can write; without it peers learn late of a restart";
    match std::fs::metadata(dir) {
        Ok(facts) if !facts.is_dir() => Check::failed("state", subject, "it is not a directory", advice),
        Ok(_) => match rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
            Ok(()) => Check::ok("state", subject, "it can be written"),
            Err(error) => Check::failed("state", subject, format!("it cannot be written: {error}"), advice),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok("state", subject, "it is not there yet: the tunnel makes it")
        }
        Err(error) => Check::failed("state", subject, format!("it cannot be looked at: {error}"), advice),
    }
}

/// It is not connected to: a keeper would take that for the next engine.
fn keeper(socket: &Path) -> Check {
    let subject = socket.display();
    let advice = "start one there (`ferry keeper --socket PATH`, or its unit), or leave `keeper` out: then the tunnel's \
                  own first process is it";
    match std::fs::metadata(socket) {
        Ok(facts) if facts.file_type().is_socket() => Check::ok("keeper", subject, "there is a socket"),
        Ok(_) => Check::failed("keeper", subject, "it is no socket", advice),
        Err(error) => Check::failed("keeper", subject, format!("there is no socket there: {error}"), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::State;

    #[test]
    fn a_clock_of_another_time_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now = SystemTime::now();
        assert_eq!(clock(file.path(), now).state, State::Ok);
        assert_eq!(clock(file.path(), SystemTime::UNIX_EPOCH).state, State::Warning);
        let behind = clock(file.path(), now - Duration::from_secs(4000));
        assert!(behind.found.contains("s in the future"), "{}", behind.found);
    }
}
