//! The tables of sessions and peers.

use ferry_text::Foreign;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Row, Table};

use super::{Painter, Shown};
use crate::admin::{Peer, Session, plural, size, time};
use crate::commands::top::rates::Flow;
use crate::commands::top::state::{Extent, Pane};
use crate::commands::top::wrap::cut;

/// A key that is older than this many rotations is late.
const LATE: f64 = 1.2;
/// The widest that a name of a service or a peer gets.
const MAX_NAME: u16 = 40;

/// A column: its title, its width (none takes what is left), whether its text is at its right.
pub(super) type Column = (&'static str, Option<u16>, bool);

impl Painter<'_> {
    pub(super) fn sessions(&self, frame: &mut Frame<'_>, area: Rect) -> Extent {
        let picture = self.top.picture();
        let sessions = picture.sessions(self.top.view.sort);
        let total = picture.status.as_ref().map_or(0, |status| status.totals.sessions);
        let listed = match total > sessions.len() {
            true => format!(", {} listed", indicatif::HumanCount(sessions.len() as u64)),
            false => String::new(),
        };
        let title = format!("{}{listed}, by {}", plural(total as u64, "session"), self.top.view.sort.name());
        let Shown { area, lines, extent } = self.pane(frame, area, Pane::Sessions, title, sessions.len(), 1);
        let columns = session_columns(area.width, self.peer_count());
        let widths = widths(&columns, area.width);
        let rows = sessions[lines].iter().map(|session| {
            let row =
                Row::new(columns.iter().zip(&widths).map(|(column, width)| self.session(session, column, *width)));
            if session.detached_seconds.is_some() { row.style(self.theme.bad()) } else { row }
        });
        frame.render_widget(table(&columns, &widths, rows.collect(), self.theme.dim()), area);
        extent
    }

    fn session(&self, session: &Session, &(title, _, is_right): &Column, width: u16) -> Cell<'static> {
        let picture = self.top.picture();
        let flow = picture.flow(session);
        let rate = |pick: fn(&Flow) -> f64| format!("{}/s", size(flow.map_or(0.0, pick).round() as u64));
        let text = match title {
            "SESSION" => Foreign(&session.id).to_string().chars().take(8).collect(),
            "SERVICE" if session.side == "opener" => format!("→ {}", Foreign(&session.service)),
            "SERVICE" => format!("{} ←", Foreign(&session.service)),
            "PEER" => Foreign(&session.peer).to_string(),
            "STATE" => match (session.detached_seconds, &session.carrier) {
                (Some(since), _) => format!("no link {}", time(since)),
                (None, Some(carrier)) => format!("over {}", Foreign(carrier)),
                (None, None) => "attached".to_owned(),
            },
            "BYTES/S" => rate(Flow::sum),
            "SENT/S" => rate(|flow| flow.now()[0]),
            "RECEIVED/S" => rate(|flow| flow.now()[1]),
            "LAST MINUTE" => {
                let both = |rates: [f64; 2]| rates.iter().sum();
                let spark = flow.map_or_else(String::new, |flow| flow.spark(picture.at, width.into(), both));
                return Cell::new(Span::styled(spark, self.theme.traffic()));
            }
            "SENT" => size(session.sent),
            "RECEIVED" => size(session.received),
            "UNACKED" => size(session.buffered),
            "KEY" => return Cell::new(self.key(session, width)),
            "PAUSES" => match session.detached_seconds {
                Some(since) => format!("now {}", time(since)),
                None if session.resumes > 0 => format!("{} ({})", session.resumes, time(session.longest_pause_seconds)),
                None => "none".to_owned(),
            },
            _ => time(session.age_seconds),
        };
        cell(text, width, is_right)
    }

    /// A bar that empties as the key ages, and how old it is.
    fn key(&self, session: &Session, width: u16) -> Line<'static> {
        let every = self.top.picture().status.as_ref().map_or(0.0, |status| status.settings.rotation_every_seconds);
        if session.detached_seconds.is_some() {
            return Line::raw("no link");
        }
        let age = session.key_age_seconds;
        let is_late = every > 0.0 && age > every * LATE;
        let halves = 2 * usize::from(width.saturating_sub(8));
        let left = (1.0 - age / every).clamp(0.0, 1.0);
        let left = (left * halves as f64).ceil() as usize;
        let bar: String = (0..halves / 2)
            .map(|at| match left.saturating_sub(2 * at) {
                0 => '░',
                1 => '▌',
                _ => '█',
            })
            .collect();
        let style = if is_late { self.theme.warning() } else { self.theme.good() };
        let late = if is_late { "!" } else { "" };
        Line::from(vec![Span::styled(bar, style), Span::raw(format!(" {}{late}", time(age)))])
    }

    pub(super) fn peer_count(&self) -> usize {
        self.top.picture().status.as_ref().map_or(0, |status| status.peers.len())
    }

    pub(super) fn peers(&self, frame: &mut Frame<'_>, area: Rect) -> Extent {
        let mut peers: Vec<_> = self.top.picture().status.iter().flat_map(|status| &status.peers).collect();
        peers.sort_by_key(|peer| (peer.is_there(), std::cmp::Reverse(peer.sessions)));
        let title = plural(peers.len() as u64, "peer");
        let Shown { area, lines, extent } = self.pane(frame, area, Pane::Peers, title, peers.len(), 1);
        let columns = peer_columns(area.width);
        let widths = widths(&columns, area.width);
        let rows = peers[lines].iter().map(|peer| {
            let row = Row::new(columns.iter().zip(&widths).map(|(column, width)| peer_cell(peer, column, *width)));
            if peer.is_there() { row } else { row.style(self.theme.bad()) }
        });
        frame.render_widget(table(&columns, &widths, rows.collect(), self.theme.dim()), area);
        extent
    }
}

fn session_columns(width: u16, peers: usize) -> Vec<Column> {
    let is_wide = width >= 140;
    let all: [(Column, bool); 14] = [
        (("SESSION", Some(8), false), true),
        (("SERVICE", None, false), true),
        (("PEER", None, false), width >= 100 || width >= 72 && peers > 1),
        (("STATE", Some(14), false), is_wide),
        (("BYTES/S", Some(9), true), !is_wide),
        (("SENT/S", Some(9), true), is_wide),
        (("RECEIVED/S", Some(10), true), is_wide),
        (("LAST MINUTE", Some(if width >= 170 { 30 } else { 11 }), false), width >= 60),
        (("SENT", Some(8), true), width >= 160),
        (("RECEIVED", Some(8), true), width >= 160),
        (("UNACKED", Some(7), true), width >= 52),
        (("KEY", Some(if is_wide { 18 } else { 12 }), false), true),
        (("PAUSES", Some(if is_wide { 14 } else { 10 }), false), width >= 72),
        (("OPEN", Some(7), true), width >= 100),
    ];
    all.into_iter().filter_map(|(column, is_shown)| is_shown.then_some(column)).collect()
}

fn peer_columns(width: u16) -> Vec<Column> {
    let all: [(Column, bool); 8] = [
        (("PEER", None, false), true),
        (("STATE", Some(13), false), true),
        (("DIALLED BY", Some(10), false), width >= 90),
        (("ROUND TRIP", Some(10), true), width >= 50),
        (("LINKS", Some(6), true), width >= 60),
        (("WARM", Some(5), true), width >= 70),
        (("SESSIONS", Some(8), true), true),
        (("DETACHED", Some(8), true), width >= 60),
    ];
    all.into_iter().filter_map(|(column, is_shown)| is_shown.then_some(column)).collect()
}

fn peer_cell(peer: &Peer, &(title, _, is_right): &Column, width: u16) -> Cell<'static> {
    let text = match title {
        "PEER" => Foreign(&peer.name).to_string(),
        "STATE" if peer.is_there() => "reachable".to_owned(),
        "STATE" => "NOT REACHABLE".to_owned(),
        "DIALLED BY" if peer.dialled => "this end".to_owned(),
        "DIALLED BY" => "the peer".to_owned(),
        "ROUND TRIP" => peer.round_trip_seconds.map_or_else(|| "-".to_owned(), time),
        // Each session that is not detached has one.
        "LINKS" => peer.sessions.saturating_sub(peer.detached).to_string(),
        "WARM" => format!("{}+{}", peer.warm.own, peer.warm.offered),
        "SESSIONS" => peer.sessions.to_string(),
        _ => peer.detached.to_string(),
    };
    cell(text, width, is_right)
}

pub(super) fn cell(text: String, width: u16, is_right: bool) -> Cell<'static> {
    let text = Text::raw(cut(&text, width.into()));
    Cell::new(if is_right { text.right_aligned() } else { text })
}

/// The width of each; those that have none share what is left.
pub(super) fn widths(columns: &[Column], width: u16) -> Vec<u16> {
    let fixed: u16 = columns.iter().filter_map(|(_, width, _)| *width).sum();
    let spaces = u16::try_from(columns.len()).unwrap_or(u16::MAX).saturating_sub(1);
    let open = columns.iter().filter(|(_, width, _)| width.is_none()).count();
    let open = u16::try_from(open).unwrap_or(u16::MAX).max(1);
    let share = (width.saturating_sub(fixed + spaces) / open).min(MAX_NAME);
    columns.iter().map(|(_, width, _)| width.unwrap_or(share)).collect()
}

pub(super) fn table<'a>(columns: &[Column], widths: &[u16], rows: Vec<Row<'a>>, head: Style) -> Table<'a> {
    let titles =
        columns.iter().zip(widths).map(|((title, _, is_right), width)| cell((*title).to_owned(), *width, *is_right));
    let widths = widths.iter().map(|width| Constraint::Length(*width));
    Table::new(rows, widths).column_spacing(1).header(Row::new(titles).style(head))
}
