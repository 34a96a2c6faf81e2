//! `ferry send URL`: JSON lines from standard input into a web-app's `/stream`.

mod lines;
mod message;

use std::{cell::RefCell, fmt, time::Instant};

use anyhow::{Context as _, bail};
use futures_util::{Sink, SinkExt as _};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use owo_colors::OwoColorize as _;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{
    client::{Base, Notice, Notices, Stream},
    console::Console,
    exit::chain,
    rate::Rate,
};

const EXAMPLES: &str = "\
Examples:
  ferry send http://127.0.0.1:8000 < messages.jsonl
  echo '{\"hello\": \"world\"}' | ferry send http://127.0.0.1:8000
  journalctl -f -o json | ferry send http://127.0.0.1:8000
  ferry send http://127.0.0.1:8000 --message '{\"n\": 1}' --wait 1m      one message, and the far side's answer

A line that is not a JSON object is reported with its number and left out; all others are sent. The exit code is 0 once
every line of the input has been delivered to the far side, 1 if any has not.";

/// Stream JSON lines from standard input into a web-app, and wait until the far side has them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The web-app's base URL.
    url: Base,
    #[command(flatten)]
    single: message::Single,
}

/// What became of the lines so far.
#[derive(Debug, Default)]
struct Tally {
    /// Lines that are no JSON object.
    bad: u64,
    sent: u64,
    accepted: u64,
    refused: u64,
    delivered: u64,
    dead: u64,
}

impl Tally {
    /// Whether every line sent has been answered, and every one accepted has arrived or is known not to.
    fn settled(&self) -> bool {
        self.accepted + self.refused == self.sent && self.delivered + self.dead == self.accepted
    }
}

/// Sends the lines and waits for their delivery.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(message) = &args.single.message {
        return message::run(&args.url, message, &args.single).await;
    }
    let (writer, notices) = Stream::connect(&args.url).await?.split();
    let started = Instant::now();
    let job = Job { tally: RefCell::default(), progress: progress_bar(), console: Console::stderr()? };
    let (all_sent, sending) = oneshot::channel();
    let ended = tokio::select! {
        ended = async { tokio::try_join!(job.send(writer, lines::from_stdin(), all_sent), job.watch(notices, sending)) } => {
            ended.map(|_| ())
        }
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    job.progress.finish_and_clear();
    let tally = job.tally.take();
    summarise(&job.console, &tally, started);
    ended?;
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
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

struct Job {
    tally: RefCell<Tally>,
    progress: ProgressBar,
    /// Not to wait for a reader of it: lines are sent all the same.
    console: Console,
}

impl Job {
    /// Sends every line that is a JSON object; then `all_sent` says so.
    async fn send(
        &self,
        mut writer: impl Sink<Message, Error = tungstenite::Error> + Unpin,
        mut lines: mpsc::Receiver<lines::Line>,
        all_sent: oneshot::Sender<()>,
    ) -> anyhow::Result<()> {
        const LOST: &str = "the connection to the web-app was lost";
        loop {
            let line = match lines.try_recv() {
                Ok(line) => line,
                Err(_) => {
                    writer.flush().await.context(LOST)?;
                    match lines.recv().await {
                        Some(line) => line,
                        None => break,
                    }
                }
            };
            match line.payload.with_context(|| format!("line {}", line.number)) {
                Ok(payload) => {
                    self.tally.borrow_mut().sent += 1;
                    self.progress.inc_length(1);
                    writer.feed(Message::text(payload)).await.context(LOST)?;
                }
                Err(error) => {
                    self.tally.borrow_mut().bad += 1;
                    self.complain(&error);
                }
            }
        }
        // An error would mean that nobody watches any more, which ends this as well.
        let _ = all_sent.send(());
        Ok(())
    }

    /// Counts what the web-app says until everything is settled.
    async fn watch(&self, mut notices: Notices, mut sending: oneshot::Receiver<()>) -> anyhow::Result<()> {
        let mut all_sent = false;
        while !(all_sent && self.tally.borrow().settled()) {
            tokio::select! {
                _ = &mut sending, if !all_sent => all_sent = true,
                notice = notices.next() => match notice? {
                    Some(notice) => self.count(notice),
                    None => bail!("the web-app closed the connection before everything was delivered; is it restarting?"),
                },
            }
        }
        Ok(())
    }

    fn count(&self, notice: Notice) {
        let mut tally = self.tally.borrow_mut();
        match notice {
            Notice::Accepted { .. } => tally.accepted += 1,
            Notice::Delivered => {
                tally.delivered += 1;
                self.progress.inc(1);
            }
            Notice::Dead { id, error } => {
                tally.dead += 1;
                self.complain(&anyhow::anyhow!("message {id}: the far side's hook kept refusing it: {error}"));
            }
            Notice::Refused { error } => {
                tally.refused += 1;
                self.complain(&anyhow::anyhow!("a line was refused by the web-app: {error}"));
            }
            // The far side's messages are for `ferry output`.
            Notice::Arrived(_) | Notice::Missed => {}
        }
    }

    fn complain(&self, error: &anyhow::Error) {
        let text = format!("{} {}", "error:".red().bold(), chain(error));
        self.progress.suspend(|| self.console.print(text));
    }
}
