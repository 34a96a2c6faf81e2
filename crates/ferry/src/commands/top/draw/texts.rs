//! The header, what is wrong, and what happened.

use std::time::{Duration, SystemTime};

use ferry_text::Foreign;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Painter;
use crate::admin::{Mood, Problem, plural, problems, size, time};
use crate::commands::top::state::Connection;
use crate::commands::top::wrap::{cut, width, wrap};

/// Most characters of the sparklines of all traffic: one a second.
const MAX_SPARK: usize = 60;

impl Painter<'_> {
    pub(super) fn header(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = usize::from(area.width);
        let (state, style) = self.connection();
        let status = self.top.picture().status.as_ref();
        let is_web_app = self.top.picture().sites.is_some();
        let unnamed = if is_web_app { "web-app" } else { "ferry top" };
        let name = status.map_or_else(|| unnamed.to_owned(), |status| Foreign(&status.name).to_string());
        let about = status.map_or_else(String::new, |status| {
            format!("  ferry {}, up for {}", Foreign(&status.ferry), time(status.uptime_seconds))
        });
        let room = columns.saturating_sub(width(&state) + 2);
        let name = cut(&name, room);
        let about = cut(&about, room.saturating_sub(width(&name)));
        let gap = " ".repeat(columns.saturating_sub(width(&name) + width(&about) + width(&state)));
        let first = Line::from(vec![
            Span::styled(name, self.theme.strong()),
            Span::raw(about),
            Span::raw(gap),
            Span::styled(state, style),
        ]);
        let rest = [self.traffic(columns), self.keys(columns)];
        for (row, line) in area.rows().zip([first].into_iter().chain(rest)) {
            frame.render_widget(line, row);
        }
    }

    fn connection(&self) -> (String, Style) {
        let ago = |since: Duration| time(self.now.saturating_sub(since).as_secs_f64().floor());
        let (text, style) = match &self.top.connection {
            Connection::Asking => ("asking …".to_owned(), self.theme.dim()),
            Connection::Live { since } => (format!("connected for {}", ago(*since)), self.theme.good()),
            Connection::Away { since, .. } => (format!("NOT CONNECTED for {}", ago(*since)), self.theme.bad()),
        };
        if self.top.is_paused() { (format!("PAUSED, {text}"), self.theme.warning()) } else { (text, style) }
    }

    fn traffic(&self, columns: usize) -> Line<'static> {
        let picture = self.top.picture();
        let Some(status) = &picture.status else {
            return picture.sites.as_ref().map_or_else(Line::default, |sites| Self::sites_in_short(sites, columns));
        };
        let (totals, total) = (&status.totals, &picture.total);
        let detached = format!("{} without a link", indicatif::HumanCount(totals.detached as u64));
        let mut line = Line::from(vec![
            Span::raw(format!("{}, ", plural(totals.sessions as u64, "session"))),
            Span::styled(detached, if totals.detached > 0 { self.theme.bad() } else { Style::new() }),
        ]);
        let rate = |direction: usize| size(total.now()[direction].round() as u64);
        let texts = [format!("  sent {}/s ", rate(0)), format!("  received {}/s ", rate(1))];
        let room = columns.saturating_sub(line.width() + texts.iter().map(|text| width(text)).sum::<usize>());
        for (direction, text) in texts.into_iter().enumerate() {
            line.push_span(text);
            let spark = total.spark(picture.at, (room / 2).min(MAX_SPARK), |rates| rates[direction]);
            line.push_span(Span::styled(spark, self.theme.traffic()));
        }
        line
    }

    fn keys(&self, columns: usize) -> Line<'static> {
        let Some(status) = &self.top.picture().status else { return Line::default() };
        let (totals, every) = (&status.totals, time(status.settings.rotation_every_seconds));
        let oldest = match totals.sessions > totals.detached {
            true => format!("oldest key {} of {every}", time(totals.oldest_key_seconds)),
            false => format!("keys replaced every {every}"),
        };
        let postponed = match totals.rotations_failed {
            0 => String::new(),
            count => format!(" ({} postponed)", indicatif::HumanCount(count)),
        };
        let text = format!(
            "{oldest}, {} replaced{postponed}  {} resumed  {} unacked",
            indicatif::HumanCount(totals.rotations),
            indicatif::HumanCount(totals.resumes),
            size(totals.buffered)
        );
        Line::raw(cut(&text, columns))
    }

    /// What is wrong with the connection first.
    fn all_problems(&self) -> Vec<Problem> {
        let picture = self.top.picture();
        let mut all = Vec::new();
        if let Connection::Away { why, .. } = &self.top.connection {
            let advice = match picture.is_known() {
                true => "What is shown is from before. It is asked again until it answers.",
                false => "It is asked again until it answers.",
            };
            all.push(Problem { what: why.clone(), advice: advice.to_owned(), is_mild: false });
        }
        all.extend(picture.status.iter().flat_map(problems));
        all.extend(picture.sites.iter().flat_map(|sites| super::sites::problems(sites)));
        if let Some(problem) = &picture.refused_config {
            let what = format!("the configuration has changed and cannot be used: {}", Foreign(problem));
            let advice = "The one before stays in force. Correct the file; it is read again by itself.".to_owned();
            all.push(Problem { what, advice, is_mild: false });
        }
        all
    }

    pub(super) fn problem_title(&self) -> String {
        match self.all_problems().len() {
            0 => "Problems".to_owned(),
            count => format!("Problems ({count})"),
        }
    }

    pub(super) fn problems(&self, columns: u16) -> Vec<Line<'static>> {
        let problems = self.all_problems();
        let mut lines = Vec::new();
        if problems.is_empty() {
            lines.push(match self.top.picture().is_known() {
                true => Line::styled("nothing is wrong", self.theme.good()),
                false => Line::styled("the tunnel has not answered yet", self.theme.dim()),
            });
        }
        for Problem { what, advice, is_mild } in problems {
            let (sign, style) = self.theme.sign(if is_mild { Mood::Warning } else { Mood::Bad });
            lines.extend(hang(Span::styled(format!("{sign} "), style), &what, style, columns));
            lines.extend(hang(Span::raw("  → "), &advice, Style::new(), columns));
        }
        lines.extend(self.choices(columns));
        lines
    }

    /// What carries links, and why, where that is chosen.
    fn choices(&self, columns: u16) -> Vec<Line<'static>> {
        let peers = self.top.picture().status.iter().flat_map(|status| &status.peers);
        let told = peers.filter_map(|peer| Some(peer.choice.as_ref()?.sentence(&peer.name)));
        told.flat_map(|told| hang(Span::raw("  "), &told, self.theme.dim(), columns)).collect()
    }

    pub(super) fn event_title(&self) -> String {
        let routine = if self.top.view.with_routine { "all" } else { "without what is routine" };
        format!("Events, {routine} (UTC)")
    }

    pub(super) fn events(&self, columns: u16) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let (Some(why), Connection::Live { .. }) = (&self.top.no_events, &self.top.connection) {
            let (sign, style) = self.theme.sign(Mood::Bad);
            lines.extend(hang(Span::styled(format!("         {sign} "), style), why, style, columns));
        }
        for entry in self.top.picture().timeline.entries(self.top.view.with_routine) {
            let (mood, mut text) = entry.event.sentence();
            if entry.count > 1 {
                text += &format!(" ({} times)", entry.count);
            }
            let (sign, style) = self.theme.sign(mood);
            let at = entry.event.at().map_or_else(|| "        ".to_owned(), clock);
            let mut of_this = hang(Span::styled(format!("{at} {sign} "), style), &text, Style::new(), columns);
            lines.append(&mut of_this);
        }
        lines
    }
}

/// A text that hangs behind its beginning.
fn hang(begin: Span<'static>, text: &str, style: Style, columns: u16) -> Vec<Line<'static>> {
    let indent = begin.width();
    let mut begin = Some(begin);
    let lines = wrap(text, usize::from(columns).saturating_sub(indent));
    let line = |text: String| {
        let begin = begin.take().unwrap_or_else(|| Span::raw(" ".repeat(indent)));
        Line::from(vec![begin, Span::styled(text, style)])
    };
    lines.into_iter().map(line).collect()
}

/// The time of day.
fn clock(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.get(11..19).unwrap_or_default().to_owned()
}
