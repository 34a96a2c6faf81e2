//! `ferry deploy DIR`: both clusters in one command, by the bundle's own scripts.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anstream::{eprintln, println};
use anyhow::{Context as _, bail};
use ferry_bundle::{Proof, Steps, Watched};
use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize as _;
use serde::Deserialize;
use tokio::{process::Command, time::Instant};

use super::bundle;
use crate::exit::chain;

/// Between two looks at what has arrived.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at an address.
const WATCH_EVERY: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  ferry deploy ferry-bundle
  ferry deploy ferry-bundle --dry-run      the commands that it would run
  ferry deploy ferry-bundle --watch        stay, and pass a moved address on

Runs the deploy scripts in DIR, which take the contexts of kubectl from the blueprint.";

/// Deploy a bundle to its clusters, and show that messages go through.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The bundle, as `ferry bundle` wrote it.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show the commands, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Stay, and deploy again whenever the address of the load balancer has moved.
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    /// How long to wait for the messages, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    wait: u64,
}

/// Deploys, waits for the messages, and watches.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (blueprint, _) = bundle::read(&args.dir.join("blueprint.yaml"))?;
    let steps = blueprint.steps();
    run_scripts(&args.dir, &steps, args.dry_run).await?;
    if args.dry_run {
        return Ok(());
    }
    match &steps.proof {
        Some(proof) => await_proof(proof, Duration::from_secs(args.wait)).await?,
        None => eprintln!("the initiator sends nothing by itself, so there is nothing to wait for"),
    }
    match &steps.address {
        Some(watched) if args.watch => watch(&args.dir, &steps, watched).await,
        None if args.watch => {
            eprintln!("nothing to watch: the blueprint itself says how the terminator is reached");
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn run_scripts(dir: &Path, steps: &Steps, dry_run: bool) -> anyhow::Result<()> {
    for (i, script) in steps.scripts.iter().enumerate() {
        eprintln!("{} {script}", format!("[{}/{}]", i + 1, steps.scripts.len()).bold());
        // By its absolute path: a bare name would be looked up elsewhere.
        let path = dir.join(script).canonicalize().with_context(|| {
            format!("there is no {}; render the bundle again with `ferry bundle`", dir.join(script).display())
        })?;
        let mut command = Command::new(path);
        if dry_run {
            command.arg("--dry-run");
        }
        let status = command.kill_on_drop(true).status().await.with_context(|| format!("cannot run {script}"))?;
        if !status.success() {
            bail!("{script} failed ({status}); it can be run again, and goes on where it was");
        }
    }
    Ok(())
}

/// A result of `/output`, as far as it is shown here.
#[derive(Deserialize)]
struct Arrived {
    id: String,
    trail: Vec<Stop>,
}

#[derive(Deserialize)]
struct Stop {
    pod: String,
    cluster: String,
}

/// Waits until the messages of the auto-trigger have arrived, and shows the way of each.
async fn await_proof(proof: &Proof, wait: Duration) -> anyhow::Result<()> {
    let wanted = u64::from(proof.messages);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(wanted) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} messages have arrived, {elapsed}") {
        bar.set_style(style);
    }
    let deadline = Instant::now() + wait;
    let arrived = loop {
        let (arrived, why) = match kubectl(&proof.output).await {
            Ok(output) => (through(proof, &output), String::new()),
            Err(error) => (Vec::new(), format!("; last error: {}", chain(&error))),
        };
        bar.set_position(wanted.min(arrived.len() as u64));
        if arrived.len() as u64 >= wanted {
            break arrived;
        }
        if Instant::now() >= deadline {
            bar.abandon();
            bail!(
                "{} of {wanted} messages have arrived within {} s{why}; README.md in the bundle says where to look",
                arrived.len(),
                wait.as_secs()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    // The newest, should there be more from an earlier run.
    for message in &arrived[arrived.len() - usize::try_from(wanted).unwrap_or(arrived.len())..] {
        let stops: Vec<_> = message.trail.iter().map(|stop| format!("{} ({})", stop.pod, stop.cluster)).collect();
        println!("{} {} {}", "✓".green(), message.id, stops.join(" → "));
    }
    eprintln!("{wanted} of {wanted} messages have arrived, with both pods in the trail of each");
    Ok(())
}

/// The messages in `output` that have been in both pods.
fn through(proof: &Proof, output: &str) -> Vec<Arrived> {
    let messages = output.lines().filter_map(|line| serde_json::from_str::<Arrived>(line).ok());
    let clusters = |message: &Arrived| message.trail.iter().map(|stop| stop.cluster.clone()).collect::<Vec<_>>();
    messages.filter(|message| clusters(message) == proof.trail).collect()
}

/// Deploys again whenever the address has moved, until interrupted.
async fn watch(dir: &Path, steps: &Steps, watched: &Watched) -> anyhow::Result<()> {
    let mut known = kubectl(&watched.query).await?;
    eprintln!("watching the address of {}: {}; stop with ctrl-c", watched.pod, known.trim());
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        match kubectl(&watched.query).await {
            Ok(now) if now.trim().is_empty() || now == known => {}
            Ok(now) => {
                eprintln!("{} has moved to {}", watched.pod, now.trim());
                match run_scripts(dir, steps, false).await {
                    Ok(()) => known = now,
                    Err(error) => eprintln!("{} {}; trying again", "warning:".yellow().bold(), chain(&error)),
                }
            }
            Err(error) => eprintln!("{} {}; trying again", "warning:".yellow().bold(), chain(&error)),
        }
    }
}

/// What kubectl prints.
async fn kubectl(arguments: &[String]) -> anyhow::Result<String> {
    let output = Command::new("kubectl").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.context("cannot run kubectl; is it installed?")?;
    if !output.status.success() {
        bail!("kubectl: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("kubectl printed something that is not text")
}

#[cfg(test)]
mod tests {
    use super::{Proof, through};

    #[test]
    fn only_messages_that_were_in_both_pods_count() {
        let proof = Proof { output: Vec::new(), messages: 1, trail: ["a".into(), "b".into()] };
        let output = r#"{"id": "1", "payload": {}, "trail": [{"pod": "i", "cluster": "a"}, {"pod": "t", "cluster": "b"}]}
{"id": "2", "payload": {}, "trail": [{"pod": "t", "cluster": "b"}]}
not json"#;
        let ids: Vec<_> = through(&proof, output).into_iter().map(|message| message.id).collect();
        assert_eq!(ids, ["1"]);
    }
}
