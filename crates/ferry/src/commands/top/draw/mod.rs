//! Draws the state of `ferry top`.

mod frame;
mod limits;
mod sessions;
mod sites;
mod texts;
mod theme;

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::{Block, BorderType, Borders, Clear, Paragraph};

pub(super) use theme::Theme;

use super::state::{Connection, Extent, Pane, Top};
use super::wrap::width;

/// The smallest terminal that there is room in.
const LEAST: (u16, u16) = (40, 8);
/// With fewer lines only the pane that keys act on is shown.
const MIN_LINES_OF_ALL: u16 = 18;
/// From this width on peers and problems are side by side.
const MIN_COLUMNS_OF_PAIR: u16 = 120;

const KEYS: &str = " q quit  Tab pane  ↑↓ PgUp PgDn scroll  s sort  p pause  r routine  ? help";
const HELP: [&str; 10] = [
    "q, Esc, Ctrl-C      quit",
    "Tab, Shift-Tab      the next pane, the one before",
    "↑ ↓ PgUp PgDn       scroll in the pane",
    "Home, End           its beginning, its end",
    "s                   sort sessions by something else",
    "p                   pause: keep what is shown; again: go live",
    "r                   events that are routine, too",
    "?                   this help, and back",
    "",
    "A key's bar empties as the key ages, and is full when it is replaced.",
];

/// Everything that is drawn is drawn from these.
struct Painter<'a> {
    top: &'a Top,
    now: Duration,
    theme: Theme,
}

/// Draws it, and tells how much of each pane there was room for.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top, now: Duration, theme: Theme) -> [Extent; Pane::ALL.len()] {
    let painter = Painter { top, now, theme };
    let mut extents = [Extent::default(); Pane::ALL.len()];
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{} columns and {} lines are the least that ferry top needs.", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return extents;
    }
    let header = if area.height < MIN_LINES_OF_ALL { 1 } else { 3 };
    let rows = [Constraint::Length(header), Constraint::Fill(1), Constraint::Length(1)];
    let [header, body, footer] = Layout::vertical(rows).areas(area);
    painter.header(frame, header);
    for (pane, area) in painter.places(body) {
        extents[pane as usize] = match pane {
            Pane::Sessions => painter.sessions(frame, area),
            Pane::Peers => painter.peers(frame, area),
            Pane::Limits => painter.limits(frame, area),
            Pane::Sites => painter.sites(frame, area),
            Pane::Events => painter.lines(frame, area, pane, painter.event_title(), painter.events(area.width)),
            Pane::Problems => painter.lines(frame, area, pane, painter.problem_title(), painter.problems(area.width)),
        };
        // What is shown is from before.
        let is_table = matches!(pane, Pane::Sessions | Pane::Peers | Pane::Limits | Pane::Sites);
        if matches!(top.connection, Connection::Away { .. }) && is_table {
            frame.buffer_mut().set_style(area, Modifier::DIM);
        }
    }
    frame.render_widget(Line::styled(KEYS, painter.theme.dim()), footer);
    if top.view.with_help {
        painter.help(frame, body);
    }
    extents
}

impl Painter<'_> {
    /// Where each pane is that there is room for.
    fn places(&self, body: Rect) -> Vec<(Pane, Rect)> {
        if body.height + 4 < MIN_LINES_OF_ALL {
            return vec![(self.top.view.pane, body)];
        }
        let is_pair = body.width >= MIN_COLUMNS_OF_PAIR;
        let half = if is_pair { body.width / 2 } else { body.width };
        let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        // A title above each, and names of columns above peers.
        let problems = rows(self.problems(half).len() + 1).min(body.height / 3);
        if self.top.picture().sites.is_some() {
            let [problems, sites] = Layout::vertical([Constraint::Length(problems), Constraint::Fill(1)]).areas(body);
            return vec![(Pane::Problems, problems), (Pane::Sites, sites)];
        }
        let peers = rows(self.peer_count().max(1) + 2).min(if is_pair { body.height / 3 } else { body.height / 4 });
        let limits = match self.top.picture().limits().len() {
            0 => 0,
            count => rows(count + 2).min(body.height / 5),
        };
        let rest = [Constraint::Length(limits), Constraint::Fill(3), Constraint::Fill(2)];
        let mut places = if is_pair {
            let [first, limits, sessions, events] =
                Layout::vertical([Constraint::Length(problems.max(peers)), rest[0], rest[1], rest[2]]).areas(body);
            let [peers, problems] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(first);
            vec![
                (Pane::Peers, peers),
                (Pane::Problems, problems),
                (Pane::Limits, limits),
                (Pane::Sessions, sessions),
                (Pane::Events, events),
            ]
        } else {
            let rows = [Constraint::Length(problems), Constraint::Length(peers), rest[0], rest[1], rest[2]];
            let [problems, peers, limits, sessions, events] = Layout::vertical(rows).areas(body);
            vec![
                (Pane::Problems, problems),
                (Pane::Peers, peers),
                (Pane::Limits, limits),
                (Pane::Sessions, sessions),
                (Pane::Events, events),
            ]
        };
        places.retain(|(pane, area)| *pane != Pane::Limits || area.height > 0);
        places
    }

    /// Draws a pane's title, and returns what is below it and the lines of it that are shown.
    fn pane(&self, frame: &mut Frame<'_>, area: Rect, pane: Pane, title: String, lines: usize, head: u16) -> Shown {
        let height = usize::from(area.height.saturating_sub(1 + head));
        let first = self.top.view.first[pane as usize].min(lines.saturating_sub(height));
        let end = (first + height).min(lines);
        let is_focus = self.top.view.pane == pane;
        let title = Line::styled(format!(" {title} "), if is_focus { self.theme.focus() } else { self.theme.strong() });
        let mut block = Block::new().borders(Borders::TOP).border_type(BorderType::Plain);
        block = block.border_style(self.theme.dim()).title(title);
        if end - first < lines && end > first {
            let [from, to, of] = [first + 1, end, lines].map(|count| indicatif::HumanCount(count as u64));
            let range = format!(" {from} to {to} of {of} ");
            block = block.title_top(Line::styled(range, self.theme.dim()).right_aligned());
        }
        let area = frame::render(frame, block, area);
        Shown { area, lines: first..end, extent: Extent { lines, shown: height } }
    }

    /// A pane of lines.
    fn lines(&self, frame: &mut Frame<'_>, area: Rect, pane: Pane, title: String, lines: Vec<Line<'_>>) -> Extent {
        let Shown { area, lines: shown, extent } = self.pane(frame, area, pane, title, lines.len(), 0);
        frame.render_widget(Paragraph::new(lines[shown].to_vec()), area);
        extent
    }

    fn help(&self, frame: &mut Frame<'_>, body: Rect) {
        let columns = HELP.iter().map(|line| width(line)).max().unwrap_or(0) + 4;
        let columns = u16::try_from(columns).unwrap_or(u16::MAX);
        let rows = u16::try_from(HELP.len()).unwrap_or(u16::MAX) + 2;
        let area = body.centered(Constraint::Length(columns), Constraint::Length(rows));
        let block = Block::bordered().title(Line::styled(" Keys ", self.theme.strong()));
        frame.render_widget(Clear, area);
        let inner = frame::render(frame, block, area);
        let lines: Vec<_> = HELP.iter().map(|line| Line::raw(format!(" {line}"))).collect();
        frame.render_widget(Paragraph::new(lines), inner);
    }
}

/// What is shown of a pane.
struct Shown {
    area: Rect,
    lines: std::ops::Range<usize>,
    extent: Extent,
}
