//! `ferry inject`: a tunnel beside an application that is there already.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anstream::eprintln;
use anyhow::{Context as _, bail};
use owo_colors::OwoColorize as _;

use ferry_bundle::{Injection, secret_name};
use ferry_config::{Report, ValueError};

const EXAMPLES: &str = "\
Examples:
  ferry inject -f shop.yaml --config tunnel.yaml --image registry.example.com/ferry:0.1.0 | kubectl apply -f -
  kubectl get deploy shop -o yaml | ferry inject -f - --config tunnel.yaml --image ferry:0.1.0 > shop.yaml
  ferry inject -f shop.yaml --remove | kubectl apply -f -
  kubectl create secret generic shop-tunnel-identity --from-file=identity.key=shop.key

The pod of the workload gets two sidecars, the tunnel and its keeper, and the manifest a ConfigMap with the tunnel.yaml, in
which only the paths are the pod's. The identity is in a Secret, which is yours to make, or printed with --with-secret. What
is not Ferry's stays as it is written. To inject again renews what was put in.";

/// Add a tunnel to the pod of a Deployment or the like, or take it out again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The manifest; `-` is standard input. What comes of it is printed.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The tunnel.yaml. The identity that it names is read, too.
    #[arg(long, value_name = "FILE", required_unless_present = "remove")]
    config: Option<PathBuf>,
    /// The image with ferry in it.
    #[arg(long, value_name = "IMAGE", required_unless_present = "remove")]
    image: Option<String>,
    /// Which workload of the manifest, if it has several: NAME, or KIND/NAME.
    #[arg(long, value_name = "WORKLOAD")]
    workload: Option<String>,
    /// Print the Secret with the identity, too: a private key, so not to a terminal.
    #[arg(long)]
    with_secret: bool,
    /// Take out what was put in: of one workload, or of all.
    #[arg(long, conflicts_with_all = ["config", "image", "with_secret"])]
    remove: bool,
}

/// Prints the manifest, with a tunnel or without.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let named = args.workload.as_deref();
    let (Some(config), Some(image)) = (&args.config, &args.image) else {
        let (source, text) = read(&args.file)?;
        let (text, count) = ferry_bundle::remove(&source, &text, named)?;
        io::stdout().write_all(text.as_bytes())?;
        if count == 0 {
            eprintln!("{source}: no tunnel in it that `ferry inject` has put there; it is printed as it is");
        }
        return Ok(());
    };
    if args.with_secret && io::stdout().is_terminal() {
        bail!("a private key is not printed to a terminal; pass the output on: `… --with-secret | kubectl apply -f -`");
    }
    let loaded = ferry_config::load(config)?;
    let (source, text) = read(&args.file)?;
    let injection = Injection {
        tunnel: &loaded.tunnel,
        config: &config.display().to_string(),
        image,
        with_secret: args.with_secret,
    };
    let injected = ferry_bundle::inject(&source, &text, named, &injection)?;
    let warnings = loaded.warnings.iter().map(|warning| format!("{}: {warning}", injection.config));
    for warning in warnings.chain(injected.warnings) {
        eprintln!("{} {warning}", "warning:".yellow().bold());
    }
    io::stdout().write_all(injected.text.as_bytes())?;
    if !args.with_secret {
        let secret = secret_name(&injected.workload.1);
        eprintln!(
            "its pod waits for the Secret `{secret}`, with the identity as `identity.key` in it; see --with-secret"
        );
    }
    Ok(())
}

/// The text of a manifest, and what it is called in messages.
fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let is_stdin = path.as_os_str() == "-";
    let source = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let result = match is_stdin {
        true => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        false => fs::read(path).map(|read| bytes = read),
    };
    result.with_context(|| format!("cannot read {source}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Report::of_document(&source, ValueError::new("the file is not text in UTF-8", "")))?;
    Ok((source, text))
}
