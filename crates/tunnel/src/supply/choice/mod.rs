//! What carries links best, where a peer has addresses of TCP and of QUIC and `prefer: auto`: decided from what is
//! measured, without a clock or a network of its own. `docs/decisions/0111`.
//!
//! ```text
//!            a stream of TCP is held below SLOW
//!     ┌─────┐ ────────────────────────────────▶ ┌──────┐
//!     │ TCP │                                    │ QUIC │   either one, while it is not let through: the other, and
//!     └─────┘ ◀──────────────────────────────── └──────┘   one dial now and then that tries it first
//!            it would not be held below GOOD_AGAIN
//! ```

mod evidence;

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use evidence::Seen;
use evidence::{Evidence, over_quic, received, sent, tcp_limit};

use crate::net::Carrier;

/// Bits per second: where losses hold a stream of TCP below it, QUIC is worth three times the processor time.
const SLOW: f64 = 50e6;

/// Where they would not hold it below this, TCP is taken again.
const GOOD_AGAIN: f64 = 2.0 * SLOW;

/// A connection that is this much faster than its losses should let it be is not held back by them: its sender is none
/// of Reno's or CUBIC's kind.
const UNHELD: f64 = 2.0;

/// A choice stays for this long, but for the first one and what is not let through.
const MIN_STAY: Duration = Duration::from_secs(30);

/// A kind that the other one has beaten in each race for this long is taken for blocked. Dials of one moment lose for one
/// reason: a packet that was lost, a peer that was just starting.
const MIN_LOSING: Duration = Duration::from_secs(2);

/// What is blocked is tried again after this long, then after twice as long each time, up to [`MAX_RETRY_DELAY`].
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(10);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);

/// What is chosen between. A WebSocket runs over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Quic,
}

impl Kind {
    pub(crate) fn of(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Tcp | Carrier::WebSocket => Self::Tcp,
            Carrier::Quic => Self::Quic,
        }
    }

    /// What stands for it.
    pub(crate) fn carrier(self) -> Carrier {
        match self {
            Self::Tcp => Carrier::Tcp,
            Self::Quic => Carrier::Quic,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Tcp => Self::Quic,
            Self::Quic => Self::Tcp,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
        })
    }
}

/// The figures that a choice is made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) round_trip: Duration,
    /// The part of the packets that is lost.
    pub(crate) loss: f64,
    /// Bits per second of a stream of TCP over such a path, about.
    pub(crate) tcp_limit: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round_trip, loss, tcp_limit } = self;
        let milliseconds = round_trip.as_secs_f64() * 1e3;
        write!(f, "{} % of the packets lost over {milliseconds:.0} ms, ", significant(loss * 100.0))?;
        write!(f, "which lets a stream of TCP have about {} Mbit/s", significant(tcp_limit / 1e6))
    }
}

/// Two digits of it, or those before the point.
fn significant(value: f64) -> String {
    let decimals = (1.0 - value.max(1e-4).log10().floor()).clamp(0.0, 6.0);
    format!("{value:.0$}", decimals as usize)
}

/// What is chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) kind: Kind,
    /// What would be preferred, and is not let through.
    pub(crate) blocked: Option<Kind>,
    pub(crate) reason: String,
    /// The last verdict was by these.
    pub(crate) figures: Option<Figures>,
    pub(crate) since: Instant,
}

/// Which kind of address is tried first.
#[derive(Debug)]
pub(crate) struct Choice {
    /// By what is measured.
    favoured: Kind,
    figures: Option<Figures>,
    /// Since when it is, if that was measured.
    favoured_since: Option<Instant>,
    /// What is in use, which is the other one while the favoured one is blocked.
    used_since: Instant,
    sent: Evidence,
    received: Evidence,
    over_quic: Evidence,
    /// The favoured kind has won no race since it lost this one.
    losing_since: Option<Instant>,
    /// The favoured kind is blocked: when one dial tries it first again, and how long the next one waits.
    blocked: Option<(Instant, Duration)>,
}

impl Choice {
    /// TCP costs least, so that is where it begins.
    pub(crate) fn new(now: Instant) -> Self {
        let nothing = Evidence::new(now);
        Self {
            favoured: Kind::Tcp,
            figures: None,
            favoured_since: None,
            used_since: now,
            sent: nothing,
            received: nothing,
            over_quic: nothing,
            losing_since: None,
            blocked: None,
        }
    }

    /// The kind of what is dialled first, but for the dial now and then that tries the favoured one.
    pub(crate) fn used(&self) -> Kind {
        if self.blocked.is_some() { self.favoured.other() } else { self.favoured }
    }

    /// What is chosen now.
    pub(crate) fn chosen(&self) -> Chosen {
        let (kind, favoured) = (self.used(), self.favoured);
        let why = match (favoured, self.figures) {
            (_, None) => "it costs least, and nothing that was measured speaks against it".to_owned(),
            (Kind::Quic, Some(figures)) => figures.to_string(),
            (Kind::Tcp, Some(figures)) => format!("it is fast enough again: {figures}"),
        };
        let reason = match self.blocked {
            None => why,
            Some((_, delay)) => {
                format!("{favoured} is not let through, and is tried again within {} s ({why})", delay.as_secs())
            }
        };
        let blocked = self.blocked.map(|_| favoured);
        Chosen { kind, blocked, reason, figures: self.figures, since: self.used_since }
    }

    /// The kind that the next dial tries first.
    pub(crate) fn first(&mut self, now: Instant) -> Kind {
        match &mut self.blocked {
            // Only this dial: the others rely on what works.
            Some((at, delay)) if *at <= now => {
                *delay = (*delay * 2).min(MAX_RETRY_DELAY);
                *at = now + *delay;
                self.favoured
            }
            _ => self.used(),
        }
    }

    /// A dial that tried `first` first was won by `won`. What is chosen now, if that changes it.
    pub(crate) fn on_dialled(&mut self, now: Instant, first: Kind, won: Kind) -> Option<Chosen> {
        if won == self.favoured {
            self.losing_since = None;
            self.blocked.take()?;
        } else if first == self.favoured && self.blocked.is_none() {
            let since = *self.losing_since.get_or_insert(now);
            if now.saturating_duration_since(since) < MIN_LOSING {
                return None;
            }
            self.blocked = Some((now + FIRST_RETRY_DELAY, FIRST_RETRY_DELAY));
        } else {
            return None;
        }
        self.used_since = now;
        Some(self.chosen())
    }

    /// A link of this kind was looked at. What is chosen now, if that changes it.
    pub(crate) fn on_seen(&mut self, now: Instant, kind: Kind, seen: &Seen) -> Option<Chosen> {
        let verdict = match kind {
            Kind::Tcp => self.judge_tcp(now, seen),
            Kind::Quic => self.judge_quic(now, seen),
        };
        let figures = verdict.filter(|_| kind == self.favoured)?;
        if self.favoured_since.is_some_and(|since| now.saturating_duration_since(since) < MIN_STAY) {
            return None;
        }
        *self = Self {
            favoured: kind.other(),
            figures: Some(figures),
            favoured_since: Some(now),
            used_since: now,
            ..Self::new(now)
        };
        Some(self.chosen())
    }

    /// Figures that speak against TCP, if there are.
    fn judge_tcp(&mut self, now: Instant, seen: &Seen) -> Option<Figures> {
        // The other direction has answers: how many of them are lost says nothing of how fast what they answer is.
        let (evidence, (packets, losses)) =
            if seen.has_sent_most() { (&mut self.sent, sent(seen)) } else { (&mut self.received, received(seen)) };
        evidence.note(now, packets, losses, seen.within);
        let (round_trip, segment, loss) = (seen.now.least_round_trip, seen.now.segment, evidence.loss());
        let tcp_limit = tcp_limit(round_trip, loss, segment);
        let held = evidence.rate_at_losses(segment) < UNHELD * tcp_limit;
        let slow = evidence.is_enough() && tcp_limit < SLOW && held;
        slow.then_some(Figures { round_trip, loss, tcp_limit })
    }

    /// Figures by which TCP would be fast enough, if they are certain enough.
    fn judge_quic(&mut self, now: Instant, seen: &Seen) -> Option<Figures> {
        let (packets, losses) = over_quic(seen);
        self.over_quic.note(now, packets, losses, seen.within);
        let (round_trip, segment) = (seen.now.least_round_trip, seen.now.segment);
        let loss = self.over_quic.most_loss();
        let tcp_limit = tcp_limit(round_trip, loss, segment);
        (tcp_limit >= GOOD_AGAIN).then_some(Figures { round_trip, loss, tcp_limit })
    }
}

#[cfg(test)]
mod tests;
