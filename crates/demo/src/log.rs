//! Log lines of the demo's processes: read as JSON, shown for people.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use owo_colors::{OwoColorize as _, Style};
use serde_json::{Map, Value};

use ferry::process::READY;

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    pub(crate) cluster: &'static str,
    /// `web-app` or `tunnel`.
    pub(crate) container: &'static str,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{} {:7} │", self.cluster, self.container);
        write!(f, "{}", text.style(cluster_style(self.cluster)))
    }
}

impl Label {
    /// Columns that a label and the blank after it take.
    pub(crate) const WIDTH: usize = "cluster-a web-app │ ".len() - "│".len() + 1;

    /// For a sentence.
    pub(crate) fn name(&self) -> String {
        format!("{}'s {}", self.cluster, self.container)
    }
}

/// The colour of a cluster, by which its lines are told apart.
pub(crate) fn cluster_style(cluster: &str) -> Style {
    if cluster.ends_with('a') { Style::new().cyan() } else { Style::new().magenta() }
}

/// A line.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) message: String,
    /// Empty for a line that was not JSON: a panic, say.
    level: String,
    /// Time of day, UTC, in milliseconds.
    time: String,
    fields: Map<String, Value>,
}

impl Record {
    /// Reads a line; one that is not a log line becomes a message as it stands.
    pub(crate) fn parse(line: &str) -> Self {
        let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else {
            return Self::verbatim(line);
        };
        let mut text = |key| match fields.shift_remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (timestamp, level, message) = (text("timestamp"), text("level"), text("message"));
        // Not for people.
        text("target");
        if let Some(Value::Object(mut span)) = fields.shift_remove("span") {
            span.shift_remove("name");
            fields.extend(span);
        }
        let time = timestamp.split_once('T').map_or("", |(_, time)| time);
        Self { message, level, time: time.chars().take("00:00:00.000".len()).collect(), fields }
    }

    /// The line for people: its fields as far as they fit into `width` columns, the rest of it always.
    pub(crate) fn render(&self, width: usize) -> String {
        let level = match self.level.as_str() {
            "" => return self.message.red().to_string(),
            "INFO" => String::new(),
            "ERROR" => format!("{} ", "ERROR".red().bold()),
            "WARN" => format!("{} ", "WARN".yellow()),
            other => format!("{} ", other.dimmed()),
        };
        let mut text = format!("{} {level}{}", self.time.dimmed(), self.message);
        let mut room = width.saturating_sub(anstream::adapter::strip_str(&text).to_string().chars().count());
        let mut left_out = false;
        for (key, value) in &self.fields {
            let field = match value {
                Value::String(value) => format!(" {key}={value}"),
                value => format!(" {key}={value}"),
            };
            // Room is kept for the sign that something is left out.
            match room.checked_sub(field.chars().count()).filter(|left| *left >= 2) {
                Some(left) => {
                    room = left;
                    text += &field.dimmed().to_string();
                }
                None => left_out = true,
            }
        }
        if left_out {
            text += &" …".dimmed().to_string();
        }
        text
    }

    /// Whether it says nothing that anybody has to act upon.
    pub(crate) fn is_routine(&self) -> bool {
        !matches!(self.level.as_str(), "" | "WARN" | "ERROR")
    }

    /// A line of standard error.
    pub(crate) fn verbatim(line: &str) -> Self {
        Self { message: line.into(), level: String::new(), time: String::new(), fields: Map::new() }
    }

    /// The addresses in the line that says that a role is up.
    pub(crate) fn ready(&self) -> Option<Ready> {
        (self.message == READY).then(|| Ready { fields: self.fields.clone() })
    }
}

/// What the line that says that a role is up says.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    fields: Map<String, Value>,
}

impl Ready {
    /// An address that the role listens on.
    pub(crate) fn address(&self, field: &str) -> anyhow::Result<SocketAddr> {
        let text = self.text(field)?;
        text.parse().with_context(|| format!("{field}={text} is not an address"))
    }

    /// As many addresses as it must have there, in order.
    pub(crate) fn addresses<const N: usize>(&self, field: &str) -> anyhow::Result<[SocketAddr; N]> {
        let text = self.text(field)?;
        let addresses = text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>();
        let addresses = addresses.ok().and_then(|addresses| addresses.try_into().ok());
        addresses.with_context(|| format!("{field}={text} is not a list of {N} addresses"))
    }

    fn text(&self, field: &str) -> anyhow::Result<&str> {
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text),
            _ => bail!("the line that says `{READY}` has no {field}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2025-11-23T06:25:56.295595Z","level":"WARN","message":"it cuts — here","b":2,
        "a":"x y","target":"ferry","span":{"name":"session","link":"7"}}"#;

    fn shown(line: &str, width: usize) -> String {
        anstream::adapter::strip_str(&Record::parse(line).render(width)).to_string()
    }

    #[test]
    fn a_log_line_is_shown_with_its_time_level_message_and_fields() {
        assert_eq!(shown(LINE, usize::MAX), "06:25:56.295 WARN it cuts — here b=2 a=x y link=7");
    }

    #[test]
    fn fields_that_do_not_fit_are_left_out() {
        assert_eq!(shown(LINE, 48), "06:25:56.295 WARN it cuts — here b=2 a=x y …");
        assert_eq!(shown(LINE, 39), "06:25:56.295 WARN it cuts — here b=2 …");
        assert_eq!(shown(LINE, 0), "06:25:56.295 WARN it cuts — here …");
    }

    #[test]
    fn a_line_that_is_no_log_line_is_shown_as_it_is() {
        for line in ["thread 'main' panicked", "[1]", ""] {
            assert_eq!(shown(line, 0), line);
        }
    }

    #[test]
    fn a_ready_line_gives_its_addresses() {
        let line =
            r#"{"level":"INFO","message":"ready","listen":"127.0.0.1:4711","pod":"p","egress":"[::1]:1,[::1]:2"}"#;
        let ready = Record::parse(line).ready().unwrap();
        assert_eq!(ready.address("listen").unwrap(), "127.0.0.1:4711".parse().unwrap());
        assert_eq!(ready.addresses("egress").unwrap().map(|address| address.port()), [1, 2]);
        assert!(ready.addresses::<3>("egress").unwrap_err().to_string().contains("not a list of 3"));
        assert!(ready.address("pod").unwrap_err().to_string().contains("pod=p"));
        assert!(ready.address("admin").unwrap_err().to_string().contains("no admin"));
        assert!(Record::parse(LINE).ready().is_none());
    }
}
