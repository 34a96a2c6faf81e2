//! One conversation with the far web-app over one WebSocket, from hello to goodbye.
//!
//! Three loops share the caller's task: one reads frames, one writes them, one takes received messages through the
//! hook into the output. They are separate so that a slow hook holds up neither acknowledgements nor sending, and so
//! that two ends with full sockets cannot wait for each other. The first loop to end, ends the conversation.

use std::sync::Arc;
use std::time::Duration;

use ferry_text::Foreign;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::app::App;
use crate::arrival::take;
use crate::message::{Place, SenderId};
use crate::outbox::{Numbered, Settled, WINDOW};
use crate::output::Source;
use crate::socket::{Incoming, Outgoing, PING_EVERY, Reader, SILENCE_MAX, Socket, SocketError, Writer};
use crate::wire::{Ack, Frame, Hello, MessageFrame, WireError};

/// How long the other end may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// What may have arrived and not been taken, in KiB: more than a far side's window, which counts in bytes as well.
const INBOX_KIB: usize = 12 * 1024;

/// How long a goodbye waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("this web-app is shutting down")]
    Draining,
    #[error("a newer WebSocket took its place")]
    Replaced,
    #[error("the far web-app closed it with code {code}: {reason:?}")]
    Closed { code: u16, reason: String },
    #[error("the WebSocket was lost: {0}")]
    Lost(#[from] SocketError),
    #[error("the WebSocket ended without a close")]
    Eof,
    #[error("the far web-app was silent for {0:?}")]
    Silent(Duration),
    #[error("the far web-app misbehaved: {0}")]
    Misbehaved(#[from] WireError),
    #[error("a frame could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

impl Ended {
    /// Whether one end refuses what the other says, which a new WebSocket does not change.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Misbehaved(_) => true,
            Self::Closed { code, .. } => matches!(code, 1002 | 1003 | 1007 | 1008 | 1009 | 1011),
            _ => false,
        }
    }

    /// The WebSocket close code to leave with.
    fn code(&self) -> u16 {
        match self {
            Self::Draining | Self::Closed { .. } | Self::Lost(_) | Self::Eof => 1001,
            Self::Misbehaved(_) => 1002,
            Self::Silent(_) => 1008,
            Self::Encode(_) => 1011,
            Self::Replaced => 4001,
        }
    }
}

/// The far web-app, as its hello told.
struct Far {
    sender: SenderId,
    place: Place,
    acked: u64,
}

/// Converses until the WebSocket ends, a newer one replaces it, or the web-app shuts down.
pub(crate) async fn run(app: &App, mut socket: Socket, replaced: impl Future<Output = ()>) -> Ended {
    let talk = async {
        let far = tokio::select! {
            far = hello(app, &mut socket) => far?,
            () = app.phases.closing.cancelled() => return Err(Ended::Draining),
        };
        converse(app, &far, &mut socket).await
    };
    let ended = tokio::select! {
        Err(ended) = talk => ended,
        () = replaced => Ended::Replaced,
        () = app.phases.ended.cancelled() => Ended::Draining,
    };
    socket.close(ended.code(), &ended.to_string()).await;
    ended
}

/// A message that waits for its turn, and its part of the inbox.
type Held = (MessageFrame, OwnedSemaphorePermit);

/// Nothing but an end comes out of a loop.
type Never = std::convert::Infallible;

async fn hello(app: &App, socket: &mut Socket) -> Result<Far, Ended> {
    let Place { pod, cluster } = app.place.clone();
    let ours = Hello { sender: app.outbox.sender().clone(), pod, cluster, acked: app.outbox.acked() };
    socket.writer.send(text(&Frame::Hello(ours))?).await?;
    let theirs = timeout(HELLO_TIMEOUT, next_frame(&mut socket.reader)).await;
    match theirs.map_err(|_| Ended::Silent(HELLO_TIMEOUT))?? {
        Frame::Hello(hello) => Ok(Far { place: hello.place(), sender: hello.sender, acked: hello.acked }),
        other => Err(WireError::Unexpected { frame: other.name(), expected: "hello" }.into()),
    }
}

async fn converse(app: &App, far: &Far, socket: &mut Socket) -> Result<Never, Ended> {
    let Socket { reader, writer } = socket;
    let watermark = app.output.meet(&far.sender, far.acked)?;
    let _connected = Connected::new(app, far);
    let (inbox, arrivals) = mpsc::channel(WINDOW);
    let (resume, resumed) = oneshot::channel();
    let mut told = far.acked;
    let ended = tokio::select! {
        ended = read(app, watermark, reader, inbox, resume) => ended,
        ended = write(app, far, writer, &mut told, resumed) => ended,
        ended = receive(app, far, arrivals) => ended,
    };
    // What was taken last is acknowledged before a goodbye, so that it need not be sent again.
    if let Err(Ended::Draining) = ended
        && timeout(STORE_TIMEOUT, app.output.all_stored()).await.is_ok()
        && let Some(ack) = app.output.receipt(&far.sender, told).now_or_never()
    {
        writer.feed(text(&Frame::Ack(ack))?).await?;
    }
    ended
}

/// Reads frames: messages go on to `inbox`, acks to the outbox; the first ack starts the writer through `resume`.
async fn read(
    app: &App,
    watermark: u64,
    reader: &mut Reader,
    inbox: mpsc::Sender<Held>,
    resume: oneshot::Sender<u64>,
) -> Result<Never, Ended> {
    let (mut last, mut resume) = (watermark, Some(resume));
    let room = Arc::new(Semaphore::new(INBOX_KIB));
    loop {
        match next_frame(reader).await? {
            Frame::Hello(_) => return Err(WireError::Unexpected { frame: "hello", expected: "message or ack" }.into()),
            Frame::Message(message) if message.seq <= last => {
                app.metrics.duplicate_messages.inc();
            }
            Frame::Message(message) if message.seq > last + 1 => {
                return Err(WireError::Gap { last, got: message.seq }.into());
            }
            Frame::Message(message) => {
                last = message.seq;
                // The inbox holds a whole window: only a far side that ignores its window waits here. An error means
                // that the conversation is ending.
                let kib = u32::try_from(message.bytes() / 1024 + 1).unwrap_or(u32::MAX);
                if let Ok(permit) = room.clone().acquire_many_owned(kib).await {
                    let _ = inbox.send((message, permit)).await;
                }
            }
            Frame::Ack(ack) => {
                let seq = ack.seq;
                settle(app, ack)?;
                if let Some(resume) = resume.take() {
                    let _ = resume.send(seq);
                }
            }
        }
    }
}

fn settle(app: &App, ack: Ack) -> Result<(), WireError> {
    for Settled { id, dead, age } in app.outbox.ack(ack)? {
        app.metrics.delivery(age);
        match dead {
            None => {
                app.metrics.delivered_messages.inc();
                debug!(%id, "message delivered");
            }
            Some(error) => {
                app.metrics.refused_messages.inc();
                let error = Foreign(&error);
                let log = |suppressed| warn!(%id, %error, suppressed, "message is dead: the far hook kept refusing it");
                app.log_limits.refused.log(log);
            }
        }
    }
    Ok(())
}

/// Writes acks, messages and pings. Frames are buffered while there are more, and flushed when there are none.
async fn write(
    app: &App,
    far: &Far,
    writer: &mut Writer,
    told: &mut u64,
    mut resumed: oneshot::Receiver<u64>,
) -> Result<Never, Ended> {
    let first = app.output.first_receipt(&far.sender, far.acked);
    *told = first.seq;
    writer.send(text(&Frame::Ack(first))?).await?;
    let mut sent = None;
    loop {
        let idle = Instant::now() + PING_EVERY;
        let due = match next_due(app, far, *told, sent, &mut resumed, idle).now_or_never() {
            Some(due) => due,
            None => {
                timeout(SILENCE_MAX, writer.flush()).await.map_err(|_| Ended::Silent(SILENCE_MAX))??;
                next_due(app, far, *told, sent, &mut resumed, idle).await
            }
        };
        let item = match due {
            Due::Resume(seq) => {
                sent = Some(seq);
                continue;
            }
            Due::Ack(ack) => {
                *told = ack.seq;
                text(&Frame::Ack(ack))?
            }
            Due::Message(message, again) => {
                sent = Some(message.seq);
                log_sent(app, far, &message, again);
                Outgoing::Text(Frame::of_message(&message.text))
            }
            Due::Ping => Outgoing::Ping,
        };
        timeout(SILENCE_MAX, writer.feed(item)).await.map_err(|_| Ended::Silent(SILENCE_MAX))??;
    }
}

/// The next thing to write.
enum Due {
    Resume(u64),
    Ack(Ack),
    Message(Numbered, bool),
    Ping,
}

async fn next_due(
    app: &App,
    far: &Far,
    told: u64,
    sent: Option<u64>,
    resumed: &mut oneshot::Receiver<u64>,
    idle: Instant,
) -> Due {
    tokio::select! {
        Ok(seq) = resumed, if sent.is_none() => Due::Resume(seq),
        ack = app.output.receipt(&far.sender, told) => Due::Ack(ack),
        (message, again) = app.outbox.next(sent.unwrap_or_default()), if sent.is_some() => Due::Message(message, again),
        () = sleep_until(idle) => Due::Ping,
    }
}

fn log_sent(app: &App, far: &Far, message: &Numbered, again: bool) {
    if again {
        app.metrics.resent_messages.inc();
        debug!(id = %message.id, to = %far.place, "message sent again");
    } else {
        app.metrics.sent_messages.inc();
        let log = |suppressed| info!(id = %message.id, from = %app.place, to = %far.place, suppressed, "message sent");
        app.log_limits.sent.log(log);
    }
}

/// Takes messages through the hook into the output, one after the other. When the web-app shuts down it finishes the
/// one that it is at.
async fn receive(app: &App, far: &Far, mut arrivals: mpsc::Receiver<Held>) -> Result<Never, Ended> {
    loop {
        let (message, _room) = tokio::select! {
            biased;
            () = app.phases.closing.cancelled() => return Err(Ended::Draining),
            Some(held) = arrivals.recv() => held,
            // The reader is gone, and its end is the conversation's.
            else => return std::future::pending().await,
        };
        app.output.room().await;
        take(app, &far.place, Source::Message(far.sender.clone(), message.seq), message).await?;
    }
}

async fn next_frame(reader: &mut Reader) -> Result<Frame, Ended> {
    loop {
        match timeout(SILENCE_MAX, reader.next()).await {
            Err(_) => return Err(Ended::Silent(SILENCE_MAX)),
            Ok(None) => return Err(Ended::Eof),
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(Some(Ok(Incoming::Alive))) => {}
            Ok(Some(Ok(Incoming::Binary))) => return Err(WireError::Binary.into()),
            Ok(Some(Ok(Incoming::Closed { code, reason }))) => return Err(Ended::Closed { code, reason }),
            Ok(Some(Ok(Incoming::Text(text)))) => return Ok(Frame::decode(&text)?),
        }
    }
}

fn text(frame: &Frame) -> Result<Outgoing, serde_json::Error> {
    frame.encode().map(Outgoing::Text)
}

/// The far side counts as connected while this lives.
struct Connected<'a>(&'a App);

impl<'a> Connected<'a> {
    fn new(app: &'a App, far: &Far) -> Self {
        info!(far = %far.place, "connected to the far web-app");
        app.metrics.far_connects.inc();
        app.metrics.far_websockets.set(1);
        app.far.send_replace(Some(far.place.clone()));
        Self(app)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.metrics.far_websockets.set(0);
        self.0.far.send_replace(None);
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
