//! `ferry top`: a tunnel as it is now, on a terminal.
//!
//! What is shown is a value ([`state`]), fed by what was heard and by keys, and drawn by [`draw`]; here are the clock, the
//! terminal and the signals.

mod draw;
mod hearing;
mod rates;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod wrap;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

use self::draw::Theme;
use self::state::{Heard, Top, Wish};
use crate::admin::{Endpoint, Event, Which, examples};
use crate::exit::Usage;
use crate::process::Stop;

/// At most this often something is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(250);
/// At least this often: ages grow.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Answers that are not taken yet.
const MAX_HEARD: usize = 16;

fn help() -> String {
    let end =
        "q quits, ? shows all keys. Without colours where NO_COLOR is set. For scripts there is ferry status --json.";
    format!("Examples:\n{}\n{end}", examples("top"))
}

/// Watch a tunnel's peers, sessions and events on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    #[command(flatten)]
    which: Which,
}

/// Shows it until the user has seen enough.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        let hint = "`ferry status` prints the same once, and `ferry status --json` for scripts";
        return Err(Usage(format!("ferry top draws on a terminal, and its output is not one; {hint}")).into());
    }
    let mut stop = Stop::listen()?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    // What is wrong with the command line or kubectl is said before the terminal is taken.
    let endpoint = tokio::select! {
        endpoint = Endpoint::reach(args.which) => endpoint?,
        by = stop.next() => bail!("stopped by {by}"),
    };
    let (address, at) = watch::channel(endpoint.url().clone());
    let (tell, heard) = mpsc::channel(MAX_HEARD);
    let (tell_events, events) = mpsc::channel(MAX_HEARD);
    let mut tasks = JoinSet::new();
    tasks.spawn(hearing::follow(endpoint.client().clone(), at, tell_events, tell.clone()));
    tasks.spawn(hearing::ask(endpoint, address, tell));
    let shown = tokio::select! {
        shown = show(heard, events, &mut tasks) => shown,
        _ = stop.next() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    // kubectl ends with its task.
    tasks.shutdown().await;
    shown
}

/// Draws what was heard until the user has seen enough, or a task ends that should not.
async fn show(
    mut heard: mpsc::Receiver<Heard>,
    mut events: mpsc::Receiver<Vec<Event>>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let mut screen = Screen::take()?;
    let (mut keys, mut tick, start) = (EventStream::new(), interval(TICK_INTERVAL), Instant::now());
    let mut top = Top::new();
    let (mut is_due, mut next) = (true, start);
    loop {
        if is_due && Instant::now() >= next {
            screen.draw(&mut top, start.elapsed())?;
            (is_due, next) = (false, Instant::now() + DRAW_INTERVAL);
        }
        tokio::select! {
            input = keys.next() => match input {
                Some(Ok(Input::Key(key))) if key.kind != KeyEventKind::Release => {
                    if top.handle_key(key) == Wish::Quit {
                        return Ok(());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("cannot read the terminal"),
                None => return Ok(()),
            },
            Some(heard) = heard.recv() => top.handle_heard(start.elapsed(), heard),
            Some(told) = events.recv() => top.handle_heard(start.elapsed(), Heard::Events(told)),
            Some(ended) = tasks.join_next() => ended.context("a part of ferry top has ended")?,
            _ = tick.tick() => {}
            () = sleep_until(next), if is_due => continue,
        }
        is_due = true;
    }
}

/// The terminal, which is as before when this is dropped, also by a panic.
struct Screen {
    terminal: DefaultTerminal,
    theme: Theme,
}

impl Screen {
    fn take() -> anyhow::Result<Self> {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let terminal = ratatui::try_init().context("cannot draw on this terminal")?;
        Ok(Self { terminal, theme: Theme::new(has_colours) })
    }

    fn draw(&mut self, top: &mut Top, now: Duration) -> anyhow::Result<()> {
        let mut drawn = Default::default();
        let draw = self.terminal.draw(|frame| drawn = draw::draw(frame, top, now, self.theme));
        draw.context("cannot draw on this terminal")?;
        top.handle_drawn(drawn);
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has done so before it was reported.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}
