//! A tunnel's admin endpoint in a cluster, reached by `kubectl port-forward` for as long as this is held.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long kubectl may take until it forwards.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a tunnel runs in Kubernetes.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Ask the tunnel in this pod through kubectl: a name, or deploy/NAME.
    #[arg(long, value_name = "POD")]
    pub(crate) pod: Option<String>,
    /// The pod's namespace.
    #[arg(long, value_name = "NAME", requires = "pod")]
    namespace: Option<String>,
    /// The kubectl context of its cluster.
    #[arg(long, value_name = "NAME", requires = "pod")]
    context: Option<String>,
    /// The port of `admin` in the pod.
    #[arg(long, value_name = "PORT", default_value_t = 9900, requires = "pod")]
    admin_port: u16,
}

/// A port on this machine that leads to the pod's.
pub(crate) struct PortForward {
    pub(crate) port: u16,
    _kubectl: Child,
}

impl PortForward {
    /// Starts kubectl, and waits until it forwards.
    pub(crate) async fn start(pod: &str, place: &Place) -> anyhow::Result<Self> {
        let mut command = Command::new("kubectl");
        for (flag, value) in [("--context", &place.context), ("--namespace", &place.namespace)] {
            command.args(value.iter().flat_map(|value| [flag, value.as_str()]));
        }
        // After `--`, what begins with a dash is a name.
        command.args(["port-forward", "--address", "127.0.0.1", "--", pod, &format!(":{}", place.admin_port)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut kubectl = command.spawn().context("cannot run kubectl; is it installed, and in PATH?")?;
        let (stdout, stderr) = (kubectl.stdout.take(), kubectl.stderr.take());
        let mut lines = BufReader::new(stdout.context("kubectl has no output")?).lines();
        match timeout(START_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                let port = forwarded(&line).with_context(|| format!("kubectl said {}", Foreign(&line)))?;
                Ok(Self { port, _kubectl: kubectl })
            }
            Ok(_) => {
                let mut why = String::new();
                if let Some(mut stderr) = stderr {
                    // What could be read is enough.
                    let _ = stderr.read_to_string(&mut why).await;
                }
                bail!("kubectl cannot forward to {pod}: {}", Foreign(why.trim()))
            }
            Err(_) => bail!("kubectl does not forward to {pod} within {START_TIMEOUT:?}; is the cluster reachable?"),
        }
    }
}

/// The local port in `Forwarding from 127.0.0.1:40123 -> 9900`.
fn forwarded(line: &str) -> Option<u16> {
    let (from, _) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    from.rsplit_once(':')?.1.parse().ok()
}
