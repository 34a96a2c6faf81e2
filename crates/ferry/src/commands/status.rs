//! `ferry status`: what a tunnel's admin endpoint says, as a page for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use owo_colors::OwoColorize as _;
use reqwest::Url;
use serde::Deserialize;

use crate::commands::port_forward::{Place, PortForward};
use crate::exit::Usage;

/// How long a tunnel may take for its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Sessions in the table; the rest is counted.
const MAX_LISTED: usize = 20;
/// The form of `/status` that this program reads.
const VERSION: u32 = 1;

const EXAMPLES: &str = "\
Examples:
  ferry status                             the tunnel on this machine, at http://127.0.0.1:9900
  ferry status http://127.0.0.1:9901       the one whose `admin` that is
  ferry status --json | jq .totals
  ferry status --context k3d-cluster-a --namespace network-initiator-ns --pod deploy/initiator

Exit code: 0 all is well, 1 something is wrong or nothing answers.";

/// Show a tunnel's peers, sessions and keys, and what is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The tunnel's admin endpoint: `admin` of its tunnel.yaml.
    #[arg(default_value = "http://127.0.0.1:9900", conflicts_with = "pod")]
    url: Url,
    #[command(flatten)]
    place: Place,
    /// Print what the tunnel answers, as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Status {
    version: u32,
    ferry: String,
    name: String,
    uptime_seconds: f64,
    draining: bool,
    #[serde(default)]
    unbound: Vec<Unbound>,
    settings: Settings,
    totals: Totals,
    peers: Vec<Peer>,
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Unbound {
    listen: String,
    problem: String,
}

#[derive(Deserialize)]
struct Settings {
    rotation_every_seconds: f64,
    resume_window_seconds: f64,
}

#[derive(Deserialize)]
struct Totals {
    sessions: usize,
    detached: usize,
    buffered: u64,
    oldest_key_seconds: f64,
    links_open: u64,
    sent: u64,
    received: u64,
    resumes: u64,
    rotations: u64,
    rotations_failed: u64,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    reachable: bool,
    problem: Option<String>,
    dialled: bool,
    round_trip_seconds: Option<f64>,
    warm: Warm,
    sessions: usize,
    detached: usize,
}

#[derive(Deserialize)]
struct Warm {
    own: usize,
    offered: usize,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    peer: String,
    side: String,
    service: String,
    key_age_seconds: f64,
    age_seconds: f64,
    sent: u64,
    received: u64,
    buffered: u64,
    detached_seconds: Option<f64>,
    resumes: u32,
    longest_pause_seconds: f64,
}

/// Asks once, and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args.url.scheme() != "http" || !args.url.has_host() {
        let hint = "give the tunnel's admin endpoint, such as http://127.0.0.1:9900";
        return Err(Usage(format!("{} does not start with http://; {hint}", args.url)).into());
    }
    let mut url = args.url;
    let forward = match &args.place.pod {
        Some(pod) => Some(PortForward::start(pod, &args.place).await?),
        None => None,
    };
    if let Some(forward) = &forward {
        url = format!("http://127.0.0.1:{}", forward.port).parse()?;
    }
    let text = ask(&url).await?;
    drop(forward);
    let status = read(&text, &url)?;
    // Colours are for terminals.
    let mut stdout = anstream::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", text.trim_end())?;
    } else {
        write!(stdout, "{}", page(&status))?;
    }
    stdout.flush()?;
    match status.problems().len() {
        0 => Ok(()),
        1 => bail!("one thing is wrong at {}", Foreign(&status.name)),
        many => bail!("{many} things are wrong at {}", Foreign(&status.name)),
    }
}

async fn ask(url: &Url) -> anyhow::Result<String> {
    let at = url.join("/status").context("the URL cannot be used")?;
    // It is on this machine or behind a port-forward: no proxy is in between.
    let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
    let client = client.context("cannot make an HTTP client")?;
    let answer = client.get(at).send().await.map_err(|error| {
        let error = anyhow::Error::from(error);
        anyhow::anyhow!(
            "no tunnel answers at {url}: {}; is it running, and is this its `admin` address? (in Kubernetes: kubectl \
             port-forward)",
            error.root_cause()
        )
    })?;
    let code = answer.status();
    let text = answer.text().await.with_context(|| format!("{url} broke off its answer"))?;
    if !code.is_success() {
        bail!("{url} answers {code}: {}; is this a tunnel's admin endpoint?", Foreign(text.trim()));
    }
    Ok(text)
}

fn read(text: &str, url: &Url) -> anyhow::Result<Status> {
    let what =
        || format!("{url} answers, but not as a tunnel of this version of ferry; is it a tunnel's admin endpoint?");
    let status: Status = serde_json::from_str(text).with_context(what)?;
    if status.version != VERSION {
        bail!(
            "{url} answers in form {}, and this ferry reads form {VERSION}: use the ferry of that tunnel",
            status.version
        );
    }
    Ok(status)
}

impl Peer {
    fn is_there(&self) -> bool {
        self.reachable || self.sessions > self.detached
    }
}

impl Status {
    /// What is wrong, one sentence each.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.draining {
            problems.push("the tunnel is shutting down: it takes no new sessions".to_owned());
        }
        for Unbound { listen, problem } in &self.unbound {
            problems.push(format!("{listen} cannot be listened on: {problem}; does another process have it?"));
        }
        for peer in &self.peers {
            match (&peer.problem, peer.is_there(), peer.dialled) {
                (Some(problem), false, _) => problems.push(format!("{} is not reachable: {problem}", peer.name)),
                (Some(problem), true, _) => problems.push(format!("{}: {problem}", peer.name)),
                (None, false, true) => problems.push(format!("{} is not reached yet", peer.name)),
                (None, false, false) => {
                    problems.push(format!("{} has no link here, and this end cannot dial it", peer.name));
                }
                (None, true, _) => {}
            }
        }
        if self.totals.detached > 0 {
            let (count, window) = (self.totals.detached, time(self.settings.resume_window_seconds));
            let (are, they) =
                if count == 1 { (" is", "it resumes by itself") } else { ("s are", "they resume by themselves") };
            problems.push(format!("{count} session{are} without a link: {they}, or end after {window}"));
        }
        problems.iter().map(|problem| Foreign(problem).to_string()).collect()
    }
}

fn page(status: &Status) -> String {
    let (totals, settings) = (&status.totals, &status.settings);
    let mut page = format!(
        "{}  ferry {}, up for {}\n",
        Foreign(&status.name).to_string().bold(),
        Foreign(&status.ferry),
        time(status.uptime_seconds)
    );
    let line = |page: &mut String, name: &str, text: String| {
        // Writing to memory does not fail.
        let _ = writeln!(page, "  {name:<10}{text}");
    };
    let failed =
        if totals.rotations_failed > 0 { format!(", {} postponed", totals.rotations_failed) } else { String::new() };
    line(
        &mut page,
        "sessions",
        format!("{}, {} without a link, {} links open", totals.sessions, totals.detached, totals.links_open),
    );
    line(
        &mut page,
        "carried",
        format!(
            "{} sent, {} received, {} unacknowledged",
            size(totals.sent),
            size(totals.received),
            size(totals.buffered)
        ),
    );
    let oldest = if totals.sessions > totals.detached {
        format!("the oldest {}, ", time(totals.oldest_key_seconds))
    } else {
        String::new()
    };
    line(
        &mut page,
        "keys",
        format!(
            "{oldest}replaced every {}; {} replaced{failed}",
            time(settings.rotation_every_seconds),
            totals.rotations
        ),
    );
    line(&mut page, "cuts", format!("{} sessions resumed", totals.resumes));

    let mut peers = Table::new(&["PEER", "STATE", "ROUND TRIP", "SESSIONS", "DETACHED", "WARM"]);
    for peer in &status.peers {
        peers.row([
            Foreign(&peer.name).to_string(),
            if peer.is_there() { "reachable" } else { "NOT REACHABLE" }.to_owned(),
            peer.round_trip_seconds.map_or_else(|| "-".to_owned(), time),
            peer.sessions.to_string(),
            peer.detached.to_string(),
            format!("{}+{}", peer.warm.own, peer.warm.offered),
        ]);
    }
    page += &peers.to_text();
    let mut sessions =
        Table::new(&["SESSION", "SERVICE", "PEER", "SIDE", "KEY", "SENT", "RECEIVED", "UNACKED", "PAUSES", "AGE"]);
    for session in status.sessions.iter().take(MAX_LISTED) {
        let pauses = match session.detached_seconds {
            Some(since) => format!("now {}", time(since)),
            None if session.resumes > 0 => format!("{} ({})", session.resumes, time(session.longest_pause_seconds)),
            None => "none".to_owned(),
        };
        sessions.row([
            Foreign(&session.id).to_string().chars().take(8).collect(),
            Foreign(&session.service).to_string(),
            Foreign(&session.peer).to_string(),
            Foreign(&session.side).to_string(),
            if session.detached_seconds.is_some() { "no link".to_owned() } else { time(session.key_age_seconds) },
            size(session.sent),
            size(session.received),
            size(session.buffered),
            pauses,
            time(session.age_seconds),
        ]);
    }
    page += &sessions.to_text();
    let more = totals.sessions.saturating_sub(status.sessions.len().min(MAX_LISTED));
    if more > 0 {
        let _ = writeln!(page, "and {more} more sessions");
    }
    page.push('\n');
    let problems = status.problems();
    if problems.is_empty() {
        let _ = writeln!(page, "{}", "nothing is wrong".green());
    }
    for problem in problems {
        let _ = writeln!(page, "{} {problem}", "!".red().bold());
    }
    page
}

/// Columns that are as wide as what is in them.
struct Table<const N: usize>(Vec<[String; N]>);

impl<const N: usize> Table<N> {
    fn new(head: &[&str; N]) -> Self {
        Self(vec![head.map(str::to_owned)])
    }

    fn row(&mut self, cells: [String; N]) {
        self.0.push(cells);
    }

    /// Nothing where there is no row.
    fn to_text(&self) -> String {
        let mut text = String::new();
        if self.0.len() < 2 {
            return text;
        }
        let width =
            |column: usize| self.0.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
        let widths: Vec<usize> = (0..N).map(width).collect();
        for row in &self.0 {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            text += &format!("\n{}", line.trim_end());
        }
        format!("{text}\n")
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = usize::from(unit > 0 && value < 99.5);
    format!("{value:.digits$} {}", UNITS[unit])
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!([0, 999, 1000, 123_456, 99_960_000_000].map(size), ["0 B", "999 B", "1.0 kB", "123 kB", "100 GB"]);
        let times = [0.0004, 0.25, 1.0, 42.4, 600.0, 7200.0, 864_000.0].map(time);
        assert_eq!(times, ["0 ms", "250 ms", "1.0 s", "42 s", "10 min", "2 h", "10 days"]);
    }

    #[test]
    fn columns_are_aligned_and_an_empty_table_is_none() {
        let mut table = Table::new(&["A", "LONG"]);
        assert_eq!(table.to_text(), "");
        table.row(["wider".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_text(), "\nA      LONG\nwider  x\n");
    }
}
