//! The demo: the whole topology on this machine, run, shown and checked.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::acts::{ACTS, Stage};
use crate::check::{Findings, ensure};
use crate::outputs::Outputs;
use crate::screen::Screen;
use crate::supervisor::Supervisor;
use crate::topology::{AUTO_TRIGGER, Topology};
use crate::traffic::Traffic;
use crate::tunnels::Tunnels;
use crate::{by_hand, show};

/// What everything up to the last check may take, beside the streaming itself. With that and the end it is 70 s: the
/// demo must never hang.
const PLAY_MAX: Duration = Duration::from_secs(50);
/// How long the processes may take to end by themselves, after a success and after a failure.
const PATIENCE: Duration = Duration::from_secs(15);
const LITTLE_PATIENCE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  cargo run --release -- demo                    run it, show it, check it; exit code 0 only if all of it held
  cargo run --release -- demo --seconds 20       stream for longer
  cargo run --release -- demo --keep             leave everything up and print what to try with curl";

/// Run two clusters with a tunnel between them on this machine, stream through it, and check what arrives.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Leave everything up afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// How long to stream telemetry in both directions.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=900))]
    seconds: u16,
}

/// Runs the demo. Its processes end and its directories go on every way out of it.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut interrupted = Interrupted::listen()?;
    let screen = Screen::new()?;
    let mut supervisor = Supervisor::new(screen.clone())?;
    let mut findings = Findings::new(screen.clone());
    let played = {
        let early_end = supervisor.early_end();
        tokio::select! {
            error = early_end => Err(error),
            () = interrupted.wait() => Err(anyhow::anyhow!("interrupted")),
            played = play_in_time(&args, &screen, &mut supervisor, &mut findings) => played,
        }
    };
    screen.end_act();
    let kept = match &played {
        Ok(topology) if args.keep => {
            show::invitation(&screen, topology);
            screen.rest("everything stays up until Ctrl-C");
            tokio::select! {
                error = supervisor.early_end() => Err(error),
                () = interrupted.wait() => Ok(()),
                error = by_hand::play(&screen, topology) => Err(error),
            }
        }
        _ => Ok(()),
    };
    screen.act("The end");
    let fine = played.is_ok() && kept.is_ok();
    if fine {
        // How four processes drain is not what the demo is about.
        screen.hush();
    }
    let patience = if fine { PATIENCE } else { LITTLE_PATIENCE };
    let ended = supervisor.end(patience).await;
    screen.finish();
    screen.flush();
    played?;
    kept?;
    findings.note("every process ended in good order", ended);
    findings.conclude();
    let verdict = findings.verdict();
    screen.flush();
    verdict
}

async fn play_in_time(
    args: &Args,
    screen: &Screen,
    supervisor: &mut Supervisor,
    findings: &mut Findings,
) -> anyhow::Result<Topology> {
    let undisturbed = Duration::from_secs(args.seconds.into());
    let limit = PLAY_MAX + undisturbed;
    match timeout(limit, play(undisturbed, screen, supervisor, findings)).await {
        Ok(played) => played,
        Err(_) => bail!("given up after {limit:?}, at “{}”; the lines above say how far it came", screen.title()),
    }
}

/// The demo from its first process to its last check.
async fn play(
    undisturbed: Duration,
    screen: &Screen,
    supervisor: &mut Supervisor,
    findings: &mut Findings,
) -> anyhow::Result<Topology> {
    show::opening(screen);
    screen.act("Both clusters come up, and the auto-trigger sends its messages");
    let mut topology = Topology::raise(supervisor).await.context("the topology did not come up")?;
    let said = topology.initiator_web_app.milestones(2).await?;
    findings.note("the auto-trigger's messages were delivered", auto_triggered(&said));

    let traffic = Traffic::begin(&topology).await?;
    let mut stage = Stage { screen, topology: &topology, traffic: &traffic, undisturbed, survival: None };
    for act in ACTS {
        screen.act(act.title);
        (act.play)(&mut stage).await?;
    }
    let survival = stage.survival;
    let account = traffic.settle().await?;

    screen.act("What arrived");
    let outputs = Outputs::read(&topology).await?;
    let tunnels = Tunnels::read(&topology).await?;
    show::results(screen, &outputs, &topology);
    screen.act("Summary");
    show::summary(screen, &topology, &account, &outputs, &tunnels);
    screen.act("Checks");
    outputs.check(&topology, &account, findings);
    tunnels.check(&outputs, findings);
    if let Some(survival) = survival {
        survival.check(findings);
    }
    Ok(topology)
}

/// Whether the initiator said exactly what it says when all is well.
fn auto_triggered(said: &[String]) -> Result<(), String> {
    let expected = [
        format!("🔁 Auto-trigger starting — sending {AUTO_TRIGGER} messages"),
        format!("🔁 Auto-trigger complete — {AUTO_TRIGGER}/{AUTO_TRIGGER} messages sent."),
    ];
    ensure(said == expected, || format!("the initiator's web-app said {said:?}"))
}

/// What ends the demo from outside.
struct Interrupted([tokio::signal::unix::Signal; 3]);

impl Interrupted {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Self([interrupt, terminate, listen(SignalKind::hangup())?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
