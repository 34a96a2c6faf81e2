//! What the demo shows: lines on standard output, and below them on a terminal what it is at.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize as _;
use rustix::termios::tcgetwinsize;

use crate::log::{Label, Record};
use ferry::console::Console;

/// How often a process may log the same message in one act; further ones are counted.
const ALIKE_MAX: u32 = 3;
/// What is never left out: a session that was lost and is back has to be seen to be back.
const NEVER_LEFT_OUT: [&str; 2] = ["session detached", "session resumed"];

/// Cheap to clone; all clones write to the same screen. Colours are written always, and left out where standard output is
/// no terminal or `NO_COLOR` says so.
#[derive(Clone)]
pub(crate) struct Screen {
    /// Where there is no terminal: nobody may be reading, and the processes must be looked after all the same.
    console: Option<Console>,
    bar: ProgressBar,
    /// Columns of the terminal, if it is one.
    width: Option<usize>,
    act: Arc<Mutex<Act>>,
}

/// The act that is on.
#[derive(Debug, Default)]
struct Act {
    title: String,
    /// How often each process has logged each message; `None` if that does not matter.
    alike: Option<BTreeMap<(Label, String), u32>>,
    /// Whether lines that nobody has to act upon are left out.
    quiet: bool,
}

impl Screen {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let console = if io::stdout().is_terminal() { None } else { Some(Console::stdout()?) };
        let bar = if io::stdout().is_terminal() && io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_style(style("{spinner:.yellow} {elapsed:.dim} {wide_msg}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        } else {
            ProgressBar::hidden()
        };
        let width = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        Ok(Self { console, bar, width, act: Arc::default() })
    }

    /// Writes lines above what the demo is at.
    /// Lines that are too long for the terminal go on in the next, between two words.
    pub(crate) fn print(&self, text: impl fmt::Display) {
        match self.width {
            Some(width) => self.print_as_it_is(wrapped(&text.to_string(), width)),
            None => self.print_as_it_is(text),
        }
    }

    /// Writes lines that are to be copied, so that each stays one.
    pub(crate) fn print_as_it_is(&self, text: impl fmt::Display) {
        match &self.console {
            Some(console) => console.print(text),
            // It may be gone; the exit code still tells.
            None => self.bar.suspend(|| _ = writeln!(anstream::stdout().lock(), "{text}")),
        }
    }

    /// Writes a log line of a process, unless it has written many like it in this act.
    pub(crate) fn log(&self, label: Label, record: &Record) {
        {
            let mut act = self.current();
            if act.quiet && record.is_routine() {
                return;
            }
            if let Some(alike) = act.alike.as_mut().filter(|_| !NEVER_LEFT_OUT.contains(&record.message.as_str())) {
                let count = alike.entry((label, record.message.clone())).or_default();
                *count += 1;
                if *count > ALIKE_MAX {
                    return;
                }
            }
        }
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(Label::WIDTH));
        self.print(format_args!("{label} {}", record.render(width)));
    }

    /// Begins an act: its title as a heading, and on a terminal what the demo is at.
    pub(crate) fn act(&self, title: &str) {
        self.end_act();
        *self.current() = Act { title: title.into(), alike: Some(BTreeMap::new()), quiet: false };
        self.bar.set_message(title.to_owned());
        self.heading(title);
    }

    /// Ends the act, and tells of the log lines that it left out. From here on none are.
    pub(crate) fn end_act(&self) {
        let act = std::mem::take(&mut *self.current());
        for ((label, message), count) in act.alike.unwrap_or_default() {
            if let Some(more @ 1..) = count.checked_sub(ALIKE_MAX) {
                let text = format!("… and {more} more of `{message}`");
                self.print(format_args!("{label} {}", text.dimmed()));
            }
        }
    }

    /// From here to the next act the processes' lines are left out, but for warnings and errors.
    pub(crate) fn hush(&self) {
        self.current().quiet = true;
    }

    /// Says on a terminal that nothing more happens by itself.
    pub(crate) fn rest(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// Columns of the terminal, if there is one.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// The title of the act that is on.
    pub(crate) fn title(&self) -> String {
        self.current().title.clone()
    }

    pub(crate) fn heading(&self, title: &str) {
        self.print(format_args!("\n{} {}", "──".yellow(), title.bold()));
    }

    /// Shows on a terminal how far the act is.
    pub(crate) fn progress(&self, done: f64, detail: &str) {
        const CELLS: f64 = 30.0;
        let full = (done.clamp(0.0, 1.0) * CELLS) as usize;
        let (full, rest) = ("━".repeat(full), "─".repeat(CELLS as usize - full));
        self.bar.set_message(format!("{full}{rest} {detail}"));
    }

    /// Takes what the demo is at off the terminal.
    pub(crate) fn finish(&self) {
        self.end_act();
        self.bar.finish_and_clear();
    }

    /// Waits, for as long as is reasonable, until everything printed has been written.
    pub(crate) fn flush(&self) {
        if let Some(console) = &self.console {
            console.flush();
        }
    }

    fn current(&self) -> MutexGuard<'_, Act> {
        self.act.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `text` in lines of at most `width` columns, as far as its words allow. What a line has too much goes on two columns
/// further in than it began.
fn wrapped(text: &str, width: usize) -> String {
    let visible = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len() + 2;
        let (mut current, mut used, mut started) = (String::new(), 0, false);
        for (i, word) in line.split(' ').enumerate() {
            let length = visible(word);
            if started && length > 0 && used + 1 + length > width {
                lines.push(current.trim_end().to_owned());
                (current, used) = (format!("{:indent$}{word}", ""), indent + length);
                continue;
            }
            if i > 0 {
                current.push(' ');
                used += 1;
            }
            current += word;
            used += length;
            started |= length > 0;
        }
        lines.push(current);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_at_the_terminal_s_width() {
        assert_eq!(wrapped("  ✔ one two three", 12), "  ✔ one two\n    three");
        assert_eq!(wrapped("short\n  it stays", 80), "short\n  it stays");
        assert_eq!(wrapped("unbreakable", 4), "unbreakable");
        let coloured = format!("{} {}", "one".red(), "two".green());
        assert_eq!(wrapped(&coloured, 7), coloured);
        assert!(wrapped(&coloured, 6).contains('\n'));
    }
}
