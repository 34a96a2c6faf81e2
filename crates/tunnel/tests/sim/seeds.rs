//! Lives by seed: how they are run, and how a failure is told.
//!
//! A failure prints its seed; `FERRY_SEED=n` runs just that one, `FERRY_SEEDS=n` that many of each test,
//! `FERRY_FIRST=n` begins with that one, and `FERRY_LOG=debug` shows what the tunnels log, at the virtual time.
//!
//! A seed repeats what happens and when. It does not repeat keys, ids, the jitter of rotations, where QUIC's congestion
//! control begins its cycle (quinn gives it no seed) and the order of tasks that are ready at the same moment: a failure
//! that depends on these takes several runs of its seed to come back.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// No life is longer than this, in virtual time: one that is has got stuck.
const LIFE: Duration = Duration::from_secs(4 * 3600);

/// No life takes longer than this in real time: one that does goes round in circles without time passing.
const PATIENCE: Duration = Duration::from_secs(120);

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
    static BORN: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Counts panics: those inside of the tunnel's tasks end nothing else.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            print(info);
        }));
        if let Ok(filter) = std::env::var("FERRY_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(Virtual).init();
        }
    });
}

/// Shows the time since the life began.
struct Virtual;

impl tracing_subscriber::fmt::time::FormatTime for Virtual {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let since = BORN.get().map(|born| born.elapsed()).unwrap_or_default();
        write!(w, "{:9.3}", since.as_secs_f64())
    }
}

/// Runs `life` on one thread and a clock that jumps to the next timer whenever nothing else is to be done.
pub fn live<T>(life: impl Future<Output = T>) -> T {
    watch();
    PANICS.set(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let result = runtime.block_on(async {
        BORN.set(Some(Instant::now()));
        timeout(LIFE, life).await.expect("it has got stuck")
    });
    drop(runtime);
    assert_eq!(PANICS.get(), 0, "a task has panicked");
    result
}

/// Fails with the seeds whose lives fail.
pub fn for_each_seed<F: Future<Output = ()>>(default: u64, life: impl Fn(u64) -> F + Sync) {
    if let Some(seed) = number("FERRY_SEED") {
        return live(life(seed));
    }
    let first = number("FERRY_FIRST").unwrap_or_default();
    let seeds = number("FERRY_SEEDS").unwrap_or(default);
    let (next, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().len() < 10 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let (done, watched) = std::sync::mpsc::channel::<()>();
                    std::thread::spawn(move || {
                        if watched.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                            eprintln!("seed {seed} goes round in circles");
                            std::process::exit(101);
                        }
                    });
                    if catch_unwind(AssertUnwindSafe(|| live(life(seed)))).is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                    drop(done);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed; run again with FERRY_SEED= one of {failed:?}");
}
