//! `ferry status`: what a tunnel's admin endpoint says, as a page for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::bail;
use ferry_text::Foreign;
use owo_colors::OwoColorize as _;

use crate::admin::{Endpoint, Limit, MostBytes, Pace, Problem, Status, Which, examples, problems, size, time};
use crate::process;

/// How long a tunnel may take for its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Sessions in the table; the rest is counted.
const MAX_LISTED: usize = 20;

fn help() -> String {
    let asked = examples("status");
    let end = "Exit code: 0 all is well, 1 something is wrong or nothing answers.";
    format!("Examples:\n{asked}  ferry status --json | jq .totals\n\n{end}")
}

/// Show a tunnel's peers, sessions and keys, and what is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Print what the tunnel answers, as it is.
    #[arg(long)]
    json: bool,
}

/// Asks once, and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    // What it has started for that ends in any case.
    let (text, url) = process::unless_stopped(async {
        let endpoint = Endpoint::reach(args.which).await?;
        Ok((endpoint.status(None, REQUEST_TIMEOUT).await?, endpoint.url().clone()))
    })
    .await?;
    let status = Status::parse(&text, &url)?;
    let problems = problems(&status);
    // Colours are for terminals.
    let mut stdout = anstream::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", text.trim_end())?;
    } else {
        write!(stdout, "{}", page(&status, &problems))?;
    }
    stdout.flush()?;
    match problems.len() {
        0 => Ok(()),
        1 => bail!("one thing is wrong at {}", Foreign(&status.name)),
        many => bail!("{many} things are wrong at {}", Foreign(&status.name)),
    }
}

fn page(status: &Status, problems: &[Problem]) -> String {
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
    for (peer, choice) in status.peers.iter().filter_map(|peer| Some((peer, peer.choice.as_ref()?))) {
        let _ = writeln!(page, "{}", choice.sentence(&peer.name));
    }
    page += &limits(&status.limits);
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
    if problems.is_empty() {
        let _ = writeln!(page, "{}", "nothing is wrong".green());
    }
    for Problem { what, advice, .. } in problems {
        let _ = writeln!(page, "{} {what}\n    → {advice}", "!".red().bold());
    }
    page
}

/// What is used of the limits of single entries.
fn limits(limits: &[Limit]) -> String {
    let mut table = Table::new(&["LIMIT OF", "SESSIONS", "REFUSED", "SENT A SECOND", "RECEIVED A SECOND"]);
    for limit in limits {
        let pace = |way: fn(&MostBytes) -> &Pace| {
            limit.of_bytes(|rate| {
                let Pace { used, waiting } = way(rate);
                let held = if *waiting > 0 { format!(", {waiting} held back") } else { String::new() };
                format!("{} of {}{held}", size(*used), size(rate.limit))
            })
        };
        let (sent, received) = (pace(|rate| &rate.sent), pace(|rate| &rate.received));
        table.row([limit.entry(), limit.used_sessions(), limit.refused(), sent, received]);
    }
    table.to_text()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shown_with_what_is_used_of_them() {
        let told = r#"[{"scope": "peer", "name": "b", "sessions": {"used": 2, "limit": 9, "refused": 4}},
            {"scope": "ingress", "name": "db", "bytes_per_second": {"limit": 5000000,
             "sent": {"used": 0, "waiting": 0}, "received": {"used": 4900000, "waiting": 3}}}]"#;
        let shown = limits(&serde_json::from_str::<Vec<Limit>>(told).unwrap());
        let lines: Vec<_> = shown.lines().skip(1).collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>().join(" "), "peer b 2 of 9 4 - -");
        let second = lines[2].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(second, "ingress db - - 0 B of 5.0 MB 4.9 MB of 5.0 MB, 3 held back");
        assert_eq!(limits(&[]), "");
    }

    #[test]
    fn columns_are_aligned_and_an_empty_table_is_none() {
        let mut table = Table::new(&["A", "LONG"]);
        assert_eq!(table.to_text(), "");
        table.row(["wider".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_text(), "\nA      LONG\nwider  x\n");
    }
}
