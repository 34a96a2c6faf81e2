//! `ferry deploy DIR`: both clusters in one command, by the bundle's own scripts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize as _;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use super::bundle;
use crate::admin::{Endpoint, Place};
use crate::exit::chain;
use crate::kubectl::{CALL_TIMEOUT, call, call_within};
use ferry_bundle::{LinkProof, Proof, Steps, Watched};

/// Between two looks at an address.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// How long a gateway may take to say whether it reaches its peers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two questions to a gateway.
const RETRY_DELAY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  ferry deploy ferry-bundle
  ferry deploy ferry-bundle --build push   build the images first, and push them to their registry
  ferry deploy ferry-bundle --dry-run      the commands that it would run; needs no cluster
  ferry deploy ferry-bundle --watch        stay, and pass a moved address on

Runs the scripts in DIR, which take the contexts of kubectl from the blueprint; then sends a message of its own from the
initiator to the terminator, and asks each gateway whether it reaches its peers. The exit code is 0 only if that message
was delivered and every gateway does.";

/// Deploy a bundle to its clusters, and show that messages go through and that gateways reach each other.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The bundle, as `ferry bundle` wrote it.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Build the images before, and push them or import them into k3d.
    #[arg(long, value_name = "HOW")]
    build: Option<Build>,
    /// Show the commands, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Stay, and pass the address of the load balancer on whenever it has moved. Nothing else is applied again.
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    /// How long to wait until the message is delivered, and until the gateways have met, such as 30s or 5m.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::duration)]
    wait: Duration,
    /// The message: a JSON object that the hooks of both pods accept.
    #[arg(long, value_name = "JSON", default_value = r#"{"sent_by": "ferry deploy"}"#)]
    message: String,
}

/// Where built images go.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Build {
    /// Into the k3d clusters.
    K3d,
    /// To the registry in their names.
    Push,
}

/// Deploys, sends the message, and watches.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (blueprint, _) = bundle::read(&args.dir.join("blueprint.yaml"))?;
    let steps = blueprint.steps();
    let dry_run = args.dry_run.then_some("--dry-run");
    if let Some(build) = args.build {
        let how = match build {
            Build::K3d => "--k3d",
            Build::Push => "--push",
        };
        run_script(&args.dir, "build-images.sh", &[Some(how), dry_run]).await?;
    }
    run_scripts(&args.dir, &steps, dry_run).await?;
    if args.dry_run {
        return Ok(());
    }
    if let Some(proof) = &steps.proof {
        prove(proof, &args.message, args.wait).await?;
    }
    let deadline = Instant::now() + args.wait;
    for link in &steps.links {
        prove_link(link, deadline).await?;
    }
    match steps.addresses.is_empty() {
        false if args.watch => watch(&args.dir, &steps).await,
        true if args.watch => {
            eprintln!("nothing to watch: the blueprint itself says how the pods are reached");
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn run_scripts(dir: &Path, steps: &Steps, flag: Option<&str>) -> anyhow::Result<()> {
    for (i, script) in steps.scripts.iter().enumerate() {
        eprintln!("{} {script}", format!("[{}/{}]", i + 1, steps.scripts.len()).bold());
        run_script(dir, script, &[flag]).await?;
    }
    Ok(())
}

async fn run_script(dir: &Path, script: &str, flags: &[Option<&str>]) -> anyhow::Result<()> {
    // By its absolute path: a bare name would be looked up elsewhere.
    let path = dir.join(script).canonicalize().with_context(|| {
        format!("there is no {}; render the bundle again with `ferry bundle`", dir.join(script).display())
    })?;
    let mut command = Command::new(path);
    command.args(flags.iter().flatten()).kill_on_drop(true);
    // With this one a bundle that has no keys yet gets some, whether it is on PATH or not.
    if let Ok(program) = std::env::current_exe() {
        command.env("FERRY_PROGRAM", program);
    }
    let status = command.status().await.with_context(|| format!("cannot run {script}"))?;
    if !status.success() {
        bail!("{script} failed ({status}); it is safe to run again and continues where it stopped");
    }
    Ok(())
}

/// What `ferry send` prints of a message that was delivered.
#[derive(Deserialize)]
struct Delivered {
    id: String,
    delivered: bool,
}

/// Sends a message of its own by the initiator, and waits until the terminator has it. What arrived in earlier runs
/// proves nothing of this one.
async fn prove(proof: &Proof, message: &str, wait: Duration) -> anyhow::Result<()> {
    let ([from, near], [to, far]) = (&proof.from, &proof.to);
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        spinner.set_style(style);
    }
    spinner.set_message(format!("a message is on its way from {from} to {to}"));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut send = proof.send.clone();
    send.extend(["--message".into(), message.into(), "--wait".into(), ferry_units::render_duration(wait)]);
    // It has to reach the pod, besides, and to come back.
    let sent = call_within(&send, wait + CALL_TIMEOUT).await;
    spinner.finish_and_clear();
    let answer = match sent {
        Ok(answer) => answer,
        Err(failure) => return Err(undelivered(proof, &failure.into()).await),
    };
    match serde_json::from_str(answer.trim()) {
        Ok(Delivered { id, delivered: true }) => {
            println!("{} {id} {from} ({near}) → {to} ({far})", "✓".green());
            eprintln!("a message of this run was delivered; the pods talk to each other");
            Ok(())
        }
        _ => Err(undelivered(proof, &anyhow::anyhow!("the initiator answered {:?}", answer.trim())).await),
    }
}

/// Why the message was not delivered, with the last that the near tunnel said.
async fn undelivered(proof: &Proof, why: &anyhow::Error) -> anyhow::Error {
    let ([from, _], [to, _]) = (&proof.from, &proof.to);
    let tunnel = match call(&proof.status).await {
        Ok(line) if !line.trim().is_empty() => format!("\n  the tunnel of {from} says: {}", Foreign(line.trim())),
        _ => String::new(),
    };
    anyhow::anyhow!(
        "the message from {from} to {to} was not delivered: {}{tunnel}\n  README.md in the bundle says where to look; \
         if a hook refuses the message, give one that it accepts with --message",
        chain(why)
    )
}

/// Waits until a gateway says that it reaches the peers that it leads to.
async fn prove_link(link: &LinkProof, deadline: Instant) -> anyhow::Result<()> {
    let [gateway, cluster] = &link.gateway;
    let mut last = anyhow::anyhow!("it was not asked");
    loop {
        match timeout_at(deadline, ask_gateway(link)).await {
            Ok(Ok(())) => {
                println!("{} {gateway} ({cluster}) reaches {}", "✓".green(), link.services.join(", "));
                return Ok(());
            }
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() + RETRY_DELAY >= deadline {
            bail!(
                "{gateway} ({cluster}) does not reach its peers: {}\n  README.md in the bundle says where to look",
                chain(&last)
            );
        }
        sleep(RETRY_DELAY).await;
    }
}

/// Asks a gateway once, through a port that kubectl forwards: its image has no program to ask with.
async fn ask_gateway(link: &LinkProof) -> anyhow::Result<()> {
    let place = Place::of(&link.pod, &link.namespace, &link.context);
    Endpoint::in_pod(place).await?.reaches_peers(ANSWER_TIMEOUT).await
}

/// Passes addresses on whenever one of them has moved, until interrupted.
async fn watch(dir: &Path, steps: &Steps) -> anyhow::Result<()> {
    let mut known = Vec::new();
    for Watched { query, pod } in &steps.addresses {
        let address = call(query).await?;
        eprintln!("watching the address of {pod}: {}; stop with ctrl-c", Foreign(address.trim()));
        known.push(address);
    }
    let complain = |error| eprintln!("{} {}; trying again", "warning:".yellow().bold(), chain(&error));
    loop {
        sleep(WATCH_INTERVAL).await;
        for (known, Watched { query, pod }) in known.iter_mut().zip(&steps.addresses) {
            match call(query).await {
                Ok(now) if now.trim().is_empty() || now == *known => {}
                Ok(now) => {
                    eprintln!("{pod} has moved to {}", Foreign(now.trim()));
                    match run_scripts(dir, steps, Some("--addresses")).await {
                        Ok(()) => *known = now,
                        Err(error) => complain(error),
                    }
                }
                Err(failure) => complain(failure.into()),
            }
        }
    }
}
