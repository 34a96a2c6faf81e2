//! `ferry init`: a blueprint to start from.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::PathBuf,
};

use anstream::eprintln;
use anyhow::{Context as _, bail};

const EXAMPLES: &str = "\
Examples:
  ferry init                               writes blueprint.yaml
  ferry init - | less                      prints it
  ferry bundle blueprint.yaml --check      reports what is wrong in it";

/// Write a commented blueprint to start from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to write it; `-` is standard output. A file that exists is never overwritten.
    #[arg(value_name = "FILE", default_value = "blueprint.yaml")]
    file: PathBuf,
}

/// Writes the file.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let shown = args.file.display();
    if args.file.as_os_str() == "-" {
        io::stdout().write_all(ferry_bundle::STARTER.as_bytes())?;
        return Ok(());
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&args.file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{shown} exists already, and is left as it is; name another file, or move that one away")
        }
        file => file.with_context(|| format!("cannot write {shown}"))?,
    };
    file.write_all(ferry_bundle::STARTER.as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    eprintln!("wrote {shown}; next: ferry bundle {shown} --out ferry-bundle");
    Ok(())
}
