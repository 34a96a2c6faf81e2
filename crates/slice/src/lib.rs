//! How long a thread keeps a processor that another one wants.
//!
//! Linux lets a thread that has just been woken interrupt one whose slice is longer (EEVDF with `PREEMPT_SHORT`, from
//! 6.12 on); with equal slices it may wait for a tick, which is up to 4 ms. Slices move no share of the processor from
//! one thread to another, and need no privilege. Older kernels take them and go by their own.

use std::time::Duration;

/// For threads that carry what somebody waits for: the shortest there is.
pub const SHORT: Duration = Duration::from_micros(100);

/// For threads whose work can wait a moment.
pub const LONG: Duration = Duration::from_millis(20);

/// Gives this thread, and those that it starts from now on, slices of this length: 100 us to 100 ms. Real-time threads
/// keep theirs.
///
/// # Errors
/// When the system does not allow it.
#[cfg(target_os = "linux")]
pub fn set(slice: Duration) -> std::io::Result<()> {
    let mut attributes = linux::get()?;
    if attributes.is_real_time() {
        return Ok(());
    }
    attributes.set_slice(slice);
    linux::set(&attributes)
}

/// Gives this thread slices of this length: not here.
///
/// # Errors
/// Always: only Linux has them.
#[cfg(not(target_os = "linux"))]
pub fn set(_: Duration) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// sched_setattr(2), which no library at hand offers for ordinary threads: thread-priority 3.1 has it for deadlines alone.
#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::size_of;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::libc;

    /// This thread.
    const SELF: libc::pid_t = 0;

    /// How a thread is scheduled.
    #[derive(Clone, Copy)]
    pub(crate) struct Attributes(libc::sched_attr);

    impl Attributes {
        pub(crate) fn is_real_time(&self) -> bool {
            ![libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&self.0.sched_policy.cast_signed())
        }

        pub(crate) fn set_slice(&mut self, slice: Duration) {
            self.0.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
        }

        #[cfg(test)]
        pub(crate) fn slice(&self) -> Option<Duration> {
            (self.0.sched_runtime > 0).then(|| Duration::from_nanos(self.0.sched_runtime))
        }
    }

    #[allow(unsafe_code)]
    pub(crate) fn get() -> io::Result<Attributes> {
        let size = size_of::<libc::sched_attr>();
        // SAFETY: numbers alone, for which zero is a value.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes at most `size` bytes, which is what there is.
        Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, SELF, &raw mut attributes, size, 0) })?;
        Ok(Attributes(attributes))
    }

    #[allow(unsafe_code)]
    pub(crate) fn set(attributes: &Attributes) -> io::Result<()> {
        // SAFETY: the kernel reads as many bytes as they say they are, which `get` has had it write.
        Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, SELF, &raw const attributes.0, 0) })?;
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    /// The length of this thread's slices; nothing where the kernel does not say.
    fn get() -> std::io::Result<Option<Duration>> {
        Ok(linux::get()?.slice())
    }

    /// Kernels before 6.12 do not keep it: what they have is not compared.
    #[test]
    fn a_thread_has_the_slice_that_it_was_given_and_hands_it_on() {
        thread::spawn(|| {
            set(LONG).expect("allowed");
            let Some(slice) = get().expect("allowed") else { return };
            assert_eq!(slice, LONG);
            thread::spawn(|| {
                assert_eq!(get().expect("allowed"), Some(LONG), "inherited");
                set(SHORT).expect("allowed");
                assert_eq!(get().expect("allowed"), Some(SHORT));
            })
            .join()
            .expect("the thread's checks hold");
            assert_eq!(get().expect("allowed"), Some(LONG), "the other thread's is its own");
        })
        .join()
        .expect("the thread's checks hold");
    }
}
