//! Where tests end this process: between what is done and what is stored of it.

/// What has just happened. Named in `FERRY_TEST_CRASH=STEP:COUNT`, of which a build without optimisation takes notice: this
/// process ends without a word when the step has been passed so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A session has its record; nobody has been told of it.
    Noted,
    /// The keeper is about to get the application's connection, or has got it.
    Holding,
    Held,
    /// Bytes were read from the application, and are not counted yet.
    Read,
    /// They are.
    CountedRead,
    /// Bytes were written to the application, and are not counted yet.
    Written,
    CountedWritten,
    /// What the session is about to tell is about to be stored.
    Storing,
    Stored,
    /// It has been told.
    Told,
    /// A session is about to be adopted, for whoever is killed meanwhile.
    Adopting,
    Adopted,
    /// The session is over; record and connection are about to be let go of.
    Over,
    LetGo,
}

impl Step {
    /// The process may end here.
    #[inline]
    pub(crate) fn pass(self) {
        #[cfg(debug_assertions)]
        crash::pass(self);
    }
}

#[cfg(debug_assertions)]
mod crash {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Step;

    /// The step's name and how often it is still to be passed.
    static PLAN: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let plan = std::env::var("FERRY_TEST_CRASH").ok()?;
        let (step, count) = plan.split_once(':')?;
        Some((step.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });

    pub(super) fn pass(step: Step) {
        let Some((name, left)) = &*PLAN else { return };
        if *name == format!("{step:?}") && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}
