//! The checked stream lives through everything that happens between the clusters: the timeline of it, and the checks.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use indicatif::{BinaryBytes, HumanCount};
use owo_colors::OwoColorize as _;
use tokio::time::{Instant, sleep, timeout};

use crate::between::Fault;
use crate::check::{Findings, ensure};
use crate::screen::Screen;
use crate::status::{Session, Status};
use crate::stream::{CheckedStream, PULSE};
use crate::topology::{STREAM, Topology};
use ferry_relay::Tally;

/// How long the stream runs undisturbed before and after each event.
const CALM: Duration = Duration::from_millis(600);
/// How long it may take until it flows again.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What it lived through.
pub(crate) struct Survival {
    events: Vec<Event>,
    /// Its session, in the words of both tunnels, before and after.
    ids: [Vec<String>; 2],
    /// Whether a second connection came out of the tunnels.
    another: bool,
    /// What was written and what arrived: to the terminator's cluster, and back.
    arrived: [(u64, Tally); 2],
}

/// One line of the timeline.
struct Event {
    fault: Fault,
    /// Since the stream began.
    at: Duration,
    /// How long nothing arrived.
    pause: Duration,
    epochs: [u64; 2],
    /// What had arrived when it flowed again, in both directions together.
    tally: Tally,
}

/// Lets everything happen to a new stream, one after another, and shows it.
///
/// # Errors
///
/// The stream broke, or did not flow again in time.
pub(crate) async fn play(screen: &Screen, topology: &Topology) -> anyhow::Result<Survival> {
    let stream = CheckedStream::begin(topology.egress, &topology.arrivals).await?;
    let (mut events, mut pulse) = (Vec::new(), Vec::new());
    let played = disturb(screen, topology, stream, &mut events, &mut pulse).await;
    // Also what a stream lived through that broke in the end.
    show(screen, &events, &pulse);
    let (ids, arrived) = played?;
    let another = topology.arrivals.accept().now_or_never().is_some();
    Ok(Survival { events, ids, another, arrived })
}

type Outcome = ([Vec<String>; 2], [(u64, Tally); 2]);

async fn disturb(
    screen: &Screen,
    topology: &Topology,
    mut stream: CheckedStream,
    events: &mut Vec<Event>,
    pulse: &mut Vec<u64>,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    sleep(CALM).await;
    let before = sessions(topology).await?;
    for fault in Fault::ALL {
        let epoch = attached(topology).await?.epoch;
        screen.print(format_args!(
            "{} {}: {}",
            fault.sign().yellow().bold(),
            fault.what().bold(),
            fault.remark().dimmed()
        ));
        screen.progress(events.len() as f64 / Fault::ALL.len() as f64, fault.what());
        stream.mark();
        let at = start.elapsed();
        topology.between.strike(fault, &topology.initiator_tunnel).await?;
        let again = flows_again(topology, &mut stream, epoch);
        let after = timeout(RECOVERY_MAX, again).await.with_context(|| {
            format!("the checked stream did not flow again within {RECOVERY_MAX:?} after: {}", fault.what())
        })??;
        let tally = total(stream.tallies());
        *pulse = stream.pulse();
        let event = Event { fault, at, pause: stream.pause(), epochs: [epoch, after], tally };
        // Said here, as the tunnels only count what they have said a moment before.
        screen.print(event.aftermath());
        events.push(event);
        sleep(CALM).await;
    }
    *pulse = stream.pulse();
    let after = sessions(topology).await?;
    Ok(([before, after], stream.settle().await?))
}

/// Waits until the session has moved on from `epoch`, and what was written until then has arrived, and returns the epoch.
async fn flows_again(topology: &Topology, stream: &mut CheckedStream, epoch: u64) -> anyhow::Result<u64> {
    let now = loop {
        stream.alive()?;
        let now = attached(topology).await?.epoch;
        if now > epoch {
            break now;
        }
        sleep(LOOK_AGAIN).await;
    };
    let due = stream.written();
    while stream.tallies().iter().zip(due).any(|(tally, due)| tally.checked < due) {
        stream.alive()?;
        sleep(LOOK_AGAIN).await;
    }
    Ok(now)
}

/// The stream's session at the end that dials.
async fn attached(topology: &Topology) -> anyhow::Result<Session> {
    let status = Status::read(topology.initiator.admin).await?;
    match status.sessions_of(STREAM, topology.terminator.tunnel).as_slice() {
        [session] => Ok(session.clone()),
        sessions => bail!("the checked stream has {} sessions", sessions.len()),
    }
}

/// The ids of the stream's sessions at both ends.
async fn sessions(topology: &Topology) -> anyhow::Result<Vec<String>> {
    let (a, b) = (&topology.initiator, &topology.terminator);
    let (near, far) = tokio::try_join!(Status::read(a.admin), Status::read(b.admin))?;
    let both = [near.sessions_of(STREAM, b.tunnel), far.sessions_of(STREAM, a.tunnel)];
    Ok(both.into_iter().flatten().map(|session| session.id).collect())
}

fn total([forward, backward]: [Tally; 2]) -> Tally {
    Tally {
        checked: forward.checked + backward.checked,
        lost: forward.lost + backward.lost,
        doubled: forward.doubled + backward.doubled,
        reordered: forward.reordered + backward.reordered,
        garbled: forward.garbled + backward.garbled,
    }
}

fn show(screen: &Screen, events: &[Event], pulse: &[u64]) {
    screen.act("Timeline of the checked stream");
    let room = screen.width().unwrap_or(usize::MAX);
    let faults: Vec<_> = events.iter().map(|event| (event.at, event.fault.sign())).collect();
    for line in pulse_lines(pulse, &faults, room.min(100).saturating_sub(INDENT.len())) {
        screen.print(format_args!("{INDENT}{line}"));
    }
    let narrow = events.iter().any(|event| visible(&event.render()) > room);
    for event in events {
        screen.print(if narrow { event.render_narrow() } else { event.render() });
    }
}

const INDENT: &str = "  ";

/// What arrived as a line of bars, one for each pulse or for several, and the faults where they struck beneath.
fn pulse_lines(pulse: &[u64], faults: &[(Duration, char)], room: usize) -> Vec<String> {
    const BARS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let together = pulse.len().div_ceil(room.max(1)).max(1);
    let bars: Vec<u64> = pulse.chunks(together).map(|pulses| pulses.iter().sum()).collect();
    let Some(most) = bars.iter().max().copied().filter(|most| *most > 0) else { return Vec::new() };
    // By the root: what was held up comes in one burst, beside which the rest would be flat.
    let height = |bytes: u64| (bytes as f64 / most as f64).sqrt() * 8.0;
    let line: String = bars.iter().map(|bytes| BARS[height(*bytes).ceil() as usize]).collect();
    let mut signs = vec![' '; bars.len()];
    let each = PULSE * u32::try_from(together).unwrap_or(u32::MAX);
    for (at, sign) in faults {
        if let Some(place) = signs.get_mut((at.as_millis() / each.as_millis()) as usize) {
            *place = *sign;
        }
    }
    let signs: String = signs.into_iter().collect();
    let title = format!("bytes that arrived, both ways together, for each {} ms:", each.as_millis());
    vec![title.dimmed().to_string(), line.cyan().to_string(), signs.trim_end().yellow().to_string()]
}

/// Columns that a text takes without its colours.
fn visible(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

impl Event {
    fn shown_pause(&self) -> String {
        match self.pause {
            short if short < Duration::from_secs(1) => format!("{} ms", short.as_millis()),
            long => seconds(long),
        }
    }

    /// What became of the session.
    fn aftermath(&self) -> String {
        let what = if self.fault == Fault::Rotate { "session has fresh keys" } else { "session resumed" };
        let ([before, after], pause) = (self.epochs, self.shown_pause());
        format!("  {} {what}: epoch {before} → {after}, its application noticed a pause of {pause}", "↻".green())
    }

    /// In 80 columns; what the bytes came to is in the checks.
    fn render_narrow(&self) -> String {
        let Tally { lost, doubled, .. } = self.tally;
        let account = format!("{lost} lost, {doubled} doubled");
        let account = if lost + doubled == 0 { account.green().to_string() } else { account.red().to_string() };
        format!(
            "{:>7} {} {:34} {:>6} {:>2} → {:<2} {account}",
            seconds(self.at).dimmed(),
            self.fault.sign().yellow().bold(),
            self.fault.what(),
            self.shown_pause().yellow(),
            self.epochs[0],
            self.epochs[1].cyan(),
        )
    }

    fn render(&self) -> String {
        let pause = self.shown_pause();
        let Tally { checked, lost, doubled, .. } = self.tally;
        let account = format!("{lost} lost, {doubled} doubled");
        let account = if lost + doubled == 0 { account.green().to_string() } else { account.red().to_string() };
        format!(
            "  {:>6}  {} {:34}  pause {:>6}  epoch {} → {}  {:>10} checked, {account}",
            seconds(self.at).dimmed(),
            self.fault.sign().yellow().bold(),
            self.fault.what(),
            pause.yellow(),
            self.epochs[0],
            self.epochs[1].cyan(),
            BinaryBytes(checked).to_string(),
        )
    }
}

impl Survival {
    /// Checks that the stream noticed nothing but pauses.
    pub(crate) fn check(&self, findings: &mut Findings) {
        for Event { fault, epochs: [before, after], .. } in &self.events {
            findings.note(
                format!("{}: the checked stream continued on a new link (epoch {before} → {after})", fault.what()),
                ensure(before < after, || "it is not new".into()),
            );
        }
        findings.note("through all of that it stayed the same TCP connection at both ends", self.same_connection());
        for (to, (written, tally)) in ["cluster-b", "cluster-a"].into_iter().zip(&self.arrived) {
            findings.note(
                format!("{} bytes of it checked in {to}: 0 lost, 0 doubled, 0 reordered", HumanCount(tally.checked)),
                whole(*written, tally),
            );
        }
    }

    fn same_connection(&self) -> Result<(), String> {
        let [before, after] = &self.ids;
        ensure(!self.another, || "a second one came out of the tunnels".into())?;
        let one = before.len() == 2 && before[0] == before[1] && before == after;
        ensure(one, || format!("its sessions were {before:?}, then {after:?}"))
    }
}

/// Whether exactly what was written arrived.
fn whole(written: u64, tally: &Tally) -> Result<(), String> {
    let clean = *tally == Tally { checked: written, ..Tally::default() };
    let Tally { checked, lost, doubled, reordered, garbled } = tally;
    ensure(clean, || {
        format!(
            "of {written} bytes written {checked} came, {lost} lost, {doubled} doubled, {reordered} reordered, \
             {garbled} garbled"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survival(doctor: impl FnOnce(&mut Survival)) -> String {
        let tally = Tally { checked: 9, ..Tally::default() };
        let event = Event {
            fault: Fault::Cut,
            at: Duration::from_millis(640),
            pause: Duration::from_millis(41),
            epochs: [1, 2],
            tally: Tally { checked: 3 << 20, ..tally },
        };
        let ids = || vec!["1".to_owned(), "1".to_owned()];
        let mut survival =
            Survival { events: vec![event], ids: [ids(), ids()], another: false, arrived: [(9, tally); 2] };
        doctor(&mut survival);
        let mut findings = Findings::new(Screen::new().unwrap());
        survival.check(&mut findings);
        findings.verdict().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_doctored_stream_is_found_out() {
        assert_eq!(survival(|_| ()), "");
        assert!(survival(|s| s.arrived[0].0 = 10).contains("of 10 bytes written 9 came"));
        assert!(survival(|s| s.arrived[0].1.lost = 1).contains("1 lost"));
        assert!(survival(|s| s.arrived[1].1.doubled = 1).contains("1 doubled"));
        assert!(survival(|s| s.arrived[1].1.reordered = 1).contains("1 reordered"));
        assert!(survival(|s| s.arrived[1].1.garbled = 1).contains("1 garbled"));
        assert!(survival(|s| s.another = true).contains("a second one came out"));
        assert!(survival(|s| s.ids[1][1] = "2".into()).contains(r#"then ["1", "2"]"#));
        assert!(survival(|s| s.events[0].epochs = [2, 2]).contains("it is not new"));
    }

    #[test]
    fn the_bytes_are_a_line_with_the_faults_beneath() {
        let faults = [(Duration::from_millis(250), '✂'), (Duration::from_secs(9), '●')];
        let lines = |pulse: &[u64], room| -> Vec<String> {
            let lines = pulse_lines(pulse, &faults, room);
            lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
        };
        let [title, bars, signs] = &lines(&[16, 16, 0, 1, 64], 80)[..] else { panic!() };
        assert!(title.ends_with("for each 100 ms:"), "{title}");
        assert_eq!((bars.as_str(), signs.as_str()), ("▄▄·▁█", "  ✂"));
        let [title, bars, signs] = &lines(&[16, 16, 0, 1, 64], 3)[..] else { panic!() };
        assert!(title.ends_with("for each 200 ms:"), "{title}");
        assert_eq!((bars.chars().count(), signs.as_str()), (3, " ✂"));
        assert_eq!(lines(&[], 80), [] as [String; 0]);
    }

    #[test]
    fn an_event_fits_a_terminal_of_80_columns() {
        let tally = Tally { checked: 3 << 40, ..Tally::default() };
        let [at, pause] = [12_640, 9_310].map(Duration::from_millis);
        for fault in Fault::ALL {
            let line = Event { fault, at, pause, epochs: [98, 99], tally }.render_narrow();
            assert!(visible(&line) <= 80, "{line}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let tally = Tally { checked: 3 << 20, lost: 1, ..Tally::default() };
        let [at, pause] = [640, 1310].map(Duration::from_millis);
        let event = Event { fault: Fault::BlackHole, at, pause, epochs: [2, 3], tally };
        let line = anstream::adapter::strip_str(&event.render()).to_string();
        let expected = "   0.6 s  ● black hole for 1 s, NAT state lost  pause  1.3 s  epoch 2 → 3    3.00 MiB checked, \
                        1 lost, 0 doubled";
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    }
}
