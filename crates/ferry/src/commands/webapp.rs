//! What `ferry initiator` and `ferry terminator` share.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use anyhow::Context as _;
use ferry_app::{Config, PassThrough, Role, StartError, Webapp};
use tracing::info;

use crate::{
    exit::Usage,
    logging,
    process::{self, READY, Stop},
};

/// How long messages and requests that are under way have on SIGTERM; well within the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(10);

/// Flags of both web-apps.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Where to listen for HTTP.
    #[arg(long, value_name = "ADDRESS", env = "FERRY_LISTEN", default_value = "0.0.0.0:8000")]
    listen: SocketAddr,
    /// This pod's name, as trails show it [default: the host's name].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod: Option<String>,
    /// This cluster's name, as trails show it.
    #[arg(long, value_name = "NAME", env = "CLUSTER_NAME", default_value = "local")]
    cluster: String,
    /// How many of the messages that have arrived to keep for /output.
    #[arg(long, value_name = "MESSAGES", env = "FERRY_OUTPUT_MAX", default_value = "10000")]
    output_max: NonZeroUsize,
}

/// Runs a web-app until it is asked to stop.
pub(super) async fn run(shared: Shared, role: Role, auto_trigger: u32) -> anyhow::Result<()> {
    logging::start()?;
    process::raise_file_limit();
    let mut stop = Stop::listen()?;
    let config = Config {
        role,
        listen: shared.listen,
        pod: shared.pod.unwrap_or_else(host_name),
        cluster: shared.cluster,
        auto_trigger,
        output_max: shared.output_max.get(),
    };
    let (pod, cluster) = (config.pod.clone(), config.cluster.clone());
    let mut webapp = Webapp::start(config, Arc::new(PassThrough)).map_err(explained)?;
    // `demo::log::Ready` reads these fields.
    info!(%pod, %cluster, listen = %webapp.local_addr(), version = env!("CARGO_PKG_VERSION"), "{READY}");
    tokio::select! {
        () = stop.asked() => {}
        stopped = webapp.stopped() => return stopped.context("the web-app stopped by itself"),
    }
    stop.drained(webapp.drain(DRAIN)).await
}

/// What is wrong with a flag is an error of usage, what is wrong with the machine is not.
fn explained(error: StartError) -> anyhow::Error {
    match error {
        StartError::Peer { .. } | StartError::Name(_) | StartError::OutputMax => Usage(error.to_string()).into(),
        StartError::Listen { .. } | StartError::Random(_) => error.into(),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
