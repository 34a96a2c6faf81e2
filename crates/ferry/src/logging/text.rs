//! Text format of log lines: time, level, message, fields, those of the spans around it last. Each event is exactly one
//! line.

use std::fmt::{self, Debug, Write as _};

use owo_colors::{OwoColorize as _, Style};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Targets that a line begins with: what the user's hooks print, and the audit trail.
const NAMED: [&str; 2] = ["hook", "audit"];

pub(super) struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let colours = writer.has_ansi_escapes();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Line { text: String::new(), message: String::new(), colours };
        event.record(&mut line);
        let metadata = event.metadata();
        let level = format!("{:>5}", metadata.level());
        write!(
            writer,
            "{} {} ",
            line.styled(&time, Style::new().dimmed()),
            line.styled(&level, style(metadata.level()))
        )?;
        let target = metadata.target();
        if NAMED.contains(&target) {
            write!(writer, "{} ", line.styled(&format!("{target}:"), Style::new().bold()))?;
        }
        write!(writer, "{}{}", line.message, line.text)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{fields}")?;
            }
        }
        writeln!(writer)
    }
}

/// The fields of a span, in the form of an event's.
impl<'w> FormatFields<'w> for Text {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { text: String::new(), message: String::new(), colours: writer.has_ansi_escapes() };
        fields.record(&mut line);
        writer.write_str(&line.text)
    }
}

fn style(level: &Level) -> Style {
    match *level {
        Level::ERROR => Style::new().red(),
        Level::WARN => Style::new().yellow(),
        Level::INFO => Style::new().green(),
        Level::DEBUG => Style::new().blue(),
        _ => Style::new().purple(),
    }
}

/// An event's message and its formatted fields.
struct Line {
    message: String,
    text: String,
    colours: bool,
}

impl Line {
    fn styled(&self, text: &str, style: Style) -> String {
        if self.colours { text.style(style).to_string() } else { text.to_owned() }
    }

    fn add(&mut self, field: &Field, value: &str) {
        let name = field.name();
        if name == "message" {
            escape(&mut self.message, value, false);
        } else if !name.starts_with("log.") {
            let name = self.styled(name.strip_prefix("r#").unwrap_or(name), Style::new().italic().dimmed());
            _ = write!(self.text, " {name}=");
            quote(&mut self.text, value);
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Appends a value, quoted only if it would be ambiguous otherwise.
fn quote(line: &mut String, value: &str) {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=');
    let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
    if is_quoted || (!value.is_empty() && value.chars().all(is_plain)) {
        escape(line, value, false);
    } else {
        line.push('"');
        escape(line, value, true);
        line.push('"');
    }
}

/// Appends text with control characters escaped, so that it can neither forge a line nor drive a terminal.
fn escape(line: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '"' if quotes => line.push_str("\\\""),
            c if c.is_control() || turns_writing(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
}

/// Bidirectional control characters and Unicode line separators.
fn turns_writing(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(value: &str) -> String {
        let mut line = String::new();
        quote(&mut line, value);
        line
    }

    #[test]
    fn a_value_is_in_quotes_if_and_only_if_it_needs_them() {
        for plain in ["initiator-0", "127.0.0.1:8000", "30s", "[::1]:1", "größer", "\"already there\""] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!(quoted("on_trigger on_receive"), "\"on_trigger on_receive\"");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a=b"), "\"a=b\"");
        assert_eq!(quoted("say \"no\""), "\"say \\\"no\\\"\"");
    }

    #[test]
    fn no_text_forges_a_line_or_drives_a_terminal() {
        assert_eq!(quoted("a\nINFO b\u{1b}[2J"), "\"a\\nINFO b\\u{1b}[2J\"");
        let mut line = String::new();
        escape(&mut line, "🔁 — a\r\n\u{9b}31m\u{202e}\tb", false);
        assert_eq!(line, "🔁 — a\\r\\n\\u{9b}31m\\u{202e}\\tb");
    }
}
