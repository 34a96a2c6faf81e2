//! `ferry bundle`: from a blueprint to a Kubernetes bundle.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anstream::{eprintln, println};
use anyhow::{Context as _, bail};
use owo_colors::OwoColorize as _;

use crate::exit::Usage;
use ferry_bundle::{Blueprint, Changes, KeyRoll, Keys, Label, RollStep, RollStepTaken, add_chart, render};
use ferry_config::{Report, ValueError};

const EXAMPLES: &str = "\
Examples:
  ferry bundle blueprint.yaml --out ferry-bundle
  ferry bundle blueprint.yaml --check
  ferry bundle blueprint.yaml --out ferry-bundle --dry-run     what would change
  ferry bundle blueprint.yaml --out ferry-bundle --chart       for Helm, too
  ferry bundle blueprint.yaml --out ferry-bundle --roll west   the next step of replacing the key of the pod west

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
    /// Replace the key of this pod, in three runs with a deployment after each: the peers list the next key in addition, the
    /// pod has it, the peers list it alone. Each run takes the next step, and says what to deploy.
    #[arg(long, value_name = "POD", conflicts_with_all = ["check", "dry_run"])]
    roll: Option<Label>,
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
    let roll = args.roll.as_ref().map(|pod| roll(pod, out, &blueprint, &mut keys)).transpose()?;
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
    if let (Some(pod), Some(step)) = (&args.roll, roll) {
        return tell_step(pod, out, &step);
    }
    if !changes.new.is_empty() {
        eprintln!("next: {}/README.md says how to deploy it", out.display());
    }
    Ok(())
}

/// Takes the next step of replacing a pod's key. It is in force when the bundle is written and deployed.
fn roll(pod: &Label, out: &Path, blueprint: &Blueprint, keys: &mut Keys) -> anyhow::Result<RollStep> {
    let pods: Vec<_> = blueprint.pods.iter().map(|pod| pod.id.as_str()).collect();
    if !pods.contains(&pod.as_str()) {
        return Err(Usage(format!("there is no pod {pod} in the blueprint; it has: {}", pods.join(", "))).into());
    }
    Ok(KeyRoll::of(out, pod).advance(blueprint, keys)?)
}

/// Says what the step has come to, and what is next.
fn tell_step(pod: &Label, out: &Path, step: &RollStep) -> anyhow::Result<()> {
    let deploy = format!("run `ferry deploy {}` ({})", out.display(), step.scripts.join(", "));
    match step.taken {
        RollStepTaken::None => {
            let notes: Vec<_> = step.scripts.iter().map(|script| KeyRoll::of(out, pod).note_of(script)).collect();
            let notes: Vec<_> = notes.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "{pod}: the step before is not deployed yet: {deploy}, then run this again; where it was deployed from \
                 elsewhere, or by Helm, remove {}",
                notes.join(", ")
            )
        }
        RollStepTaken::Announced => {
            eprintln!(
                "{pod} has a next key, which its peers list next to the one in use: {deploy}, then run this again"
            );
        }
        RollStepTaken::Switched => {
            eprintln!("{pod} has its new key, and its peers still list the one before: {deploy}, then run this again");
        }
        RollStepTaken::Parted => eprintln!("the peers of {pod} list its new key alone: {deploy}; that is all"),
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
