//! What `ferry initiator` and `ferry terminator` share.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anstream::println;
use anyhow::Context as _;
use tracing::{info, warn};

use crate::exit::{BadConfiguration, Usage};
use crate::exports::Exports;
use crate::logging;
use crate::process::{self, READY, Stop};
use ferry_app::{
    Access, Config, Hooks, Hosts, PassThrough, PythonConfig, PythonError, PythonHooks, Role, StartError, Token, Webapp,
};

/// How long messages and requests that are under way have on SIGTERM; well within the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(10);

/// Flags of both web-apps.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Where to listen for HTTP. Use a --token-file if this is not a loopback address.
    #[arg(long, value_name = "ADDRESS", env = "FERRY_LISTEN", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Another name or address that clients without a token may use for this web-app, in addition to localhost and its
    /// own address; repeat it, or separate names with commas [default: none].
    #[arg(long = "host", value_name = "NAME", env = "FERRY_HOSTS", value_delimiter = ',')]
    hosts: Vec<String>,
    /// This pod's name, as trails show it [default: the host's name].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod: Option<String>,
    /// This cluster's name, as trails show it.
    #[arg(long, value_name = "NAME", env = "CLUSTER_NAME", default_value = "local")]
    cluster: String,
    /// The directory of everything that outlives the process; made if it is not there. One web-app only can use it.
    #[arg(long, value_name = "DIR", env = "FERRY_DATA", default_value = "ferry-data")]
    data: PathBuf,
    /// A Python file with any of on_trigger, on_receive_terminator, on_receive_initiator; needs python3 [default: none].
    #[arg(long, value_name = "FILE", env = "FERRY_HOOKS")]
    hooks: Option<PathBuf>,
    /// Load the hooks, report what is wrong with them and exit: 0 if nothing is, 78 otherwise.
    #[arg(long, requires = "hooks")]
    check: bool,
    /// How many Python processes run the hooks.
    #[arg(long, value_name = "PROCESSES", env = "FERRY_HOOK_WORKERS", default_value = "1")]
    hook_workers: NonZeroUsize,
    /// The longest that a call of a hook may take, such as 500ms or 30s.
    #[arg(long, value_name = "TIME", env = "FERRY_HOOK_TIMEOUT", default_value = "30s")]
    hook_timeout: HookTimeout,
    /// How many of the messages that have arrived to keep for /output.
    #[arg(long, value_name = "MESSAGES", env = "FERRY_OUTPUT_MAX", default_value = "10000")]
    output_max: NonZeroUsize,
    /// A file with the token that clients have to send as `Authorization: Bearer …` [default: none is asked for].
    #[arg(long, value_name = "FILE", env = "FERRY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Do not warn that other machines can reach this web-app without a token: something else keeps them out.
    #[arg(long, env = "FERRY_NO_TOKEN")]
    no_token: bool,
    /// User id of the tunnel on this machine, which alone may use /ws [default: the user of this process].
    #[arg(long, value_name = "UID", env = "FERRY_TUNNEL_USER")]
    tunnel_user: Option<u32>,
}

/// A time above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HookTimeout(Duration);

impl From<HookTimeout> for Duration {
    fn from(timeout: HookTimeout) -> Self {
        timeout.0
    }
}

impl std::str::FromStr for HookTimeout {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match super::duration(text)? {
            Duration::ZERO => Err("it must be more than nothing"),
            time => Ok(Self(time)),
        }
    }
}

/// Runs a web-app until it is asked to stop.
pub(super) async fn run(
    shared: Shared,
    role: Role,
    auto_trigger: u32,
    peer_token: Option<Token>,
) -> anyhow::Result<()> {
    if let Some(file) = shared.hooks.as_ref().filter(|_| shared.check) {
        return check(file).await;
    }
    let _last_lines = logging::start()?;
    process::raise_file_limit();
    let mut stop = Stop::listen()?;
    let access = Access {
        token: shared.token_file.as_deref().map(token).transpose()?,
        hosts: Hosts::new(shared.hosts).map_err(|error| Usage(format!("--host: {error}")))?,
        tunnel_user: shared.tunnel_user,
        peer_token,
    };
    if !shared.listen.ip().is_loopback() && access.token.is_none() && !shared.no_token {
        warn!(
            listen = %shared.listen,
            "anybody who can reach this address can send and read messages: use --token-file, listen on 127.0.0.1, or give \
             --no-token if something else keeps others out",
        );
    }
    let is_initiator = matches!(role, Role::Initiator { .. });
    let config = Config {
        role,
        listen: shared.listen,
        pod: shared.pod.unwrap_or_else(host_name),
        cluster: shared.cluster,
        auto_trigger,
        output_max: shared.output_max.get(),
        data: shared.data,
        access,
    };
    let (pod, cluster) = (config.pod.clone(), config.cluster.clone());
    let hooks: Arc<dyn Hooks> = match shared.hooks {
        Some(file) => {
            let python = PythonConfig { file, workers: shared.hook_workers, timeout: shared.hook_timeout.into() };
            Arc::new(PythonHooks::start(python).await?)
        }
        None => Arc::new(PassThrough),
    };
    let service = if is_initiator { "ferry-initiator" } else { "ferry-terminator" };
    let mut exports = Exports::start(service, &[("ferry.pod", &pod), ("ferry.cluster", &cluster)]);
    let mut webapp = Webapp::start(config, hooks).map_err(explained)?;
    exports.add_metrics(webapp.metrics());
    // `demo::log::Ready` reads these fields.
    info!(%pod, %cluster, listen = %webapp.local_addr(), version = env!("CARGO_PKG_VERSION"), "{READY}");
    tokio::select! {
        () = stop.asked() => {}
        stopped = webapp.stopped() => return stopped.context("the web-app stopped by itself"),
    }
    let drained = stop.drained(webapp.drain(DRAIN)).await;
    exports.finish().await;
    drained
}

/// Loads the hooks as a web-app would, and does no more.
async fn check(file: &Path) -> anyhow::Result<()> {
    let timeout = Duration::from_secs(30);
    let python = PythonConfig { file: file.into(), workers: NonZeroUsize::MIN, timeout };
    match PythonHooks::start(python).await {
        Ok(_) => println!("{}: no problems", file.display()),
        Err(error @ PythonError::NoPython(_)) => return Err(error.into()),
        Err(error) => return Err(BadConfiguration(error.to_string()).into()),
    }
    Ok(())
}

/// What is wrong with a flag is an error of usage, what is wrong with the machine is not.
fn explained(error: StartError) -> anyhow::Error {
    match error {
        StartError::Peer { .. } | StartError::Name(_) | StartError::OutputMax => Usage(error.to_string()).into(),
        StartError::Listen { .. } | StartError::Store(_) => error.into(),
    }
}

pub(super) fn token(file: &Path) -> anyhow::Result<Token> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the token file {}", file.display()))?;
    Ok(Token::new(&text).map_err(|error| Usage(format!("{}: {error}", file.display())))?)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_timeout_is_a_time_with_a_unit_or_seconds() {
        let parse = |text: &str| text.parse::<HookTimeout>().map(Duration::from);
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("7"), Ok(Duration::from_secs(7)));
        assert!(parse("0s").is_err() && parse("soon").is_err() && parse("").is_err());
    }

    #[test]
    fn by_default_a_web_app_listens_on_loopback() {
        use clap::Args as _;
        let command = Shared::augment_args(clap::Command::new("ferry"));
        let listen = command.get_arguments().find(|argument| argument.get_id() == "listen").unwrap();
        assert_eq!(listen.get_default_values(), ["127.0.0.1:8000"]);
    }
}
