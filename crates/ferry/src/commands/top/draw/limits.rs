//! The table of limits: who is held back.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::{Cell, Row};

use super::sessions::{Column, cell, table, widths};
use super::{Painter, Shown};
use crate::admin::{Limit, plural, size};
use crate::commands::top::state::{Extent, Pane};

impl Painter<'_> {
    pub(super) fn limits(&self, frame: &mut Frame<'_>, area: Rect) -> Extent {
        let mut limits: Vec<_> = self.top.picture().limits().iter().collect();
        // There may be room for these alone.
        limits.sort_by_key(|limit| !limit.holds_back());
        let title = match limits.iter().filter(|limit| limit.holds_back()).count() {
            0 => plural(limits.len() as u64, "limit"),
            count => format!("{}, {count} reached", plural(limits.len() as u64, "limit")),
        };
        let Shown { area, lines, extent } = self.pane(frame, area, Pane::Limits, title, limits.len(), 1);
        let columns = columns(area.width);
        let widths = widths(&columns, area.width);
        let rows = limits[lines].iter().map(|limit| {
            let row = Row::new(columns.iter().zip(&widths).map(|(column, width)| limit_cell(limit, column, *width)));
            if limit.holds_back() { row.style(self.theme.warning()) } else { row }
        });
        frame.render_widget(table(&columns, &widths, rows.collect(), self.theme.dim()), area);
        extent
    }
}

fn columns(width: u16) -> Vec<Column> {
    let all: [(Column, bool); 7] = [
        (("LIMIT OF", None, false), true),
        (("SESSIONS", Some(14), true), true),
        (("REFUSED", Some(7), true), width >= 60),
        (("SENT/S", Some(8), true), width >= 72),
        (("RECEIVED/S", Some(10), true), width >= 72),
        (("OF/S", Some(8), true), width >= 52),
        (("HELD BACK", Some(9), true), true),
    ];
    all.into_iter().filter_map(|(column, is_shown)| is_shown.then_some(column)).collect()
}

fn limit_cell(limit: &Limit, &(title, _, is_right): &Column, width: u16) -> Cell<'static> {
    let text = match title {
        "LIMIT OF" => limit.entry(),
        "SESSIONS" => limit.used_sessions(),
        "REFUSED" => limit.refused(),
        "SENT/S" => limit.of_bytes(|rate| size(rate.sent.used)),
        "RECEIVED/S" => limit.of_bytes(|rate| size(rate.received.used)),
        "OF/S" => limit.of_bytes(|rate| size(rate.limit)),
        _ => limit.of_bytes(|rate| format!("{}+{}", rate.sent.waiting, rate.received.waiting)),
    };
    cell(text, width, is_right)
}
