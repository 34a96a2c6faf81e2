//! A bar chart as SVG: a group of bars per case, ours in colour.

use crate::section::{Figure, Section};
use std::fmt::Write;

const WIDTH: usize = 720;
const LABEL: usize = 130;
const VALUE: usize = 70;
const BAR: usize = 14;
const GAP: usize = 4;
const HEADING: usize = 24;

/// Draws the medians of one figure in all cases that have it.
pub(crate) fn bars(section: &Section, figure: Figure) -> String {
    let mut body = String::new();
    let mut y = HEADING;
    let _ = writeln!(body, r#"<text class="title" x="8" y="16">{}: {}</text>"#, section.title, figure.name);
    for case in section.cases() {
        let bar = |tunnel: &&str| section.median(tunnel, case, figure.name).map(|value| (tunnel.to_string(), value));
        let bars: Vec<_> = section.tunnels().iter().filter_map(bar).filter(|(_, value)| *value > 0.0).collect();
        let Some(most) = bars.iter().map(|(_, value)| *value).max_by(f64::total_cmp) else { continue };
        y += HEADING;
        let _ = writeln!(body, r#"<text class="case" x="8" y="{}">{case}</text>"#, y - 8);
        for (tunnel, value) in bars {
            let length = (value / most * (WIDTH - LABEL - VALUE) as f64).max(1.0);
            let class = if tunnel == section.ours { "ours" } else { "other" };
            let (text, digits) = (y + BAR - 3, figure.digits);
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{text}" text-anchor="end">{tunnel}</text><rect class="{class}" x="{LABEL}" y="{y}" width="{length:.1}" height="{BAR}"/><text x="{:.1}" y="{text}">{value:.digits$}</text>"#,
                LABEL - 6,
                LABEL as f64 + length + 6.0,
            );
            y += BAR + GAP;
        }
    }
    let height = y + GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>text{{font:11px sans-serif;fill:#333}}.title,.case{{font-weight:bold}}.title{{font-size:13px}}\
         .ours{{fill:#0b6e99}}.other{{fill:#b8c4cc}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::{Better, Sample};

    #[test]
    fn the_longest_bar_fills_the_width_and_ours_has_its_colour() {
        let figure = Figure { name: "GiB/s", better: Better::More, digits: 1 };
        let mut section = Section::new("Bulk", String::new(), &[figure]);
        for (tunnel, value) in [("ferry", 2.0), ("other", 1.0)] {
            section.samples.push((tunnel.to_owned(), Sample::new("up", figure, value)));
        }
        let svg = bars(&section, figure);
        assert!(svg.contains(r#"class="ours" x="130" y="48" width="520.0""#), "{svg}");
        assert!(svg.contains(r#"class="other" x="130" y="66" width="260.0""#), "{svg}");
    }
}
