//! What ferry is to reach, as ratios within one run, and what it reached.

use crate::bulk::{self, CEILING, COST, SPEED};
use crate::connect::{self, FIRST_BYTE, SESSIONS, SPREAD};
use crate::idle;
use crate::latency::{self, P50, P99, P999};
use crate::long;
use crate::mixed::{self, ALONE, KEPT, TIMES_ALONE};
use crate::rotation::{self, EVERY_SECOND, NEVER};
use crate::section::{Better, Figure, Section};
use crate::tunnels::Tunnel;
use std::fmt::Write;
use std::sync::Arc;

/// Peers that make a full TLS handshake for each session; Envoy resumes former ones, ssh makes none.
const TLS_PER_SESSION: [&str; 3] = ["rathole-tls", "stunnel", "haproxy"];

/// Peers that make a Noise handshake for each session, without post-quantum keys or a proof of the client's.
const NOISE_PER_SESSION: [&str; 1] = ["rathole"];

/// Whom ferry is compared with.
enum Against {
    /// The best of these.
    Best(&'static str, Vec<&'static str>),
    /// A number.
    Absolute(f64),
}

/// One aim.
struct Target {
    section: &'static str,
    /// Only cases whose name has this in it.
    case: &'static str,
    figure: Figure,
    ours: &'static str,
    against: Against,
    /// What ferry's value divided by the other's is to reach, or not to exceed.
    ratio: f64,
    /// The ratio's standard error, where it is measured: the target is met or missed by more than that, or neither.
    error: Option<Figure>,
}

fn targets(tunnels: &[Arc<dyn Tunnel>]) -> Vec<Target> {
    let names = |keep: &dyn Fn(&dyn Tunnel) -> bool| -> Vec<&'static str> {
        let others = tunnels.iter().filter(|tunnel| !["ferry", "direct"].contains(&tunnel.name()));
        others.filter(|tunnel| keep(tunnel.as_ref())).map(|tunnel| tunnel.name()).collect()
    };
    let encrypted = || Against::Best("best encrypted peer", names(&|tunnel| tunnel.encrypted()));
    let plaintext = || Against::Best("best plaintext peer", names(&|tunnel| !tunnel.encrypted()));
    let any = || Against::Best("best of all peers", names(&|_| true));
    let one = |name| Against::Best(name, vec![name]);
    let of = |section, case, figure, against, ratio| Target {
        section,
        case,
        figure,
        ours: "ferry",
        against,
        ratio,
        error: None,
    };
    let rotation = |case, figure, ratio, error| Target {
        ours: EVERY_SECOND,
        error,
        ..of(rotation::TITLE, case, figure, Against::Best("no rotation", vec![NEVER]), ratio)
    };
    vec![
        of(bulk::TITLE, "", SPEED, encrypted(), 1.2),
        of(bulk::TITLE, "", SPEED, one("socat"), 1.0),
        of(bulk::TITLE, "", SPEED, one(CEILING), 0.9),
        of(bulk::TITLE, "", COST, one("socat"), 1.1),
        of(bulk::TITLE, "", COST, encrypted(), 0.75),
        of(latency::TITLE, "", P50, encrypted(), 1.0),
        of(latency::TITLE, "", P50, plaintext(), 1.1),
        of(latency::TITLE, "", P99, any(), 1.2),
        of(mixed::TITLE, ALONE, P50, encrypted(), 1.0),
        of(mixed::TITLE, ALONE, P50, plaintext(), 1.1),
        of(mixed::TITLE, ALONE, P99, any(), 1.2),
        of(mixed::TITLE, "stream", P50, one("stunnel"), 1.0),
        of(mixed::TITLE, "stream", P99, any(), 1.0),
        of(mixed::TITLE, "stream", KEPT, Against::Absolute(1.0), 0.9),
        of(mixed::TITLE, "new sessions", TIMES_ALONE, Against::Absolute(1.0), 2.0),
        of(connect::PACED, "loopback", FIRST_BYTE, one("haproxy-plain"), 1.1),
        of(connect::PACED, "loopback", SPREAD, Against::Absolute(1.0), 2.0),
        of(connect::PACED, "80 ms", FIRST_BYTE, Against::Absolute(80.0), 1.1),
        of(
            connect::SUSTAINED,
            "",
            SESSIONS,
            Against::Best("best with a TLS handshake each", TLS_PER_SESSION.to_vec()),
            1.0,
        ),
        of(connect::SUSTAINED, "loopback", SESSIONS, any(), 1.0),
        of(
            connect::SUSTAINED,
            "",
            SESSIONS,
            Against::Best("with a Noise handshake each", NOISE_PER_SESSION.to_vec()),
            1.0,
        ),
        of(idle::TITLE, idle::CASE, idle::MEMORY, Against::Absolute(10.0), 1.0),
        of(long::TITLE, long::LARGE, long::SPEED, Against::Absolute(1000.0), 1.0),
        rotation("stream", SPEED, 0.99, Some(rotation::ERROR)),
        rotation("1 kB", P999, 1.1, None),
    ]
}

/// A row per target and case that were measured.
pub(crate) fn table(sections: &[Section], tunnels: &[Arc<dyn Tunnel>]) -> String {
    let mut text = String::from(
        "| what | ferry | against | its value | ratio | target | met |\n|---|---:|---|---:|---:|---:|---|\n",
    );
    for target in targets(tunnels) {
        let Some(section) = sections.iter().find(|section| section.title == target.section) else { continue };
        for case in section.cases().into_iter().filter(|case| case.contains(target.case)) {
            if let Some(row) = target.row(section, case) {
                text.push_str(&row);
            }
        }
    }
    text
}

impl Target {
    fn row(&self, section: &Section, case: &str) -> Option<String> {
        let figure = self.figure;
        let ours = section.median(self.ours, case, figure.name)?;
        let more = figure.better == Better::More;
        let (name, value) = match &self.against {
            Against::Absolute(value) => ("a fixed bound".to_owned(), *value),
            Against::Best(what, names) => {
                let measured = names.iter().filter_map(|name| Some((section.median(name, case, figure.name)?, *name)));
                let best = |(value, _): &(f64, &str)| if more { *value } else { -*value };
                let (value, name) = measured.max_by(|a, b| best(a).total_cmp(&best(b)))?;
                (if *what == name { name.to_owned() } else { format!("{what}: {name}") }, value)
            }
        };
        let ratio = ours / value;
        let error = self.error.and_then(|error| section.median(self.ours, case, error.name));
        let (least, most) = (ratio - error.unwrap_or(0.0), ratio + error.unwrap_or(0.0));
        let [met, missed] =
            if more { [least >= self.ratio, most < self.ratio] } else { [most <= self.ratio, least > self.ratio] };
        let ratio = error.map_or(format!("{ratio:.2}"), |error| format!("{ratio:.3} ± {error:.3}"));
        let (bound, digits) = (if more { "≥" } else { "≤" }, figure.digits);
        let mut row = String::new();
        let _ = writeln!(
            row,
            "| {}, {case}: {} | {ours:.digits$} | {name} | {value:.digits$} | {ratio} | {bound} {:.2} | {} |",
            self.section,
            figure.name,
            self.ratio,
            match (met, missed) {
                (true, _) => "yes",
                (_, true) => "**no**",
                _ => "**not shown**",
            },
        );
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::Sample;

    fn row(ferry: f64) -> String {
        let mut section = Section::new("Bulk", String::new(), &[SPEED]);
        for (tunnel, value) in [("ferry", ferry), ("stunnel", 1.0), ("haproxy", 0.5), ("socat", 9.0)] {
            section.samples.push((tunnel.to_owned(), Sample::new("1 stream up", SPEED, value)));
        }
        table(&[section], &crate::tunnels::priced()).lines().nth(2).unwrap().to_owned()
    }

    #[test]
    fn the_best_peer_of_the_kind_counts() {
        let met = "| Bulk, 1 stream up: GiB/s | 1.25 | best encrypted peer: stunnel | 1.00 | 1.25 | ≥ 1.20 | yes |";
        assert_eq!(row(1.25), met);
        assert!(row(1.1).ends_with("| 1.10 | ≥ 1.20 | **no** |"));
    }

    #[test]
    fn a_target_is_judged_with_its_error() {
        let judged = |ratio, error| {
            let mut section = Section::new(rotation::TITLE, String::new(), &[SPEED, rotation::ERROR]);
            let samples = [(EVERY_SECOND, SPEED, ratio), (NEVER, SPEED, 1.0), (EVERY_SECOND, rotation::ERROR, error)];
            let of = |(name, figure, value): (&str, _, _)| (name.to_owned(), Sample::new("1 stream up", figure, value));
            section.samples.extend(samples.map(of));
            table(&[section], &[]).lines().nth(2).unwrap().to_owned()
        };
        assert!(judged(1.0, 0.005).ends_with("| 1.000 ± 0.005 | ≥ 0.99 | yes |"));
        assert!(judged(1.0, 0.015).ends_with("| **not shown** |"));
        assert!(judged(0.98, 0.015).ends_with("| **not shown** |"));
        assert!(judged(0.98, 0.005).ends_with("| **no** |"));
    }
}
