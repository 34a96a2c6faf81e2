//! A tunnel's admin endpoint in a cluster, reached by `kubectl port-forward` for as long as this is held.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::kubectl::{MISSING, command};

/// How long kubectl may take until it forwards.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Where a tunnel of a bundle has its admin endpoint.
const DEFAULT_PORT: u16 = 9900;
/// Most of what kubectl says when it fails.
const MAX_COMPLAINT: u64 = 4096;

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
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT, requires = "pod")]
    pub(super) admin_port: u16,
}

impl Place {
    /// The tunnel in a pod of a bundle.
    pub(crate) fn of(pod: &str, namespace: &str, context: &str) -> Self {
        let [pod, namespace, context] = [pod, namespace, context].map(|name| Some(name.to_owned()));
        Self { pod, namespace, context, admin_port: DEFAULT_PORT }
    }
}

/// A port on this machine that leads to the pod's. kubectl ends with it.
pub(crate) struct PortForward {
    port: u16,
    complaint: Arc<Mutex<Option<String>>>,
    _kubectl: Child,
}

impl PortForward {
    /// Starts kubectl, and waits until it forwards.
    pub(crate) async fn start(pod: &str, place: &Place) -> anyhow::Result<Self> {
        let named = [("--context", &place.context), ("--namespace", &place.namespace)];
        let mut command =
            command(named.iter().flat_map(|(flag, value)| value.iter().flat_map(|it| [*flag, it.as_str()])));
        // After `--`, what begins with a dash is a name. kubectl chooses the port.
        command.args(["port-forward", "--address", "127.0.0.1", "--", pod, &format!(":{}", place.admin_port)]);
        let mut kubectl = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(MISSING)?;
        let (stdout, stderr) = (kubectl.stdout.take(), kubectl.stderr.take());
        let stdout = BufReader::new(stdout.context("kubectl has no output")?);
        let stderr = stderr.context("kubectl has no output")?;
        let mut lines = stdout.lines();
        match timeout(START_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                let port = forwarded(&line).with_context(|| format!("kubectl said {}", Foreign(&line)))?;
                let complaint = Arc::default();
                // It says a line for each connection, and would end if they were not read. Both end with kubectl.
                tokio::spawn(drain(lines.into_inner(), None));
                tokio::spawn(drain(BufReader::new(stderr), Some(Arc::clone(&complaint))));
                Ok(Self { port, complaint, _kubectl: kubectl })
            }
            Ok(_) => {
                let mut why = String::new();
                // What could be read is enough.
                let _ = timeout(START_TIMEOUT, stderr.take(MAX_COMPLAINT).read_to_string(&mut why)).await;
                bail!("kubectl cannot forward to {pod}: {}", Foreign(why.trim()))
            }
            Err(_) => bail!("kubectl does not forward to {pod} within {START_TIMEOUT:?}; is the cluster reachable?"),
        }
    }

    /// On this machine.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What kubectl last said was wrong.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.complaint.lock().clone()
    }
}

/// Reads to the end, and keeps the last line.
async fn drain(mut from: impl AsyncRead + Unpin, last: Option<Arc<Mutex<Option<String>>>>) {
    let mut bytes = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let text = String::from_utf8_lossy(&bytes[..read]);
        if let (Some(last), Some(line)) = (&last, text.lines().rfind(|line| !line.trim().is_empty())) {
            *last.lock() = Some(Foreign(line.trim()).to_string());
        }
    }
}

/// The local port in `Forwarding from 127.0.0.1:40123 -> 9900`.
fn forwarded(line: &str) -> Option<u16> {
    let (from, _) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    from.rsplit_once(':')?.1.parse().ok()
}
