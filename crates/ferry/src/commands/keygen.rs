//! `ferry keygen --out FILE`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use super::pubkey::explained;
use ferry_config::Identity;

const EXAMPLES: &str = "\
Examples:
  ferry keygen --out identity.key          prints ferry:pub:…, which goes into the peer's tunnel.yaml
  KEY=$(ferry keygen --out identity.key)";

/// Make a new identity: a private key in FILE (mode 0600), its public key on standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to write the private key. A file that exists is never overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the file, then prints the public key alone on a line.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let identity = Identity::generate().map_err(explained)?;
    identity.write_new(&args.out).map_err(explained)?;
    writeln!(io::stdout(), "{}", identity.public_key())?;
    Ok(())
}
