//! `ferry send URL`: JSON lines from standard input into a web-app's `/stream`.

mod job;
mod lines;
mod message;

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::{Sink, SinkExt as _};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use owo_colors::OwoColorize as _;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{Base, Bearer, Failure, Notices, Series, Stream};
use crate::console::Console;
use crate::exit::chain;
use crate::rate::Rate;
use job::{Job, Outcome, Tally};
use lines::Line;

const EXAMPLES: &str = "\
Examples:
  ferry send http://127.0.0.1:8000 < messages.jsonl
  echo '{\"hello\": \"world\"}' | ferry send http://127.0.0.1:8000
  journalctl -f -o json | ferry send http://127.0.0.1:8000
  ferry send http://127.0.0.1:8000 --message '{\"n\": 1}' --wait 1m      one message, and the far side's answer
  ferry send http://127.0.0.1:8000 --key import-7 < messages.jsonl   run again, it sends only what is missing
  ferry send http://127.0.0.1:8000 --to cluster-a/edge-1 < messages.jsonl      at a terminator that several sites use

A line that is not a JSON object is reported with its number and left out; all others are sent. If the web-app restarts, sending
continues where it stopped, and each line is sent once. The exit code is 0 once every line of the input has been
delivered to the far side, 1 if any has not.";

/// Between two attempts to reach a web-app that is away: from the first on twice as long each time, up to the last.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];
const LOST: &str = "the connection to the web-app was lost";

/// Stream JSON lines from standard input into a web-app, and wait until the far side has them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The web-app's base URL.
    url: Base,
    #[command(flatten)]
    single: message::Single,
}

/// Sends the lines and waits for their delivery.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(message) = &args.single.message {
        return message::run(&args.url, message, &args.single).await;
    }
    let key = args.single.key.map_or_else(message::fresh_key, Ok)?;
    let token = Bearer::read(args.single.token_file.as_deref())?;
    let started = Instant::now();
    let sender = Sender {
        base: args.url,
        key,
        to: args.single.to,
        token,
        job: RefCell::new(Job::new()),
        room: Notify::new(),
        progress: progress_bar(),
        console: Console::stderr()?,
    };
    let ended = tokio::select! {
        ended = sender.run() => ended,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    sender.progress.finish_and_clear();
    let job = sender.job.borrow();
    summarise(&sender.console, &job.tally, started);
    if let (Err(error), Some(line)) = (&ended, job.stored_to()) {
        bail!("{}; the web-app has stored all lines up to line {line} and will deliver them", chain(error));
    }
    ended?;
    let tally = &job.tally;
    let lost = tally.bad + tally.refused + tally.dead;
    if lost > 0 {
        bail!("{} of {} lines were not delivered", HumanCount(lost), HumanCount(tally.sent + tally.bad));
    }
    Ok(())
}

fn summarise(console: &Console, tally: &Tally, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let mut text = format!("{} sent, {} delivered", HumanCount(tally.sent), HumanCount(tally.delivered));
    let kinds = [("bad", tally.bad), ("refused", tally.refused), ("dead", tally.dead)];
    for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
        text += &format!(", {} {kind}", HumanCount(count));
    }
    let under_way = tally.accepted - tally.delivered - tally.dead;
    if under_way > 0 {
        text += &format!(", {} accepted and still on the way", HumanCount(under_way));
    }
    console.print(format_args!("{text} in {seconds:.1} s ({} messages/s)", Rate(tally.delivered as f64 / seconds)));
    console.flush();
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    // The template is a constant that a test renders.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} delivered of {human_len} sent, {rate}/s") {
        bar.set_style(style.with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            // Writing to memory does not fail.
            let _ = write!(text, "{}", Rate(state.per_sec()));
        }));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

struct Sender {
    base: Base,
    /// The name of the series that the lines are sent as.
    key: String,
    to: Option<String>,
    token: Option<Bearer>,
    job: RefCell<Job>,
    /// There is room for another line, or the last line is settled.
    room: Notify,
    progress: ProgressBar,
    /// Not to wait for a reader of it: lines are sent all the same.
    console: Console,
}

/// Why a connection has ended before everything was settled.
struct Lost(anyhow::Error);

impl Sender {
    async fn run(&self) -> anyhow::Result<()> {
        let mut lines = lines::from_stdin();
        // If it was never reachable, the URL is probably wrong.
        let mut stream = self.connect().await.map_err(anyhow::Error::from)?;
        loop {
            let (writer, notices) = stream.split();
            let conversation = async {
                tokio::select! {
                    sent = self.send(writer, &mut lines) => sent,
                    watched = self.watch(notices) => watched,
                }
            };
            match conversation.await {
                Ok(()) => return Ok(()),
                Err(Lost(error)) => self.warn(&format!("{}; waiting for the web-app", chain(&error))),
            }
            stream = self.connect_again().await?;
            self.warn("the web-app is back");
        }
    }

    async fn connect(&self) -> Result<Stream, Failure> {
        let from = self.job.borrow_mut().connect();
        let series = Series { key: &self.key, from, to: self.to.as_deref(), token: self.token.as_ref() };
        Stream::connect_to_series(&self.base, &series).await
    }

    async fn connect_again(&self) -> anyhow::Result<Stream> {
        let mut delay = RETRY_DELAYS[0];
        loop {
            tokio::time::sleep(delay).await;
            match self.connect().await {
                Ok(stream) => return Ok(stream),
                Err(Failure::Away(_)) => delay = (delay * 2).min(RETRY_DELAYS[1]),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends what is still under way again, then each further line that is a JSON object. Ends only with the connection.
    async fn send(
        &self,
        mut writer: impl Sink<Message, Error = tungstenite::Error> + Unpin,
        lines: &mut mpsc::Receiver<Line>,
    ) -> Result<(), Lost> {
        let lost = |error: tungstenite::Error| Lost(anyhow::Error::from(error).context(LOST));
        let (mut number, end) = (self.job.borrow().first(), self.job.borrow().next_number());
        while number < end {
            // What is settled meanwhile has been answered, so it was sent.
            let payload = self.job.borrow().again(number);
            if let Some(payload) = payload {
                writer.feed(Message::text(payload)).await.map_err(lost)?;
            }
            number += 1;
        }
        loop {
            // Check before taking a line: a line taken but not yet recorded would be lost with the connection.
            if !self.job.borrow().has_room() {
                writer.flush().await.map_err(lost)?;
                while !self.job.borrow().has_room() {
                    self.room.notified().await;
                }
            }
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(_) => {
                    writer.flush().await.map_err(lost)?;
                    match lines.recv().await {
                        Some(line) => line,
                        None => break,
                    }
                }
            };
            if let Some(payload) = self.take(line) {
                writer.feed(Message::text(payload)).await.map_err(lost)?;
            }
        }
        self.job.borrow_mut().input_ended = true;
        while !self.job.borrow().is_settled() {
            self.room.notified().await;
        }
        Ok(())
    }

    fn take(&self, line: Line) -> Option<String> {
        let mut job = self.job.borrow_mut();
        match line.payload.with_context(|| format!("line {}", line.number)) {
            Ok(payload) => {
                self.progress.inc_length(1);
                Some(job.add(line.number, payload))
            }
            Err(error) => {
                job.tally.bad += 1;
                self.complain(&chain(&error));
                None
            }
        }
    }

    /// Counts what the web-app says, until the connection ends.
    async fn watch(&self, mut notices: Notices) -> Result<(), Lost> {
        loop {
            let notice = match notices.next().await.map_err(Lost)? {
                Some(notice) => notice,
                None => return Err(Lost(anyhow::anyhow!("the web-app closed the connection"))),
            };
            match self.job.borrow_mut().handle(notice) {
                Some(Outcome::Delivered) => self.progress.inc(1),
                Some(Outcome::Failed(text)) => self.complain(&text),
                None => {}
            }
            self.room.notify_one();
        }
    }

    fn complain(&self, text: &str) {
        let text = format!("{} {text}", "error:".red().bold());
        self.progress.suspend(|| self.console.print(text));
    }

    fn warn(&self, text: &str) {
        let text = format!("{} {text}", "warning:".yellow().bold());
        self.progress.suspend(|| self.console.print(text));
    }
}
