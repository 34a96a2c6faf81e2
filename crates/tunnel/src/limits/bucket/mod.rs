//! So many bytes a second, in equal parts for the sessions that want some: a policy that has no clock of its own.
//!
//! Time goes in rounds. In each round a session may take one part. What is taken is a debt that the passing of time pays
//! off, and the next round opens once there is none:
//!
//! ```text
//!                 ┌──────────── takes its part of the round ────────────┐
//!                 ▼                                                     │
//!     ask ──▶ has a part ──▶ used up ──▶ waits ──▶ the next round ──▶ entitled
//!              (this round)              for it     opens, once what
//!                                                   was taken is paid
//! ```
//!
//! Who waited when a round opened is entitled to a part of it, and no round opens before all of them came, or had
//! [`COME_BACK_TIMEOUT`] to do so. So nobody takes twice while another waits, nobody is turned away twice in a row, and
//! what a quiet session does not ask for is there for the others. A part is as large as is left for each of those that
//! were seen to want one, so that the debt stays small however many there are.

use std::time::Duration;

use ferry_session::Time;

/// A round's parts are together what this long brings.
const ROUND: Duration = Duration::from_millis(20);

/// They are more where a part would be smaller than [`MIN_PART`], up to what this long brings.
const LONGEST_ROUND: Duration = Duration::from_secs(1);

/// Less is not worth a read, while that is not more than [`LONGEST_ROUND`] brings.
const MIN_PART: u64 = 4 << 10;

/// What was not taken before is kept for so long.
const BURST: Duration = Duration::from_millis(100);

/// How long a round waits for those that were told to come back, and do not.
const COME_BACK_TIMEOUT: Duration = Duration::from_millis(5);

const SECOND: i128 = 1_000_000_000;

/// So many bytes a second, and what was taken of them.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Bytes in a second; at least 1.
    rate: u64,
    /// Bytes that were taken and are not paid off, in billionths; below zero is what may be taken at once.
    debt: i128,
    /// When the debt was reckoned last.
    at: Time,
    round: u64,
    opened: Time,
    /// Of each session, in this round.
    part: u64,
    /// What those that had one may take of it still.
    given: u64,
    /// Sessions that wait for the next round.
    waiting: u64,
    /// Sessions that waited for this round, or one before it, and have not come since.
    entitled: u64,
    used: Used,
}

/// Bytes in this second and in the one before it.
#[derive(Debug, Default)]
struct Used {
    second: u64,
    now: u64,
    before: u64,
}

/// A session's place among those that share a bucket.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The round that it had a part of last.
    round: u64,
    left: u64,
    /// It was turned away in this round, and is to come back.
    turned_away: Option<u64>,
}

impl Bucket {
    pub(crate) fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            debt: 0,
            at: Time::ZERO,
            round: 1,
            opened: Time::ZERO,
            part: part(rate, 1),
            given: 0,
            waiting: 0,
            entitled: 0,
            used: Used::default(),
        }
    }

    /// Another rate from now on. What is owed is owed for a round at most: what was little before may be a lot now.
    pub(crate) fn set_rate(&mut self, rate: u64) {
        self.rate = rate.max(1);
        self.part = self.part.min(part(self.rate, 1));
        self.debt = self.debt.min(i128::from(self.part) * SECOND);
    }

    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// How much the session may take now, or when it is to ask again.
    pub(crate) fn ask(&mut self, now: Time, place: &mut Place) -> Result<u64, Time> {
        self.reckon(now);
        let turned_away = self.call(place);
        // Who has not used up its part of the round before loses nothing.
        let in_midst = place.left > 0 && place.round + 1 == self.round;
        let entitled = in_midst || turned_away.is_some_and(|round| round < self.round);
        if place.round == self.round && place.left > 0 {
            return Ok(place.left.min(self.part));
        }
        let paid = self.debt <= 0;
        // Who did not wait gets of what others leave, while nobody waits for the next round.
        let is_first = turned_away.is_none() && self.waiting == 0;
        let is_left = is_first && self.debt + i128::from(self.given) * SECOND <= 0;
        if place.round < self.round && (entitled || is_left) {
            return Ok(self.give(place));
        }
        let all_came = self.entitled == 0 || now.since(self.opened) >= COME_BACK_TIMEOUT;
        if paid && all_came {
            self.open(now);
            return Ok(self.give(place));
        }
        self.turn_away(place);
        let patience = if paid { self.opened + COME_BACK_TIMEOUT } else { Time::ZERO };
        Err(self.paid_at().max(patience))
    }

    /// The session took so much of what it was allowed.
    pub(crate) fn take(&mut self, now: Time, place: &mut Place, bytes: u64) {
        self.reckon(now);
        if place.round == self.round {
            self.given = self.given.saturating_sub(bytes.min(place.left));
        }
        place.left = place.left.saturating_sub(bytes);
        self.debt += i128::from(bytes) * SECOND;
        self.used.note(now, bytes);
    }

    /// The session wants nothing for now: no round waits for it.
    pub(crate) fn leave(&mut self, place: &mut Place) {
        self.call(place);
    }

    /// The session cannot take what it is allowed, for want of something else: it is first in the next round.
    pub(crate) fn defer(&mut self, place: &mut Place) {
        self.call(place);
        self.turn_away(place);
    }

    /// Sessions that are held back now.
    pub(crate) fn held_back(&self) -> u64 {
        self.waiting + self.entitled
    }

    /// Bytes in the last whole second.
    pub(crate) fn used(&self, now: Time) -> u64 {
        match now.since_origin().as_secs().saturating_sub(self.used.second) {
            0 => self.used.before,
            1 => self.used.now,
            _ => 0,
        }
    }

    fn reckon(&mut self, now: Time) {
        let paid = now.since(self.at).as_nanos() as i128 * i128::from(self.rate);
        let most = BURST.as_nanos() as i128 * i128::from(self.rate);
        self.debt = (self.debt - paid).max(-most);
        self.at = self.at.max(now);
    }

    /// When nothing is owed any more.
    fn paid_at(&self) -> Time {
        let nanos = self.debt.max(0) / i128::from(self.rate) + 1;
        self.at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn open(&mut self, now: Time) {
        let wanting = self.given.div_ceil(self.part) + self.waiting + self.entitled + 1;
        self.part = part(self.rate, wanting);
        (self.round, self.opened, self.given) = (self.round + 1, now, 0);
        self.entitled += std::mem::take(&mut self.waiting);
    }

    fn give(&mut self, place: &mut Place) -> u64 {
        self.given += self.part;
        (place.round, place.left) = (self.round, self.part);
        self.part
    }

    fn turn_away(&mut self, place: &mut Place) {
        place.turned_away = Some(self.round);
        self.waiting += 1;
    }

    /// The session is here: it is counted among those that wait no longer.
    fn call(&mut self, place: &mut Place) -> Option<u64> {
        let turned_away = place.turned_away.take()?;
        if turned_away == self.round {
            self.waiting -= 1;
        } else {
            self.entitled -= 1;
        }
        Some(turned_away)
    }
}

/// One of so many equal parts of a round.
fn part(rate: u64, sessions: u64) -> u64 {
    let of = |round: Duration| u128::from(rate) * round.as_micros() / 1_000_000 / u128::from(sessions.max(1));
    let part = of(ROUND).max(of(LONGEST_ROUND).min(MIN_PART.into())).max(1);
    u64::try_from(part).unwrap_or(u64::MAX)
}

impl Used {
    fn note(&mut self, now: Time, bytes: u64) {
        let second = now.since_origin().as_secs();
        if second > self.second {
            self.before = if second == self.second + 1 { self.now } else { 0 };
            (self.second, self.now) = (second, 0);
        }
        self.now += bytes;
    }
}

#[cfg(test)]
mod tests;
