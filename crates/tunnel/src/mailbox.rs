//! What a session's driver is told by others.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use ferry_session::{Hello, ResetCode};

use crate::link::Link;

/// Something for a driver to do.
pub(crate) enum Command {
    /// A Hello for this session came on this link.
    Attach(Hello<'static>, Box<Link>),
    /// The peer's process that this session is with is no more.
    PeerGone,
    /// The configuration was read again.
    Recheck,
    /// Move to fresh keys now.
    Rotate,
    /// End the session.
    Reset(ResetCode, &'static str),
}

/// Commands on their way to one driver. Small: there is one for each session.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<State>);

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    waker: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the command to the driver; gives it back if the driver has ended.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        let mut state = self.state();
        if state.closed {
            return Err(command);
        }
        state.commands.push(command);
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
        Ok(())
    }

    /// The driver takes what has come and is woken when more does.
    pub(crate) fn take(&self, cx: &Context<'_>) -> Vec<Command> {
        let mut state = self.state();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        std::mem::take(&mut state.commands)
    }

    /// The driver ends: commands are given back from now on.
    pub(crate) fn close(&self) -> Vec<Command> {
        let mut state = self.state();
        state.closed = true;
        state.waker = None;
        std::mem::take(&mut state.commands)
    }
}
