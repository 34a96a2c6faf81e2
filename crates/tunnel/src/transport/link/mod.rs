//! A link: frames over one authenticated connection.

mod error;
mod incoming;
mod outgoing;

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ferry_config::PublicKey;
use ferry_session::{Frame, Instance, LinkKind, Preface, VERSION};
use ferry_text::Foreign;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use error::LinkError;
use incoming::Incoming;
use outgoing::Outgoing;

use crate::limits::idle::IdleLink;
use crate::memory::scratch;
use crate::net::{Carrier, PathCounts, Stream};
use crate::telemetry::metrics::{Metrics, OpenLink};
use crate::telemetry::presence::Present;
use crate::transport::ports::HeldPort;
use crate::transport::tls::{Established, MAX_RECORDS};

/// What the kernel takes ahead of what it has sent: control frames wait behind no more than this.
pub(crate) const UNSENT_LIMIT: u32 = 256 * 1024;

/// What the kernel takes ahead of what is read, from a link's beginning on: after a rotation a stream goes on as fast as
/// before it (`docs/decisions/0037`).
const RECEIVE_BUFFER: u32 = 1024 * 1024;

/// The part of a carrier's known life after which a link is left for another: the rest is for its handshake, which came
/// before, and for what is still on its way.
const MAX_AGE_SHARE: f64 = 0.75;

/// What is known of a link for as long as it lives.
#[derive(Clone, Debug)]
pub(crate) struct LinkFacts {
    /// The key that the peer proved.
    pub(crate) key: PublicKey,
    /// The peer's process.
    pub(crate) instance: Instance,
    pub(crate) kind: LinkKind,
    pub(crate) cipher: &'static str,
    pub(crate) carrier: Carrier,
    /// When its handshake was done: its keys are as old as this.
    pub(crate) established: Instant,
    /// How long its handshake took to be answered.
    pub(crate) round_trip: Option<Duration>,
}

/// Whether the peer's Preface, which came late, was as it has to be.
pub(crate) type PrefaceCheck = oneshot::Receiver<Result<(), LinkError>>;

/// One authenticated connection between two tunnels, in frames.
pub(crate) struct Link {
    facts: LinkFacts,
    stream: Box<dyn Stream>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// This end has dialled it.
    dialled: bool,
    /// Where it came from, if the peer has.
    from: Option<IpAddr>,
    /// Both ends know the frame Origin.
    tells_origin: bool,
    /// Its local port.
    port: Option<HeldPort>,
    /// The link is counted as open.
    counted: Option<OpenLink>,
    /// The link counts among those of its peer that carry no session.
    idle: Option<IdleLink>,
    /// The link counts among those by which the peer is there.
    present: Option<Present>,
    /// The peer's Preface is still to come; the dial is told.
    awaiting_preface: Option<oneshot::Sender<Result<(), LinkError>>>,
}

impl Link {
    /// A link without its Prefaces: [`exchange_prefaces`](Self::exchange_prefaces) comes next.
    pub(crate) fn new(established: Established, own: Instance, dialled: Option<LinkKind>) -> Self {
        let mut stream = established.stream;
        stream.set_unsent_limit(UNSENT_LIMIT);
        stream.grow_receive_buffer(RECEIVE_BUFFER);
        let facts = LinkFacts {
            key: established.proven.key,
            instance: own,
            kind: dialled.unwrap_or(LinkKind::Own),
            cipher: established.proven.cipher,
            carrier: stream.carrier(),
            established: Instant::now(),
            round_trip: established.round_trip,
        };
        Self {
            facts,
            stream,
            incoming: Incoming::new(established.decryptor, established.rest),
            outgoing: Outgoing::new(established.encryptor, established.flight),
            dialled: dialled.is_some(),
            from: established.from,
            tells_origin: established.proven.tells_origin,
            port: None,
            counted: None,
            idle: None,
            present: None,
            awaiting_preface: None,
        }
    }

    /// Only after the peer's Preface is the link established for either end.
    ///
    /// # Errors
    /// When the peer is gone, refuses, or does not speak this protocol.
    pub(crate) async fn exchange_prefaces(
        &mut self,
        own: Instance,
        dialled: Option<LinkKind>,
    ) -> Result<(), LinkError> {
        // The dialler says what the link is for; the accepting end repeats it.
        if let Some(kind) = dialled {
            self.send_preface(own, kind).await?;
        }
        let preface = std::future::poll_fn(|cx| self.poll_preface(cx)).await?;
        self.on_preface(preface, dialled)?;
        match dialled {
            Some(_) => Ok(()),
            None => self.send_preface(own, preface.kind).await,
        }
    }

    /// For a dialler that has more to say at once: its Preface is queued, and the peer's is taken as the first frame
    /// that comes, and told.
    pub(crate) fn push_preface(&mut self, own: Instance) -> Result<PrefaceCheck, LinkError> {
        self.push(&preface(own, LinkKind::Own))?;
        let (tell, told) = oneshot::channel();
        self.awaiting_preface = Some(tell);
        Ok(told)
    }

    /// The link as one of the runtime that this is called on.
    pub(crate) fn register_here(self) -> Self {
        Self { stream: self.stream.register_here(), ..self }
    }

    /// The link holds its port for as long as it lives, and no longer: what is let go of without a word leaves nothing on
    /// its way that anybody waits for.
    pub(crate) fn hold_port(&mut self, port: HeldPort) {
        self.stream.reset_unless_ended();
        self.port = self.stream.has_port().then_some(port);
    }

    /// Counts the link as open for as long as it is held.
    pub(crate) fn count(&mut self, metrics: &Metrics) {
        self.counted = Some(OpenLink::new(metrics));
    }

    /// The link counts as one that carries no session until it does, and as one of its peer's for as long as it lives.
    pub(crate) fn hold(&mut self, idle: IdleLink, present: Present) {
        (self.idle, self.present) = (Some(idle), Some(present));
    }

    /// A session takes the link.
    pub(crate) fn on_taken(&mut self) {
        self.idle = None;
    }

    async fn send_preface(&mut self, instance: Instance, kind: LinkKind) -> Result<(), LinkError> {
        self.send(&preface(instance, kind)).await
    }

    /// Sends a frame that does not belong to a session.
    pub(crate) async fn send(&mut self, frame: &Frame<'_>) -> Result<(), LinkError> {
        self.push(frame)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn on_preface(&mut self, preface: Preface, dialled: Option<LinkKind>) -> Result<(), LinkError> {
        if dialled.is_some_and(|kind| kind != preface.kind) {
            return Err(LinkError::OutOfPlace("Preface"));
        }
        self.facts.instance = preface.instance;
        self.facts.kind = preface.kind;
        Ok(())
    }

    /// The peer's Preface is still to come: which process it is is not known yet.
    pub(crate) fn awaits_preface(&self) -> bool {
        self.awaiting_preface.is_some()
    }

    /// Takes the Preface that is expected, and tells. A link without one is closed, for its session.
    fn poll_late_preface(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let met = ready!(self.poll_preface(cx)).and_then(|preface| self.on_preface(preface, Some(LinkKind::Own)));
        let here = if met.is_ok() { Ok(()) } else { Err(LinkError::Closed) };
        if let Some(tell) = self.awaiting_preface.take() {
            // Who has dialled may have given up waiting.
            let _ = tell.send(met);
        }
        Poll::Ready(here)
    }

    fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<Result<Preface, LinkError>> {
        let mut first = Err(LinkError::Closed);
        let take = &mut |frame: Frame<'_>| {
            first = match frame {
                Frame::Preface(preface) => Ok(preface),
                Frame::Reject(reject) => Err(LinkError::Refused(reject.code, Foreign(&reject.reason).to_string())),
                other => Err(LinkError::OutOfPlace(other.name())),
            };
            ControlFlow::Break(())
        };
        while ready!(self.incoming.poll(cx, &mut *self.stream, take))?.is_continue() {}
        Poll::Ready(first)
    }

    /// Hands over frames as they come until `take` breaks off.
    pub(crate) async fn frames_until_break(
        &mut self,
        take: &mut (dyn FnMut(Frame<'_>) -> ControlFlow<()> + Send),
    ) -> Result<(), LinkError> {
        while std::future::poll_fn(|cx| self.poll_frames(cx, take)).await?.is_continue() {}
        Ok(())
    }

    pub(crate) fn facts(&self) -> &LinkFacts {
        &self.facts
    }

    /// Where it came from, if the peer dialled it.
    pub(crate) fn from(&self) -> Option<IpAddr> {
        self.from
    }

    /// Whether an opener may say on it where its application connected from.
    pub(crate) fn tells_origin(&self) -> bool {
        self.tells_origin
    }

    /// The session that has it may be sent this many bytes.
    pub(crate) fn follow_receive_window(&mut self, bytes: u64) {
        self.stream.follow_receive_window(bytes);
    }

    /// What the system has seen of its path, if it tells.
    pub(crate) fn path(&self) -> Option<PathCounts> {
        self.stream.path()
    }

    /// How long its keys have been in use.
    pub(crate) fn age(&self) -> Duration {
        self.facts.established.elapsed()
    }

    /// How old it may become where keys last for `every`: it is left before what carries it ends it.
    pub(crate) fn max_age(&self, every: Duration) -> Duration {
        self.stream.max_life().map_or(every, |life| life.mul_f64(MAX_AGE_SHARE).min(every))
    }

    /// One of its keys has protected `limit` bytes, or a third of the records that its cipher allows.
    pub(crate) fn is_used_up(&self, limit: u64) -> bool {
        let records = self.outgoing.records().max(self.incoming.records());
        self.outgoing.sealed().max(self.incoming.opened()) >= limit || records >= MAX_RECORDS / 3
    }

    // --- receiving ---------------------------------------------------------------------------------------------

    /// Hands over the frames that are there, reading the socket at most once. `Continue`: there may be more;
    /// `Break`: `take` broke off, the rest is kept.
    pub(crate) fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Poll<Result<ControlFlow<()>, LinkError>> {
        if self.awaits_preface() {
            ready!(self.poll_late_preface(cx))?;
            // Who waits for frames learns first whom they are from.
            return Poll::Ready(Ok(ControlFlow::Continue(())));
        }
        self.incoming.poll(cx, &mut *self.stream, take)
    }

    /// The last read left nothing: what comes next is worth waiting for, once asked for.
    pub(crate) fn is_emptied(&self) -> bool {
        self.incoming.is_emptied()
    }

    /// Whether the peer has closed the link, or sent something that nobody waits for.
    pub(crate) fn is_stale(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        !self.poll_frames(&mut cx, &mut |_| ControlFlow::Break(())).is_pending()
    }

    // --- sending -----------------------------------------------------------------------------------------------

    /// Whether another frame is to be pushed; if not, the socket takes what is queued first.
    pub(crate) fn has_room(&self) -> bool {
        self.outgoing.has_room()
    }

    /// Queues a frame. Frames that are pushed together share records.
    pub(crate) fn push(&mut self, frame: &Frame<'_>) -> Result<(), LinkError> {
        Ok(self.outgoing.push(frame)?)
    }

    /// Writes what was pushed.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            let unwritten = self.outgoing.unwritten()?;
            if unwritten.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let count = ready!(self.stream.poll_write(cx, &[IoSlice::new(unwritten)]))?;
            self.outgoing.on_written(count);
        }
    }

    /// Sends what is queued, says that nothing follows, and waits for the peer to do the same: closing with bytes
    /// unread would let the kernel's reset destroy what was sent last.
    ///
    /// The end of a connection that closes first keeps its port for a minute. The accepting end has one port for all
    /// its links, so it is the first to close; the dialler waits for that.
    pub(crate) async fn close(mut self, patience: Duration) {
        let closing = async {
            std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
            self.outgoing.push_close_notify()?;
            std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
            if !self.dialled {
                std::future::poll_fn(|cx| self.stream.poll_shutdown(cx)).await?;
            }
            let stream = &mut self.stream;
            let mut discard = |cx: &mut Context<'_>| {
                scratch::with_read_buffer(|buffer| stream.poll_read(cx, &mut [io::IoSliceMut::new(buffer)]))
            };
            while std::future::poll_fn(&mut discard).await? > 0 {}
            if self.dialled {
                std::future::poll_fn(|cx| self.stream.poll_shutdown(cx)).await?;
            }
            Ok::<(), LinkError>(())
        };
        // Lost or slow: it is over either way.
        let _ = tokio::time::timeout(patience, closing).await;
        if self.dialled {
            // What is still on its way arrives before the end of the stream. Ends at once: nothing is waited for.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = self.stream.poll_shutdown(&mut cx);
        }
    }
}

fn preface(instance: Instance, kind: LinkKind) -> Frame<'static> {
    Frame::Preface(Preface { version: VERSION, instance, kind })
}

#[cfg(test)]
mod tests;
