//! `ferry output URL`: what has arrived at a web-app, as JSON lines.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use owo_colors::OwoColorize as _;
use serde_json::value::RawValue;

use crate::client::{Base, Bearer, Failure, OutputReader, Read};
use crate::console::Console;
use crate::exit::chain;

/// Between two looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks for a web-app that is away: from the first on twice as long each time, up to the last.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];

const EXAMPLES: &str = "\
Examples:
  ferry output http://127.0.0.1:8000
  ferry output http://127.0.0.1:8000 --follow
  ferry output http://127.0.0.1:8000 --after ID       ID is the last that was printed
  ferry output http://127.0.0.1:8000 | jq .payload

With --follow it survives a restart of the web-app: each result is printed once.";

/// Print what has arrived at a web-app: one JSON object a line, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The web-app's base URL.
    url: Base,
    /// Continue to print what arrives, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Start after the result with this id instead of with the oldest.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// A file with the token that the web-app asks for.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Prints it, page by page.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut output = OutputReader::new(args.url, args.after, Bearer::read(args.token_file.as_deref())?)?;
    let console = Console::stderr()?;
    let warn = |text: &str| console.print(format_args!("{} {text}", "warning:".yellow().bold()));
    // If it was never reachable, the URL is probably wrong.
    let mut was_there = false;
    let mut away: Option<Duration> = None;
    loop {
        let read = match output.next().await {
            Err(Failure::Away(error)) if args.follow && was_there => {
                if away.is_none() {
                    warn(&format!("{}; waiting for it", chain(&error)));
                }
                let delay = away.map_or(RETRY_DELAYS[0], |delay| (delay * 2).min(RETRY_DELAYS[1]));
                tokio::time::sleep(delay).await;
                away = Some(delay);
                continue;
            }
            Err(error) => return Err(with_place(error.into(), output.after())),
            Ok(read) => read,
        };
        was_there = true;
        if away.take().is_some() {
            console.print("the web-app is back");
        }
        match read {
            Read::Missed => warn(
                "results were dropped before they could be read; going on with the oldest that is kept. A larger \
                 --output-max at the web-app keeps more",
            ),
            Read::Results(results) if results.is_empty() => {
                if !args.follow {
                    return Ok(());
                }
                tokio::time::sleep(FOLLOW_INTERVAL).await;
            }
            Read::Results(results) => print(&results)?,
        }
    }
}

fn print(results: &[Box<RawValue>]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for result in results {
        writeln!(stdout, "{}", result.get())?;
    }
    stdout.flush()
}

/// Says how to continue, if something has been printed.
fn with_place(error: anyhow::Error, after: Option<&str>) -> anyhow::Error {
    match after {
        Some(id) => anyhow::anyhow!("{}; continue with --after {id}", chain(&error)),
        None => error,
    }
}
