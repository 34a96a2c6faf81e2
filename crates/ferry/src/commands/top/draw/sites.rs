//! What is shown of a web-app: its sites.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row};

use super::sessions::{Column, cell, table, widths};
use super::{Painter, Shown};
use crate::admin::{Problem, Site, plural, size};
use crate::commands::top::state::{Extent, Pane};
use crate::commands::top::wrap::cut;

impl Painter<'_> {
    /// All of them in a line.
    pub(super) fn sites_in_short(sites: &[Site], columns: usize) -> Line<'static> {
        let away = sites.iter().filter(|site| !site.connected).count();
        let waiting: u64 = sites.iter().map(|site| site.outbox.messages).sum();
        let dead: u64 = sites.iter().map(|site| site.dead).sum();
        let (sites, waiting) = (plural(sites.len() as u64, "site"), plural(waiting, "message"));
        Line::raw(cut(&format!("{sites}, {away} not connected  {waiting} waiting  {dead} dead"), columns))
    }

    pub(super) fn sites(&self, frame: &mut Frame<'_>, area: Rect) -> Extent {
        let sites = self.top.picture().sites.as_deref().unwrap_or_default();
        let title = plural(sites.len() as u64, "site");
        let Shown { area, lines, extent } = self.pane(frame, area, Pane::Sites, title, sites.len(), 1);
        let columns = columns(area.width);
        let widths = widths(&columns, area.width);
        let rows = sites[lines].iter().map(|site| {
            let row = Row::new(columns.iter().zip(&widths).map(|(column, width)| site_cell(site, column, *width)));
            if site.connected { row } else { row.style(self.theme.bad()) }
        });
        frame.render_widget(table(&columns, &widths, rows.collect(), self.theme.dim()), area);
        extent
    }
}

/// In the words of the web-app's page.
pub(super) fn problems(sites: &[Site]) -> impl Iterator<Item = Problem> {
    sites.iter().filter(|site| !site.connected).map(|site| {
        let waiting = match site.outbox.messages {
            0 => "nothing waits for it".to_owned(),
            1 => "1 message waits for it".to_owned(),
            many => format!("{} wait for it", plural(many, "message")),
        };
        Problem {
            what: format!("{} is not connected: {waiting}", site.name()),
            advice: "Nothing that was accepted is lost. Look at the page of the tunnel next to this web-app, or ask \
                     `ferry doctor`."
                .to_owned(),
            is_mild: site.outbox.messages == 0,
        }
    })
}

fn columns(width: u16) -> Vec<Column> {
    let all: [(Column, bool); 6] = [
        (("SITE", None, false), true),
        (("WEB-APP", None, false), width >= 72),
        (("STATE", Some(13), false), true),
        (("WAITING", Some(9), true), true),
        (("BYTES", Some(8), true), width >= 60),
        (("DEAD", Some(7), true), true),
    ];
    all.into_iter().filter_map(|(column, is_shown)| is_shown.then_some(column)).collect()
}

fn site_cell(site: &Site, &(title, _, is_right): &Column, width: u16) -> Cell<'static> {
    let text = match title {
        "SITE" => site.name(),
        "WEB-APP" => site.place(),
        "STATE" if site.connected => "connected".to_owned(),
        "STATE" => "NOT CONNECTED".to_owned(),
        "WAITING" => indicatif::HumanCount(site.outbox.messages).to_string(),
        "BYTES" => size(site.outbox.bytes),
        _ => indicatif::HumanCount(site.dead).to_string(),
    };
    cell(text, width, is_right)
}
