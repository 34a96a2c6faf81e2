//! `ferry init`: a blueprint to start from.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anstream::eprintln;
use anyhow::{Context as _, bail};

const EXAMPLES: &str = "\
Examples:
  ferry init                               writes blueprint.yaml
  ferry init --k3d                         for two clusters of k3d on this machine
  ferry init - | less                      prints it
  ferry bundle blueprint.yaml --check      reports what is wrong in it";

/// Write a commented blueprint to start from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to write it; `-` is standard output. A file that exists is never overwritten.
    #[arg(value_name = "FILE", default_value = "blueprint.yaml")]
    file: PathBuf,
    /// For clusters of k3d on this machine: with their contexts, and the address by which they reach each other.
    #[arg(long)]
    k3d: bool,
}

/// Writes the file.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let shown = args.file.display();
    let text = if args.k3d { ferry_bundle::starter_for_k3d() } else { ferry_bundle::STARTER.to_owned() };
    if args.file.as_os_str() == "-" {
        io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&args.file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{shown} exists already, and is left as it is; name another file, or move that one away")
        }
        file => file.with_context(|| format!("cannot write {shown}"))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    eprintln!("wrote {shown}; next: ferry bundle {shown} --out ferry-bundle");
    Ok(())
}
