//! Charts as SVG: a group of bars per case, ours in colour; and points with the line of a model.

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

const COLOURS: [&str; 3] = ["#0b6e99", "#c2571a", "#5a7d2a"];
const PLOT: f64 = 320.0;

/// Points that were measured, and the line of their model.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) line: Vec<(f64, f64)>,
}

/// Draws measured points as dots and models as lines, both axes from zero.
pub(crate) fn points(title: &str, [x_name, y_name]: [&str; 2], series: &[Series]) -> String {
    let all = || series.iter().flat_map(|series| series.points.iter().chain(&series.line));
    let most = |values: &mut dyn Iterator<Item = f64>| round_up(values.fold(f64::MIN_POSITIVE, f64::max));
    let (x_most, y_most) = (most(&mut all().map(|(x, _)| *x)), most(&mut all().map(|(_, y)| *y)));
    let (left, right, top) = (VALUE as f64, (WIDTH - VALUE) as f64, 2.0 * HEADING as f64);
    let place = |(x, y): (f64, f64)| (left + x / x_most * (right - left), top + (1.0 - y / y_most) * PLOT);
    let mut body = format!(r#"<text class="title" x="8" y="16">{title}</text>"#);
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (x, y) = place((share * x_most, share * y_most));
        let _ = writeln!(
            body,
            r#"<path class="grid" d="M{left} {y:.1}H{right}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            left - 6.0,
            y + 4.0,
            share * y_most,
            top + PLOT + 18.0,
            share * x_most,
        );
    }
    for (number, series) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line: Vec<_> = series.line.iter().map(|at| place(*at)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(body, r#"<polyline points="{}" fill="none" stroke="{colour}"/>"#, line.join(" "));
        for (x, y) in series.points.iter().map(|at| place(*at)) {
            let _ = writeln!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#);
        }
        let y = top + 16.0 * (number as f64 + 1.0);
        let (name, x) = (&series.name, left + 16.0);
        let _ = writeln!(body, r#"<text x="{x}" y="{y}" style="fill:{colour}">{name}</text>"#);
    }
    let _ = writeln!(
        body,
        r#"<text x="8" y="{}">{y_name}</text><text x="{right}" y="{}" text-anchor="end">{x_name}</text>"#,
        top - 8.0,
        top + PLOT + 36.0,
    );
    let height = top + PLOT + 48.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\">\n\
         <style>text{{font:11px sans-serif;fill:#333}}.title{{font-weight:bold;font-size:13px}}.grid{{stroke:#ddd}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// The next number of one digit, or of 1.2, 1.6 or 2.4 times a power of ten: its quarters are short.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::{Better, Sample};

    #[test]
    fn a_point_at_the_top_of_its_axes_lies_in_the_corner() {
        let series = Series { name: "near".into(), points: vec![(8000.0, 1.6)], line: vec![(0.0, 0.0)] };
        let svg = points("Memory", ["sessions", "MiB"], &[series]);
        assert!(svg.contains(r#"<circle cx="650.0" cy="48.0""#), "{svg}");
        assert!(svg.contains(r#"<polyline points="70.0,368.0""#), "{svg}");
    }

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
