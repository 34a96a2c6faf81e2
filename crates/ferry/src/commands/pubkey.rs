//! `ferry pubkey FILE`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use ferry_config::{Identity, IdentityError};

const EXAMPLES: &str = "\
Examples:
  ferry pubkey identity.key                prints ferry:pub:…, which goes into the peer's tunnel.yaml";

/// Print the public key of an identity file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file that `ferry keygen` wrote.
    file: PathBuf,
}

/// Prints the public key alone on a line.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let identity = Identity::load(&args.file).map_err(explained)?;
    writeln!(io::stdout(), "{}", identity.public_key())?;
    Ok(())
}

/// The error with what to do about it.
pub(super) fn explained(error: IdentityError) -> anyhow::Error {
    match error.hint() {
        hint if hint.is_empty() => error.into(),
        hint => anyhow::anyhow!("{error}; {hint}"),
    }
}
