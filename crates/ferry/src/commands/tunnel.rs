//! `ferry tunnel`: the sidecar.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use anyhow::Context as _;
use owo_colors::OwoColorize as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::exports::Exports;
use crate::logging;
use crate::process::{self, Stop};
use ferry_config::{Keeper, Loaded};
use ferry_tunnel::Tunnel;

const EXAMPLES: &str = "\
Examples:
  ferry tunnel --config tunnel.yaml
  ferry tunnel --config tunnel.yaml --check
  kill -USR1 PID                           give every session fresh keys now
  kill -USR2 PID                           start the program that is on the disk now; sessions continue
  kill -HUP PID                            read the file again now; it is also read whenever it changes

A tunnel.yaml that lets apps here reach the service `db` of a peer:
  name: here
  identity: here.key                       # ferry keygen --out here.key
  peers:
    - {name: there, keys: [\"ferry:pub:…\"], addresses: [\"there.example.com:30200\"]}
  egress:
    - {listen: \"127.0.0.1:5432\", peer: there, service: db}

Logs go to standard output; FERRY_LOG=debug says more, FERRY_LOG_FORMAT=json is for machines.";

/// Run the tunnel: carry connections to and from the peers that a tunnel.yaml names.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The tunnel.yaml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Report every problem in the file and exit: 0 if there is none, 78 otherwise.
    #[arg(long)]
    check: bool,
    /// On SIGTERM, leave what is open after `drain` to the keeper and the next process, instead of resetting it.
    #[arg(long)]
    leave_sessions: bool,
}

/// Runs the tunnel until it is asked to stop, with this process as its keeper where it has no other.
pub(crate) fn execute(args: Args) -> ExitCode {
    // Handshakes let messages go first: the threads to come have it from this one, but for the workers. Without it they
    // work the same.
    let _ = ferry_slice::set(ferry_slice::LONG);
    #[cfg(target_os = "linux")]
    let unkept = if args.check { None } else { super::keeper::keep_tunnel(&args.config) };
    #[cfg(not(target_os = "linux"))]
    let unkept = None;
    crate::execute(run(args, unkept))
}

/// Runs the tunnel in this process. `unkept` is why it was given no keeper.
pub(crate) async fn run(args: Args, unkept: Option<String>) -> anyhow::Result<()> {
    let loaded = ferry_config::load(&args.config)?;
    if args.check {
        return check(&args.config, &loaded);
    }
    serve(args, loaded, unkept).await
}

fn check(path: &Path, loaded: &Loaded) -> anyhow::Result<()> {
    for warning in &loaded.warnings {
        eprintln!("{} {}: {warning}", "warning:".yellow().bold(), path.display());
    }
    let tunnel = &loaded.tunnel;
    let (peers, egress, ingress) = (tunnel.peers.len(), tunnel.egress.len(), tunnel.ingress.len());
    writeln!(
        io::stdout(),
        "{} is fine: {} with {peers} peer{}, {egress} egress, {ingress} ingress",
        path.display(),
        tunnel.name,
        if peers == 1 { "" } else { "s" },
    )?;
    Ok(())
}

async fn serve(
    Args { config: path, leave_sessions, .. }: Args,
    Loaded { tunnel: config, warnings }: Loaded,
    unkept: Option<String>,
) -> anyhow::Result<()> {
    let last_lines = logging::start()?;
    process::raise_file_limit();
    process::refuse_huge_pages();
    for warning in &warnings {
        warn!("tunnel.yaml: {warning}");
    }
    if let Some(reason) = unkept {
        warn!("sessions end with this process: {reason}");
    }
    let mut stop = Stop::listen()?;
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut rotate, mut read_again) = (listen(SignalKind::user_defined1())?, listen(SignalKind::hangup())?);
    let (name, key) = (config.name.clone(), config.identity.public_key());
    let keeper = match config.keeper.clone() {
        Some(Keeper::At(path)) => Some(path),
        Some(Keeper::Off) => None,
        None => {
            let by = std::env::var_os(ferry_keeper::KEEPER_VARIABLE);
            by.filter(|by| !by.is_empty() && by != Keeper::OFF).map(PathBuf::from)
        }
    };
    let mut exports = Exports::start("ferry-tunnel", &[("ferry.name", name.as_str())]);
    let mut tunnel = Tunnel::start_kept(config, keeper).await?;
    exports.add_metrics(tunnel.metrics());
    let addresses = tunnel.addresses();
    // `demo::log::Ready` reads these fields.
    info!(
        %name,
        %key,
        listen = addresses.listen.map(tracing::field::display),
        listen_quic = addresses.listen_quic.map(tracing::field::display),
        listen_ws = addresses.listen_ws.map(tracing::field::display),
        admin = addresses.admin.map(tracing::field::display),
        egress = (!addresses.egress.is_empty()).then(|| joined(&addresses.egress)),
        version = ferry_tunnel::VERSION,
        "{}", process::READY,
    );
    tunnel.follow(path);
    loop {
        tokio::select! {
            () = stop.asked() => break,
            error = tunnel.failed() => return Err(error.into()),
            _ = rotate.recv() => tunnel.rotate_all(),
            _ = read_again.recv() => tunnel.read_again(),
        }
    }
    #[cfg(target_os = "linux")]
    if leave_sessions && tunnel.is_kept() {
        stop.drained(tunnel.leave()).await?;
        exports.finish().await;
        drop(last_lines);
        ferry_keeper::exit_at_once(0);
    }
    let drained = stop.drained(tunnel.drain()).await;
    exports.finish().await;
    drained
}

fn joined(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}
