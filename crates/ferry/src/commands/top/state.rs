//! What `ferry top` shows, as a value: it is given what was heard, which keys were pressed and what time it is.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rates::{Flow, Rates};
use super::timeline::Timeline;
use crate::admin::{Event, Limit, Session, Site, Status};

/// What was heard of a tunnel.
#[derive(Debug)]
pub(super) enum Heard {
    Status(Box<Status>),
    /// It is a web-app, and these are its sites.
    Sites(Vec<Site>),
    /// It does not answer, for this reason.
    Silence(String),
    Events(Vec<Event>),
    /// It tells no events, for this reason.
    NoEvents(String),
}

/// How it stands to the tunnel.
///
/// ```text
/// Asking ──status──▶ Live ──silence──▶ Away ──status──▶ Live
///    └──────────────silence─────────────▲
/// ```
#[derive(Clone, Debug)]
pub(super) enum Connection {
    Asking,
    Live { since: Duration },
    Away { since: Duration, why: String },
}

/// All that is known of a tunnel.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) status: Option<Status>,
    /// In the place of a status, where a web-app answers.
    pub(super) sites: Option<Vec<Site>>,
    pub(super) total: Flow,
    pub(super) rates: Rates,
    pub(super) timeline: Timeline,
    /// Why the changed configuration is not in force.
    pub(super) refused_config: Option<String>,
    /// When the status was heard.
    pub(super) at: Duration,
}

/// A part of the screen that can be looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Sessions,
    Events,
    Problems,
    Peers,
    /// Only where there are some.
    Limits,
    /// Of a web-app, in the place of all but problems.
    Sites,
}

impl Pane {
    pub(super) const ALL: [Self; 6] =
        [Self::Sessions, Self::Events, Self::Problems, Self::Peers, Self::Limits, Self::Sites];
}

/// What sessions are ordered by, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Throughput,
    Unacknowledged,
    KeyAge,
    Pauses,
    /// As the tunnel lists them: those without a link first, then the oldest.
    Trouble,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Throughput, Self::Unacknowledged, Self::KeyAge, Self::Pauses, Self::Trouble];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Unacknowledged => "unacknowledged",
            Self::KeyAge => "age of key",
            Self::Pauses => "longest pause",
            Self::Trouble => "without a link, then age",
        }
    }
}

/// How it is looked at.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    pub(super) with_routine: bool,
    pub(super) with_help: bool,
    /// The first line that is shown of each pane.
    pub(super) first: [usize; Pane::ALL.len()],
}

/// How much of a pane there is, and how much was shown of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub(super) lines: usize,
    pub(super) shown: usize,
}

/// The state of `ferry top`.
#[derive(Debug)]
pub(super) struct Top {
    live: Picture,
    /// What there was when it was paused.
    held: Option<Picture>,
    pub(super) connection: Connection,
    /// Why there are none.
    pub(super) no_events: Option<String>,
    pub(super) view: View,
    drawn: [Extent; Pane::ALL.len()],
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stay,
    Quit,
}

impl Top {
    pub(super) fn new() -> Self {
        let view = View {
            pane: Pane::Sessions,
            sort: Sort::Throughput,
            with_routine: false,
            with_help: false,
            first: Default::default(),
        };
        Self {
            live: Picture::default(),
            held: None,
            connection: Connection::Asking,
            no_events: None,
            view,
            drawn: Default::default(),
        }
    }

    pub(super) fn handle_heard(&mut self, now: Duration, heard: Heard) {
        match heard {
            Heard::Status(status) => self.on_status(now, *status),
            Heard::Sites(sites) => self.on_sites(now, sites),
            Heard::Silence(why) => self.on_silence(now, why),
            Heard::Events(events) => {
                self.no_events = None;
                events.into_iter().for_each(|event| self.on_event(event));
            }
            Heard::NoEvents(why) => self.no_events = Some(why),
        }
    }

    fn on_status(&mut self, now: Duration, status: Status) {
        if !matches!(self.connection, Connection::Live { .. }) {
            self.connection = Connection::Live { since: now };
        }
        let live = &mut self.live;
        if live.status.as_ref().is_some_and(|before| before.instance != status.instance) {
            // Another process counts from its own start.
            (live.total, live.rates, live.refused_config) = Default::default();
        }
        live.rates.note(now, status.sessions.iter().map(|session| (name(session), [session.sent, session.received])));
        live.total.note(now, [status.totals.sent, status.totals.received]);
        live.at = now;
        (live.status, live.sites) = (Some(status), None);
        self.on_panes();
    }

    fn on_sites(&mut self, now: Duration, sites: Vec<Site>) {
        if !matches!(self.connection, Connection::Live { .. }) {
            self.connection = Connection::Live { since: now };
        }
        (self.live.at, self.live.status, self.live.sites) = (now, None, Some(sites));
        self.on_panes();
    }

    /// Keys act on a pane that there is.
    fn on_panes(&mut self) {
        let panes = self.panes();
        if !panes.contains(&self.view.pane) {
            self.view.pane = if panes.contains(&Pane::Sites) { Pane::Sites } else { Pane::Sessions };
        }
    }

    fn on_silence(&mut self, now: Duration, why: String) {
        let since = match &self.connection {
            Connection::Away { since, .. } => *since,
            _ => now,
        };
        self.connection = Connection::Away { since, why };
    }

    fn on_event(&mut self, event: Event) {
        match event.kind.as_str() {
            "config_refused" => self.live.refused_config = event.problem.clone(),
            "config_reloaded" | "started" => self.live.refused_config = None,
            _ => {}
        }
        self.live.timeline.take(event);
    }

    pub(super) fn handle_key(&mut self, key: KeyEvent) -> Wish {
        let page = self.extent().shown.saturating_sub(1).max(1);
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
            KeyCode::Esc if !self.view.with_help => return Wish::Quit,
            KeyCode::Esc => self.view.with_help = false,
            KeyCode::Char('?' | 'h') => self.view.with_help ^= true,
            KeyCode::Char('p') => self.held = if self.is_paused() { None } else { Some(self.live.clone()) },
            KeyCode::Char('r') => {
                self.view.with_routine ^= true;
                self.view.first[Pane::Events as usize] = 0;
            }
            KeyCode::Char('s') => {
                self.view.sort = after(&Sort::ALL, self.view.sort, 1);
                self.view.first[Pane::Sessions as usize] = 0;
            }
            KeyCode::Tab => self.view.pane = after(&self.panes(), self.view.pane, 1),
            KeyCode::BackTab => {
                let panes = self.panes();
                self.view.pane = after(&panes, self.view.pane, panes.len() - 1);
            }
            KeyCode::Up | KeyCode::Char('k') => self.scroll(|first| first.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(|first| first + 1),
            KeyCode::PageUp => self.scroll(|first| first.saturating_sub(page)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll(|first| first + page),
            KeyCode::Home => self.scroll(|_| 0),
            KeyCode::End => self.scroll(|_| usize::MAX),
            _ => {}
        }
        Wish::Stay
    }

    /// Those that there are now.
    fn panes(&self) -> Vec<Pane> {
        let picture = self.picture();
        let is_there = |pane: &Pane| match pane {
            Pane::Problems => true,
            Pane::Sites => picture.sites.is_some(),
            Pane::Limits => picture.sites.is_none() && !picture.limits().is_empty(),
            Pane::Sessions | Pane::Events | Pane::Peers => picture.sites.is_none(),
        };
        Pane::ALL.into_iter().filter(is_there).collect()
    }

    fn extent(&self) -> Extent {
        self.drawn[self.view.pane as usize]
    }

    fn scroll(&mut self, to: impl FnOnce(usize) -> usize) {
        let Extent { lines, shown } = self.extent();
        let first = &mut self.view.first[self.view.pane as usize];
        *first = to(*first).min(lines.saturating_sub(shown));
    }

    /// Takes what was drawn of each pane, which is what it can be scrolled by.
    pub(super) fn handle_drawn(&mut self, drawn: [Extent; Pane::ALL.len()]) {
        self.drawn = drawn;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.held.is_some()
    }

    /// What is shown.
    pub(super) fn picture(&self) -> &Picture {
        self.held.as_ref().unwrap_or(&self.live)
    }
}

impl Picture {
    /// The sessions that are listed, in order.
    pub(super) fn sessions(&self, sort: Sort) -> Vec<&Session> {
        let mut sessions: Vec<_> = self.status.iter().flat_map(|status| &status.sessions).collect();
        let value = |session: &&Session| match sort {
            Sort::Throughput => self.flow(session).map_or(0.0, Flow::sum),
            Sort::Unacknowledged => session.buffered as f64,
            Sort::KeyAge => session.key_age_seconds,
            Sort::Pauses => session.longest_pause_seconds.max(session.detached_seconds.unwrap_or_default()),
            Sort::Trouble => 0.0,
        };
        // Those that are equal stay as the tunnel lists them.
        sessions.sort_by(|one, other| value(other).total_cmp(&value(one)));
        sessions
    }

    /// Something has answered.
    pub(super) fn is_known(&self) -> bool {
        self.status.is_some() || self.sites.is_some()
    }

    /// Of the entries of the configuration that have any.
    pub(super) fn limits(&self) -> &[Limit] {
        self.status.as_ref().map_or(&[], |status| &status.limits)
    }

    pub(super) fn flow(&self, session: &Session) -> Option<&Flow> {
        self.rates.of(&name(session))
    }
}

/// Both ends of a session may be in one tunnel.
fn name(session: &Session) -> String {
    format!("{}{}", session.id, session.side)
}

fn after<T: Copy + PartialEq>(all: &[T], one: T, steps: usize) -> T {
    let at = all.iter().position(|other| *other == one).unwrap_or_default();
    all[(at + steps) % all.len()]
}
