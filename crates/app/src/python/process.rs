//! One Python process.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{PythonError, hook_output};
use crate::hooks::HookError;
use crate::payload::Payload;

const RUNNER: &str = include_str!("runner.py");
/// Longest answer in bytes; the runner stays well below it.
const MAX_ANSWER: usize = 8 << 20;
/// What a pipe holds, in bytes.
const PIPE: usize = 64 << 10;
/// How long Python and the user's imports may take to load.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A process that has loaded the hooks. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    /// The hooks that the file defines.
    pub(super) hooks: Vec<String>,
    child: Child,
    requests: mpsc::UnboundedSender<Bytes>,
    answers: FramedRead<ChildStdout, LinesCodec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Greeting {
    Ready(Vec<String>),
    Broken(String),
}

#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    ok: Option<&'a RawValue>,
    error: Option<String>,
    #[serde(default)]
    kind: String,
}

impl Process {
    /// Starts Python and waits until it has loaded the file.
    pub(super) async fn start(file: &Path) -> Result<Self, PythonError> {
        let no_python = |error: std::io::Error| PythonError::NoPython(error.to_string());
        let mut child = Command::new("python3")
            .args(["-X", "utf8", "-c", RUNNER])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C in a terminal is for the web-app, which needs its hooks to drain.
            .process_group(0)
            .spawn()
            .map_err(no_python)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(PythonError::NoPython("it has no pipes".into()));
        };
        let (requests, mut queue) = mpsc::unbounded_channel::<Bytes>();
        // Ends when the process does or when the `Process` is dropped. On its own, so that a process which is not reading
        // because its answers are not read cannot hold up their reader.
        tokio::spawn(async move {
            let mut lines = BufWriter::with_capacity(PIPE, stdin);
            while let Some(line) = queue.recv().await {
                let is_written = lines.write_all(&line).await.is_ok();
                if !is_written || queue.is_empty() && lines.flush().await.is_err() {
                    return;
                }
            }
        });
        // Not tied to this process: its children may keep the pipe open.
        tokio::spawn(hook_output::log(stderr));
        let mut answers = FramedRead::new(stdout, LinesCodec::new_with_max_length(MAX_ANSWER));
        let line = timeout(LOAD_TIMEOUT, answers.next()).await;
        let line = line.map_err(|_| PythonError::Broken(format!("{} took too long to load", file.display())))?;
        let line = line.transpose().map_err(|error| PythonError::NoPython(error.to_string()))?;
        match line.as_deref().map(serde_json::from_str) {
            Some(Ok(Greeting::Ready(hooks))) => Ok(Self { hooks, child, requests, answers }),
            Some(Ok(Greeting::Broken(why))) => Err(PythonError::Broken(why)),
            Some(Err(error)) => Err(PythonError::NoPython(error.to_string())),
            None => Err(PythonError::Broken(format!("{} ended Python while it was loaded", file.display()))),
        }
    }

    /// Sends a request, which is a line. If the process has ended, [`Self::answer`] says so.
    pub(super) fn send(&self, request: Bytes) {
        let _ = self.requests.send(request);
    }

    /// The next answer, or `None` when the process has ended. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Option<Result<Option<Payload>, HookError>> {
        // The runner only writes lines of text: anything else comes from user code, and counts as the end.
        let line = self.answers.next().await?.ok()?;
        Some(parse(&line).unwrap_or_else(|error| Err(HookError::Failed(format!("the hook's answer: {error}")))))
    }

    /// How the process ended.
    pub(super) async fn exit_status_text(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

fn parse(line: &str) -> Result<Result<Option<Payload>, HookError>, serde_json::Error> {
    let Answer { ok, error, kind } = serde_json::from_str(line)?;
    Ok(match (ok, error) {
        (None, Some(error)) => Err(match kind.as_str() {
            "invalid" => HookError::Invalid(error),
            "denied" => HookError::Denied(error),
            _ => HookError::Failed(error),
        }),
        (Some(value), _) => Payload::parse(value.get()).map(Some).map_err(HookError::from),
        (None, None) => Ok(None),
    })
}
