use std::time::Duration;

use crate::Time;

/// Real bytes go over an idle link this often: cloud load balancers drop idle flows after 240 to 350 s, and some do
/// not count TCP keep-alive.
pub const IDLE_PING_INTERVAL: Duration = Duration::from_secs(10);

/// Traffic that stops is asked after this soon, once: a stream that was cut in the middle is found early.
pub const BUSY_PING_INTERVAL: Duration = Duration::from_secs(1);

/// An answer that takes longer than this, or four round trips, makes a link suspect.
const SUSPICION_DELAY: Duration = Duration::from_millis(1500);

/// More packets than this within half of that time are a path that delivers. A far end that hears nothing asks again with
/// two at most, after twice as long each time (RFC 9002 §6.2), so that fewer of those come.
const MAX_PROBES: u32 = 4;

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until the link is given up.
    pub(crate) liveness: Duration,
    /// Until an idle link is asked.
    pub(crate) idle_ping: Duration,
}

/// Whether a link is alive, judged by what comes over it.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// When something last came.
    heard: Time,
    /// Application bytes moved since the last Ping.
    busy: bool,
    /// A Ping is to be sent, or was and is not answered.
    ping: Ping,
    /// Since when something that the peer has to answer is under way, or packets were last seen to come all the same.
    waiting: Option<Time>,
    silence: Silence,
    rtt: Option<Duration>,
}

/// What is thought of a link on which an answer is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Short,
    /// Half of the wait is over: how many packets had come by then, if that is known.
    Counted(Option<u32>),
    Suspect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    No,
    Due,
    Sent(Time),
}

/// What the passing of time says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// An answer is overdue. Given once per wait.
    Suspect,
    /// Nothing came for the whole liveness time.
    Silent,
}

impl Liveness {
    pub(crate) fn new(now: Time) -> Self {
        Self { heard: now, busy: false, ping: Ping::No, waiting: None, silence: Silence::Short, rtt: None }
    }

    /// Something came. `owed`: something that the peer has to answer is still under way.
    pub(crate) fn on_heard(&mut self, now: Time, owed: bool) {
        self.heard = now;
        self.silence = Silence::Short;
        if !owed && !matches!(self.ping, Ping::Sent(_)) {
            self.waiting = None;
        }
    }

    /// Application bytes went or came.
    pub(crate) fn on_traffic(&mut self) {
        self.busy = true;
    }

    /// Something that the peer has to answer was sent.
    pub(crate) fn on_asked(&mut self, now: Time) {
        self.waiting.get_or_insert(now);
    }

    /// The Ping to send, if one is due.
    pub(crate) fn poll_ping(&mut self, now: Time) -> Option<u64> {
        if self.ping != Ping::Due {
            return None;
        }
        self.ping = Ping::Sent(now);
        self.on_asked(now);
        Some(token(now))
    }

    /// Says whether this answers the last Ping.
    pub(crate) fn on_pong(&mut self, now: Time, answered: u64) -> bool {
        if let Ping::Sent(sent) = self.ping
            && token(sent) == answered
        {
            self.rtt = Some(now.since(sent));
            self.ping = Ping::No;
            return true;
        }
        false
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    fn ping_at(&self, patience: Patience) -> Option<Time> {
        // Before the link is suspect for want of an answer.
        let (after, parts) = if self.busy { (BUSY_PING_INTERVAL, 4) } else { (patience.idle_ping, 2) };
        (self.ping == Ping::No).then(|| self.heard + after.min(patience.liveness / parts))
    }

    /// When packets are to be counted, so that it is known after as long again whether any came.
    fn count_at(&self, liveness: Duration) -> Option<Time> {
        let since = self.waiting?.max(self.heard);
        let patience = SUSPICION_DELAY.max(self.rtt.unwrap_or_default() * 4).min(liveness / 2);
        match self.silence {
            Silence::Short => Some(since + patience / 2),
            Silence::Counted(_) => Some(since + patience),
            Silence::Suspect => None,
        }
    }

    /// An answer is late: says whether that makes the link suspect.
    fn doubt(&mut self, now: Time, packets: Option<u32>) -> Verdict {
        match (self.silence, packets) {
            (Silence::Short, _) => self.silence = Silence::Counted(packets),
            (Silence::Counted(Some(before)), Some(packets)) if packets.wrapping_sub(before) > MAX_PROBES => {
                (self.waiting, self.silence) = (Some(now), Silence::Short);
            }
            _ => {
                self.silence = Silence::Suspect;
                return Verdict::Suspect;
            }
        }
        Verdict::Fine
    }

    /// When to look again.
    pub(crate) fn poll_timeout(&self, patience: Patience) -> Time {
        let given_up_at = self.heard + patience.liveness;
        [self.ping_at(patience), self.count_at(patience.liveness)].into_iter().flatten().fold(given_up_at, Time::min)
    }

    /// `packets`: how many have come over the link, if that is known. Asked only where an answer is late.
    pub(crate) fn on_timeout(&mut self, now: Time, patience: Patience, packets: impl Fn() -> Option<u32>) -> Verdict {
        let liveness = patience.liveness;
        if now >= self.heard + liveness {
            return Verdict::Silent;
        }
        if self.ping_at(patience).is_some_and(|at| now >= at) {
            self.ping = Ping::Due;
            self.busy = false;
        }
        while self.count_at(liveness).is_some_and(|at| now >= at) {
            if self.doubt(now, packets()) == Verdict::Suspect {
                return Verdict::Suspect;
            }
        }
        Verdict::Fine
    }
}

fn token(sent: Time) -> u64 {
    u64::try_from(sent.since_origin().as_nanos()).unwrap_or(u64::MAX)
}
