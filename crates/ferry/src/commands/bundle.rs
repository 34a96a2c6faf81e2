//! `ferry bundle`: from a blueprint to a Kubernetes bundle.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anstream::{eprintln, println};
use anyhow::Context as _;
use owo_colors::OwoColorize as _;

use ferry_bundle::{Blueprint, Changes, Keys, add_chart, render};
use ferry_config::{Report, ValueError};

const EXAMPLES: &str = "\
Examples:
  ferry bundle blueprint.yaml --out ferry-bundle
  ferry bundle blueprint.yaml --check
  ferry bundle blueprint.yaml --out ferry-bundle --dry-run     what would change
  ferry bundle blueprint.yaml --out ferry-bundle --chart       for Helm, too

Rendering again keeps the keys that are in DIR, and the hooks in */app/.";

/// Render a blueprint into a directory of manifests, scripts and keys for Kubernetes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The blueprint.
    #[arg(value_name = "BLUEPRINT")]
    blueprint: PathBuf,
    /// Where to write the bundle.
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    out: Option<PathBuf>,
    /// Report every problem in the blueprint and exit: 0 if there is none, 78 otherwise.
    #[arg(long, conflicts_with_all = ["out", "dry_run", "chart"])]
    check: bool,
    /// Write DIR/chart, too: the Helm chart, and for each pod the values by which it renders the same manifests.
    #[arg(long)]
    chart: bool,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Checks the blueprint, and renders it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (blueprint, text) = read(&args.blueprint)?;
    let Some(out) = args.out.as_ref().filter(|_| !args.check) else {
        eprintln!("{}: no problems", args.blueprint.display());
        return Ok(());
    };
    let mut keys = Keys::load(out, &blueprint)?;
    keys.complete(&blueprint)?;
    let mut bundle = render(&blueprint, &text, &keys)?;
    if args.chart {
        add_chart(&mut bundle, &blueprint, &keys)?;
    }
    if args.dry_run {
        tell(&bundle.compare(out)?);
        return Ok(());
    }
    let changes = bundle.write(out)?;
    tell(&changes);
    if !changes.new.is_empty() {
        eprintln!("next: {}/README.md says how to deploy it", out.display());
    }
    Ok(())
}

/// Reads a blueprint, and its text.
pub(super) fn read(path: &Path) -> anyhow::Result<(Blueprint, String)> {
    let source = path.display().to_string();
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = "name a blueprint that exists, or write one to start from with `ferry init`";
            return Err(Report::of_document(source, ValueError::new("there is no such file", hint)).into());
        }
        bytes => bytes.with_context(|| format!("cannot read {source}"))?,
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| Report::of_document(&source, ValueError::new("the file is not text in UTF-8", "")))?;
    Ok((Blueprint::parse(&source, &text)?, text))
}

/// Says what became of each file.
fn tell(changes: &Changes) {
    let lists = [
        (&changes.new, "new".green().to_string()),
        (&changes.changed, "changed".yellow().to_string()),
        (&changes.kept, "yours, kept".cyan().to_string()),
    ];
    for (paths, what) in lists {
        for path in paths {
            println!("{what}: {path}");
        }
    }
    let Changes { new, changed, unchanged, kept } = changes;
    eprintln!("{} new, {} changed, {} unchanged, {} kept", new.len(), changed.len(), unchanged.len(), kept.len());
}
