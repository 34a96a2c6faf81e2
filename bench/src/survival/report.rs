//! The matrix as text: a line per measurement while it runs, a summary, a page of the documentation.

use super::{Cell, Matrix, Verdict};
use std::fmt::Write;

const HEADING: &str = "\
| fault | tunnel | session | bytes checked | lost | doubled or reordered | garbled | longest pause | beyond the fault | new session |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|
";

/// One measurement, as it is finished.
pub(super) fn line(cell: &Cell) -> String {
    format!("{:<15} {:<9} {}", cell.fault, cell.tunnel, verdict(cell))
}

fn verdict(cell: &Cell) -> String {
    match &cell.verdict {
        Verdict::Alive => format!("alive, {} s", seconds(cell.outcome.longest_pause)),
        Verdict::Dead(death) => format!("dead: {}", death.how),
        Verdict::Inapplicable => "–".to_owned(),
        Verdict::Failed { why } => format!("not measured: {why}"),
    }
}

/// Short enough for a table that has all tunnels beside each other.
fn mark(cell: &Cell) -> String {
    let wrong = cell.outcome.doubled + cell.outcome.reordered + cell.outcome.garbled;
    match &cell.verdict {
        Verdict::Alive if cell.outcome.lost + wrong > 0 => "**wrong bytes**".to_owned(),
        Verdict::Alive => format!("**yes**, +{} s", seconds(cell.pause_beyond_fault)),
        Verdict::Dead(death) => format!("no: {}", death.how),
        Verdict::Inapplicable => "–".to_owned(),
        Verdict::Failed { .. } => "?".to_owned(),
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.2}") } else { format!("{seconds:.1}") }
}

/// Rows are faults, columns tunnels.
pub(super) fn summary(matrix: &Matrix) -> String {
    let tunnels: Vec<_> = matrix.tunnels.iter().filter(|tunnel| tunnel.skipped.is_none()).map(|t| t.name).collect();
    let mut text = format!("| fault | {} |\n|---|{}\n", tunnels.join(" | "), "---|".repeat(tunnels.len()));
    for (name, description) in &matrix.faults {
        let marks: Vec<_> = matrix.cells.iter().filter(|cell| cell.fault == *name).map(mark).collect();
        let _ = writeln!(text, "| {description} | {} |", marks.join(" | "));
    }
    text
}

/// The whole run as Markdown.
pub(super) fn page(matrix: &Matrix) -> String {
    let mut text = format!(
        "# What a session survives\n\n\
         Written by `{}`; do not edit.\n\n\
         An application connects through each tunnel to another and both send {} KiB/s of a keyed pattern to each \
         other, which tells for every byte where it belongs. Between the tunnel's two ends lies a relay that holds \
         everything for {} ms in each direction, and the fault happens there or to the tunnel. *Yes* means that the applications' own connection went on and every byte \
         arrived once and in order; the figure is the longest time in which an application got nothing, less the time \
         for which the path was gone.\n\n{}\n",
        matrix.command,
        matrix.rate >> 10,
        matrix.delay,
        summary(matrix),
    );
    text.push_str("## Every measurement\n\n");
    text.push_str(HEADING);
    for cell in matrix.cells.iter().filter(|cell| cell.verdict != Verdict::Inapplicable) {
        let _ = writeln!(text, "{}", row(cell));
    }
    text.push_str(
        "\nBytes *lost* had been taken from one application and never reached the other, up to the moment at which an \
         application saw its connection end or the fault was over; faster streams lose more, and after a FIN the relay takes \
         and drops what is still sent for 200 ms. A session is dead when an \
         application sees its connection end, or when nothing sent after the fault arrives in time (\"silent\"). *End \
         of file* in the middle of a stream looks to an application like its proper end. *New session*: seconds from \
         the end of the fault until a connection made anew came through, which is what an application that copes with \
         losses itself has to wait.\n\n\
         The relay's kernel acknowledges what the tunnels send, also in a black hole, so TCP's own keep-alive and \
         retransmission time-outs, which would end some of the silent sessions in a real network, do not act here.\n\n\
         ## Tunnels\n\n| tunnel | version | set up as |\n|---|---|---|\n",
    );
    for tunnel in &matrix.tunnels {
        let version = tunnel.version.as_deref().or(tunnel.skipped.as_deref()).unwrap_or_default();
        let _ = writeln!(text, "| {} | {version} | {} |", tunnel.name, tunnel.settings);
    }
    let _ = write!(
        text,
        "\nNone but ferry has a means to tell a running session of a new address; the others' sessions end with the old \
         one whatever they are told. A dash in the first table: the tunnel has no such thing.\n\n\
         ## Machine\n\n{}; all processes on loopback.\n",
        matrix.machine,
    );
    text
}

fn row(cell: &Cell) -> String {
    let outcome = &cell.outcome;
    let new_session = match cell.new_session {
        _ if !cell.told => "cannot be told".to_owned(),
        Some(after) => format!("{} s", seconds(after)),
        None => "none".to_owned(),
    };
    let session = match &cell.verdict {
        Verdict::Alive => "**alive**".to_owned(),
        Verdict::Dead(death) => format!("dead: {}", death.how),
        Verdict::Inapplicable | Verdict::Failed { .. } => {
            return format!(
                "| {} | {} | {} | | | | | | | |",
                cell.fault,
                cell.tunnel,
                verdict(cell).replace('\n', " ")
            );
        }
    };
    let pauses = match cell.verdict {
        Verdict::Alive => [outcome.longest_pause, cell.pause_beyond_fault].map(|pause| format!("{} s", seconds(pause))),
        _ => ["–", "–"].map(str::to_owned),
    };
    format!(
        "| {} | {} | {session} | {} | {} | {} | {} | {} | {} | {new_session} |",
        cell.fault,
        cell.tunnel,
        outcome.checked,
        outcome.lost,
        outcome.doubled + outcome.reordered,
        outcome.garbled,
        pauses[0],
        pauses[1],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Outcome;

    fn cell(outcome: Outcome) -> Cell {
        let (fault, verdict) = ("rst".to_owned(), Verdict::Alive);
        Cell { fault, tunnel: "ferry", verdict, told: true, outcome, pause_beyond_fault: 0.25, new_session: None }
    }

    #[test]
    fn a_session_with_wrong_bytes_has_not_survived() {
        assert_eq!(mark(&cell(Outcome::default())), "**yes**, +0.25 s");
        for wrong in [
            Outcome { lost: 1, ..Outcome::default() },
            Outcome { doubled: 1, ..Outcome::default() },
            Outcome { reordered: 1, ..Outcome::default() },
            Outcome { garbled: 1, ..Outcome::default() },
        ] {
            assert_eq!(mark(&cell(wrong)), "**wrong bytes**");
        }
    }

    #[test]
    fn rows_have_as_many_columns_as_their_heading() {
        let columns = row(&cell(Outcome::default())).matches('|').count();
        let failed = Cell { verdict: Verdict::Failed { why: "a\nb".to_owned() }, ..cell(Outcome::default()) };
        assert_eq!(row(&failed).matches('|').count(), columns);
        assert_eq!(HEADING.lines().map(|line| line.matches('|').count()).collect::<Vec<_>>(), [columns; 2]);
    }
}
