//! What a session's driver is told by others.

use std::mem::discriminant;
use std::task::{Context, Waker};

use ferry_session::{Hello, ResetCode};
use parking_lot::{Mutex, MutexGuard};

use crate::transport::link::Link;

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
    /// The keeper has lost the application's connection.
    Hold,
    /// End the session.
    Reset(ResetCode, &'static str),
}

/// Hellos that may wait for one driver: while its application is connected to, a peer can bring any number of them.
const MAX_ATTACHES: usize = 4;

/// Commands on their way to one driver. Small: there is one for each session.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<State>);

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    waker: Option<Waker>,
    closed: bool,
}

impl State {
    /// Adds a command. What it makes useless comes back: the same command once more, or the oldest of too many Hellos.
    fn push(&mut self, command: Command) -> Option<Command> {
        let is_same = |other: &Command| discriminant(other) == discriminant(&command);
        let outdated = match command {
            Command::Attach(..) if self.commands.iter().filter(|other| is_same(other)).count() >= MAX_ATTACHES => {
                self.commands.iter().position(is_same).map(|oldest| self.commands.remove(oldest))
            }
            Command::Attach(..) => None,
            _ if self.commands.iter().any(is_same) => return Some(command),
            _ => None,
        };
        self.commands.push(command);
        outdated
    }
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Hands the command to the driver; gives it back if the driver has ended.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        let mut state = self.state();
        if state.closed {
            return Err(command);
        }
        let outdated = state.push(command);
        let waker = state.waker.take();
        drop(state);
        // A link is closed when it is dropped: not under the lock.
        drop(outdated);
        if let Some(waker) = waker {
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::task::Waker;
    use std::time::Duration;

    use ferry_config::Identity;
    use ferry_session::{Epoch, Instance, Intent, SessionId};

    use super::*;
    use crate::transport::tls::{Established, Proven, handshaken_pair};

    fn attach(epoch: u32) -> Command {
        let (encryptor, decryptor) = handshaken_pair(0);
        let key = Identity::generate().unwrap().public_key();
        let established = Established {
            stream: Box::new(tokio::io::duplex(1).0),
            encryptor,
            decryptor,
            proven: Proven { key, tells_origin: false, cipher: "" },
            from: None,
            rest: Vec::new(),
            flight: Vec::new(),
            round_trip: None,
        };
        let hello = Hello {
            session: SessionId([1; 16]),
            epoch: Epoch(epoch),
            intent: Intent::Resume,
            received: 0,
            window: 0,
            resume_window: Duration::ZERO,
            service: Cow::Borrowed("echo"),
        };
        Command::Attach(hello, Box::new(Link::new(established, Instance([2; 16]), None)))
    }

    #[test]
    fn a_mailbox_that_nobody_reads_keeps_the_newest_hellos_and_each_other_command_once() {
        let mailbox = Mailbox::default();
        for epoch in 1..100 {
            assert!(mailbox.send(attach(epoch)).is_ok());
            assert!(mailbox.send(Command::Recheck).is_ok());
            assert!(mailbox.send(Command::PeerGone).is_ok());
        }
        let commands = mailbox.take(&Context::from_waker(Waker::noop()));
        let epochs: Vec<_> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Attach(hello, _) => Some(hello.epoch.0),
                _ => None,
            })
            .collect();
        assert_eq!(epochs, [96, 97, 98, 99]);
        assert_eq!(commands.len(), MAX_ATTACHES + 2);
    }
}
