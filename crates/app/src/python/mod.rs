//! Hooks in Python: the user's `app.py`, run by worker processes.
//!
//! Each worker is a Python process that runs one call at a time. Whatever the user's code does, the worst is that its
//! process is killed and another one started: that costs the message it was processing, and never the network.

mod apart;
mod hook_output;
mod process;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::hooks::{HookError, Hooks, RECEIVE_HOOK_TIMEOUT, Received};
use crate::payload::Payload;
use apart::{Apart, HOLD_LIMIT};
use process::Process;
use worker::{CallError, Worker};

/// How often the file is checked for changes.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How to run an `app.py`.
#[derive(Debug, Clone)]
pub struct PythonConfig {
    /// The file with any of `on_trigger`, `on_receive_terminator`, `on_receive_initiator`, each `def` or `async def`.
    pub file: PathBuf,
    /// Worker processes, each of which runs one call at a time.
    pub workers: NonZeroUsize,
    /// The longest that a call may take before its worker is killed. A receiving hook has 10 s at most.
    pub timeout: Duration,
}

/// Why an `app.py` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// Python did not start.
    #[error("cannot run python3: {0}; install Python 3.8 or newer, or leave --hooks out")]
    NoPython(String),
    /// The file cannot be read.
    #[error("cannot read the hooks in {file}: {reason}")]
    Unreadable {
        /// As configured.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file has an error; the text has its place.
    #[error("the hooks cannot be loaded: {0}")]
    Broken(String),
}

/// The hooks of an `app.py`. Dropping it ends its workers.
pub struct PythonHooks {
    config: PythonConfig,
    defined: watch::Receiver<Vec<String>>,
    workers: Vec<Worker>,
    next: AtomicUsize,
    apart: Apart,
    file: PathBuf,
    reload: watch::Receiver<u64>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for PythonHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonHooks").field("config", &self.config).finish_non_exhaustive()
    }
}

impl PythonHooks {
    /// Starts the workers. When this returns, every one of them has loaded the file.
    ///
    /// # Errors
    ///
    /// There is no Python, or the file cannot be loaded.
    pub async fn start(config: PythonConfig) -> Result<Self, PythonError> {
        let unreadable =
            |error: std::io::Error| PythonError::Unreadable { file: config.file.clone(), reason: error.to_string() };
        let file = std::path::absolute(&config.file).map_err(unreadable)?;
        std::fs::File::open(&file).map_err(unreadable)?;
        let seen = version(&file).await;
        let first = Process::start(&file).await?;
        let (defined, hooks) = watch::channel(first.hooks.clone());
        info!(file = %file.display(), hooks = first.hooks.join(" "), workers = config.workers, "hooks loaded");
        let (reload, reloads) = watch::channel(0u64);
        let (mut workers, mut tasks) = (Vec::new(), JoinSet::new());
        let mut first = Some(first);
        for _ in 0..config.workers.get() {
            let process = match first.take() {
                Some(process) => process,
                None => Process::start(&file).await?,
            };
            workers.push(Worker::spawn(&mut tasks, file.clone(), process, reload.subscribe()));
        }
        tasks.spawn(watch_file(file.clone(), seen, reload, defined));
        Ok(Self {
            config,
            defined: hooks,
            workers,
            next: AtomicUsize::new(0),
            apart: Apart::default(),
            file,
            reload: reloads,
            tasks: Mutex::new(tasks),
        })
    }

    async fn call(
        &self,
        worker: usize,
        hook: &'static str,
        arguments: &(impl Serialize + Sync),
        limit: Duration,
    ) -> Result<Option<Payload>, CallError> {
        self.workers[worker % self.workers.len()].call(request(hook, arguments)?, limit).await
    }

    async fn call_receive_hook(
        &self,
        hook: &'static str,
        arguments: &ReceiveArguments<'_>,
    ) -> Result<Option<Payload>, HookError> {
        // Always the same worker: one sender's messages stay in order and run one after the other.
        Ok(self.call(self.workers.len() - 1, hook, arguments, self.receive_limit()).await?)
    }

    /// The same where there are several sites, each with its messages one after the other.
    async fn call_receive_hook_for(
        &self,
        site: &str,
        hook: &'static str,
        arguments: &ReceiveArguments<'_>,
    ) -> Result<Option<Payload>, HookError> {
        let limit = self.receive_limit();
        if !self.apart.holds(site) {
            match self.call(worker_of(site), hook, arguments, limit.min(HOLD_LIMIT)).await {
                Err(CallError::Overran(held)) if held < limit => {
                    if self.apart.put(site) {
                        warn!(
                            site,
                            "the receiving hook took longer than {held:?} and held up other sites: this one's calls run apart"
                        );
                    }
                }
                result => return Ok(result?),
            }
        }
        let result = self.apart_worker().await?.call(request(hook, arguments)?, limit).await;
        if let Err(CallError::Overran(_)) = result {
            self.apart.put(site);
        }
        Ok(result?)
    }

    async fn apart_worker(&self) -> Result<&Worker, HookError> {
        let start = async || {
            let process = Process::start(&self.file).await?;
            Ok(Worker::spawn(&mut self.tasks.lock(), self.file.clone(), process, self.reload.clone()))
        };
        let started: Result<_, PythonError> = self.apart.worker.get_or_try_init(start).await;
        started.map_err(|error| HookError::Failed(format!("the hooks cannot run: {error}")))
    }

    fn receive_limit(&self) -> Duration {
        self.config.timeout.min(RECEIVE_HOOK_TIMEOUT)
    }

    fn defines(&self, hook: &str) -> bool {
        self.defined.borrow().iter().any(|name| name == hook)
    }
}

impl Hooks for PythonHooks {
    fn on_trigger<'a>(
        &'a self,
        payload: Payload,
        headers: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Payload, HookError>> {
        async move {
            if !self.defines("on_trigger") {
                return Ok(payload);
            }
            let worker = self.next.fetch_add(1, Ordering::Relaxed);
            let returned = self.call(worker, "on_trigger", &(payload, headers), self.config.timeout).await?;
            returned.ok_or_else(|| HookError::Failed("on_trigger returned nothing".into()))
        }
        .boxed()
    }

    fn on_receive<'a>(&'a self, received: Received<'a>) -> BoxFuture<'a, Result<Option<Payload>, HookError>> {
        async move {
            let Received { is_initiator, site, payload, headers } = received;
            let hook = if is_initiator { "on_receive_initiator" } else { "on_receive_terminator" };
            if !self.defines(hook) {
                return Ok(None);
            }
            let arguments = (payload, headers);
            match site {
                None => self.call_receive_hook(hook, &arguments).await,
                Some(site) => self.call_receive_hook_for(site, hook, &arguments).await,
            }
        }
        .boxed()
    }

    /// A call's time starts when its worker begins it: time spent queued behind a hung call does not count.
    fn keeps_time(&self) -> bool {
        true
    }
}

/// A payload and the headers that came with it, which the runner leaves out where the hook has no place for them.
type ReceiveArguments<'a> = (Payload, &'a BTreeMap<String, String>);

/// The line that calls a hook.
fn request(hook: &'static str, arguments: &impl Serialize) -> Result<Bytes, HookError> {
    let mut line = serde_json::to_vec(&(hook, arguments)).map_err(|error| HookError::Failed(error.to_string()))?;
    line.push(b'\n');
    // It waits for its answer, and was grown by doubling.
    line.shrink_to_fit();
    Ok(line.into())
}

/// The worker for a site's messages: always the same one.
fn worker_of(site: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    site.hash(&mut hasher);
    usize::try_from(hasher.finish() >> 33).unwrap_or_default()
}

/// What changes when a file does, also by a symlink swap.
type Version = Option<(SystemTime, u64, u64)>;

async fn version(file: &PathBuf) -> Version {
    use std::os::unix::fs::MetadataExt;
    let metadata = tokio::fs::metadata(file).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Has the workers reload the file whenever it has changed, if it can be loaded.
async fn watch_file(file: PathBuf, mut seen: Version, reload: watch::Sender<u64>, defined: watch::Sender<Vec<String>>) {
    loop {
        sleep(FILE_CHECK_INTERVAL).await;
        let now = version(&file).await;
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        match Process::start(&file).await {
            Ok(trial) => {
                info!(file = %file.display(), hooks = trial.hooks.join(" "), "hooks reloaded because the file has changed");
                defined.send_replace(trial.hooks.clone());
                reload.send_modify(|generation| *generation += 1);
            }
            Err(error) => error!(%error, "new hooks rejected; keeping the previous ones"),
        }
    }
}
