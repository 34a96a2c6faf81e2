//! `ferry output URL`: what has arrived at a web-app, as JSON lines.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anstream::eprintln;
use owo_colors::OwoColorize as _;

use crate::client::{Base, OutputReader, Read};

/// Between two looks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  ferry output http://127.0.0.1:8000
  ferry output http://127.0.0.1:8000 --follow
  ferry output http://127.0.0.1:8000 | jq .payload";

/// Print what has arrived at a web-app: one JSON object a line, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The web-app's base URL.
    url: Base,
    /// Go on printing what arrives, until interrupted.
    #[arg(long, short)]
    follow: bool,
}

/// Prints it, page by page.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut output = OutputReader::new(args.url);
    loop {
        match output.next().await? {
            Read::Missed => eprintln!(
                "{} results were dropped before they could be read; going on with the oldest that is kept. A larger \
                 --output-max at the web-app keeps more",
                "warning:".yellow().bold()
            ),
            Read::Results(results) if results.is_empty() => {
                if !args.follow {
                    return Ok(());
                }
                tokio::time::sleep(FOLLOW_EVERY).await;
            }
            Read::Results(results) => {
                let mut stdout = io::stdout().lock();
                for result in results {
                    writeln!(stdout, "{}", result.get())?;
                }
                stdout.flush()?;
            }
        }
    }
}
