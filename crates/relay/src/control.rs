//! What a relay is told to do to its connections, and what it tells of them.

use std::net::SocketAddr;
use std::time::Duration;

/// How connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends get a FIN, as from a proxy that stops; one that has not closed 200 ms later gets an RST as well.
    Fin,
    /// Both ends get an RST, as from a middle box that has forgotten the connection.
    Rst,
}

/// What becomes of the connections that a black hole swallowed, once it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heal {
    /// They flow again, late but whole: the path was only gone for a while.
    Resume,
    /// Those from before stay silent for ever: a NAT lost its state and drops what it does not know. Those that were
    /// dialled meanwhile flow, as a real network's would by sending their SYN again.
    ResumeNew,
    /// All stay silent for ever, also those that were dialled meanwhile.
    Silent,
    /// Both ends get an RST: a NAT lost its state and says so.
    Reset,
}

/// What a relay has carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are open, silent ones included.
    pub open: u64,
    /// Connections ever accepted.
    pub accepted: u64,
    /// Bytes written to targets.
    pub bytes_up: u64,
    /// Bytes written back to those that connected.
    pub bytes_down: u64,
}

/// Everything that holds for the connections now. They are numbered in the order in which they were accepted, so that
/// "all current ones" is a bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control {
    pub(crate) target: SocketAddr,
    pub(crate) delay: Duration,
    /// Bytes a second, per connection and direction.
    pub(crate) rate: Option<u64>,
    /// While there is a black hole: the number of the first connection that was dialled into it.
    pub(crate) black_hole: Option<u64>,
    pub(crate) silent_below: u64,
    pub(crate) cut_below: u64,
    pub(crate) cut: Cut,
}

/// What one connection has to do.
pub(crate) enum Order {
    Flow,
    /// Neither read nor write, nor notice an end.
    Stand,
    End(Cut),
}

impl Control {
    pub(crate) fn new(target: SocketAddr) -> Self {
        Self {
            target,
            delay: Duration::ZERO,
            rate: None,
            black_hole: None,
            silent_below: 0,
            cut_below: 0,
            cut: Cut::Rst,
        }
    }

    pub(crate) fn order(&self, number: u64) -> Order {
        if number < self.cut_below {
            Order::End(self.cut)
        } else if self.black_hole.is_some() || number < self.silent_below {
            Order::Stand
        } else {
            Order::Flow
        }
    }
}
