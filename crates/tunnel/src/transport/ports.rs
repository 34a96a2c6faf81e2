//! Local ports, of which a host has some 28,000 towards each address: open sessions are not to lose theirs to new ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What Linux has if nothing else was set.
const DEFAULT_RANGE: usize = 28_232;

/// Links to one peer, each of which holds a local port.
#[derive(Default)]
pub(crate) struct Ports {
    held: Arc<AtomicUsize>,
    /// How many the system gives to connections, once asked.
    range: OnceLock<usize>,
    /// The last dial failed because the system had nothing left for it.
    exhausted: AtomicBool,
}

/// A link's port, for as long as the link lives.
pub(crate) struct HeldPort(Arc<AtomicUsize>);

impl Drop for HeldPort {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ports {
    pub(crate) fn hold(&self) -> HeldPort {
        self.held.fetch_add(1, Ordering::Relaxed);
        HeldPort(self.held.clone())
    }

    /// A dial has ended; `exhausted`: for want of a port, a file or memory.
    pub(crate) fn note(&self, exhausted: bool) {
        self.exhausted.store(exhausted, Ordering::Relaxed);
    }

    /// Whether what is left is for sessions that are open. The peer has so many `addresses`, each with ports of its own.
    pub(crate) fn is_pressed(&self, addresses: usize, dials: usize) -> bool {
        let held = self.held.load(Ordering::Relaxed) + dials;
        self.exhausted.load(Ordering::Relaxed) || !has_room(held, self.range() * addresses.max(1))
    }

    fn range(&self) -> usize {
        *self.range.get_or_init(read_range)
    }

    /// What an application is told that gets no link for it.
    pub(crate) fn problem(&self) -> String {
        let (held, range) = (self.held.load(Ordering::Relaxed), self.range());
        format!(
            "{held} links to it are open and {range} local ports exist (net.ipv4.ip_local_port_range), or the system has no \
             file or memory left: what is left is kept for open sessions"
        )
    }
}

/// Whether another link leaves enough ports for resumes and rotations of those that are open.
fn has_room(held: usize, ports: usize) -> bool {
    let reserve = (ports / 16).clamp(4, 512);
    held + reserve < ports
}

/// How many local ports connections are given.
fn read_range() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    parse_range(&text).unwrap_or(DEFAULT_RANGE)
}

fn parse_range(text: &str) -> Option<usize> {
    let mut ends = text.split_whitespace().map(str::parse::<usize>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some((last + 1).checked_sub(first)?.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_range_is_read() {
        assert_eq!(parse_range("32768\t60999\n"), Some(28_232));
        assert_eq!(parse_range("40000 40999"), Some(1_000));
        assert_eq!(parse_range(""), None);
    }

    #[test]
    fn some_ports_are_left_for_open_sessions() {
        assert!(has_room(900, 1_000));
        assert!(!has_room(938, 1_000));
        assert!(has_room(27_000, 28_232));
        assert!(!has_room(27_800, 28_232));
    }

    #[test]
    fn a_dial_that_found_nothing_left_keeps_new_sessions_waiting_until_one_works() {
        let ports = Ports::default();
        assert!(!ports.is_pressed(1, 0));
        ports.note(true);
        assert!(ports.is_pressed(1, 0));
        ports.note(false);
        assert!(!ports.is_pressed(1, 0));
        let held: Vec<_> = (0..ports.range()).map(|_| ports.hold()).collect();
        assert!(ports.is_pressed(1, 0));
        drop(held);
        assert!(!ports.is_pressed(1, 0));
    }
}
