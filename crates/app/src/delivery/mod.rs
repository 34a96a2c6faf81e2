//! One conversation with the far web-app over one WebSocket, from hello to close.
//!
//! Three loops share the caller's task: one reads frames, one writes them, one takes received messages through the
//! hook into the output. They are separate so that a slow hook delays neither acknowledgements nor sending, and so that two
//! ends with full sockets cannot wait for each other. The first loop to end ends the conversation.

use std::sync::Arc;
use std::time::Duration;

use ferry_text::Foreign;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::app::App;
use crate::arrival;
use crate::far_end::FarEnd;
use crate::limits::WINDOW_MESSAGES;
use crate::message::Location;
use crate::outbox::{AckedMessage, NumberedMessage};
use crate::output::Source;
use crate::sites::{Site, SiteError};
use crate::socket::{Incoming, Outgoing, PING_INTERVAL, Reader, SILENCE_TIMEOUT, Socket, SocketError, Writer};
use crate::wire::{Ack, Frame, Hello, MessageFrame, WireError};

/// How long the other end may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// What may have arrived and not been processed, in KiB: more than a far side's window, which is bounded in bytes as well.
const MAX_INBOX_KIB: usize = 12 * 1024;

/// How long closing a conversation waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disconnect {
    #[error("this web-app is shutting down")]
    Draining,
    #[error("a newer WebSocket replaced it")]
    Replaced,
    #[error("{0}")]
    Refused(#[from] SiteError),
    #[error("its site has been forgotten")]
    Forgotten,
    #[error("the far web-app closed it with code {code}: {reason:?}")]
    Closed { code: u16, reason: String },
    #[error("the WebSocket was lost: {0}")]
    Lost(#[from] SocketError),
    #[error("the WebSocket ended without a close")]
    Eof,
    #[error("the far web-app was silent for {0:?}")]
    Silent(Duration),
    #[error("the far web-app broke the protocol: {0}")]
    Violation(#[from] WireError),
    #[error("a frame could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

impl Disconnect {
    /// Whether one end rejects what the other sends, which a new WebSocket does not change.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Violation(_) | Self::Refused(_) => true,
            Self::Closed { code, .. } => matches!(code, 1002 | 1003 | 1007 | 1008 | 1009 | 1011),
            _ => false,
        }
    }

    /// The WebSocket close code to leave with.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Draining | Self::Forgotten | Self::Closed { .. } | Self::Lost(_) | Self::Eof => 1001,
            Self::Violation(_) | Self::Refused(_) => 1002,
            Self::Silent(_) => 1008,
            Self::Encode(_) => 1011,
            Self::Replaced => 4001,
        }
    }
}

/// Converses until the WebSocket ends, a newer one replaces it, or the web-app shuts down.
pub(crate) async fn run(
    app: &App,
    site: &Arc<Site>,
    mut socket: Socket,
    replaced: impl Future<Output = ()>,
) -> Disconnect {
    let talk = async {
        let far = tokio::select! {
            far = hello(app, site, &mut socket) => far?,
            () = app.phases.closing.cancelled() => return Err(Disconnect::Draining),
        };
        converse(app, site, &far, &mut socket).await
    };
    let ended = tokio::select! {
        Err(ended) = talk => ended,
        () = replaced => Disconnect::Replaced,
        () = app.phases.ended.cancelled() => Disconnect::Draining,
    };
    socket.close(ended.code(), &ended.to_string()).await;
    ended
}

/// A message that waits to be processed, and its share of the inbox.
type QueuedArrival = (MessageFrame, OwnedSemaphorePermit);

/// The loops return nothing but the reason why they ended.
type Never = std::convert::Infallible;

async fn hello(app: &App, site: &Site, socket: &mut Socket) -> Result<FarEnd, Disconnect> {
    let Location { pod, cluster } = app.location.clone();
    let ours = Hello { sender: site.outbox.sender().clone(), pod, cluster, acked: site.outbox.acked() };
    socket.writer.send(encode(&Frame::Hello(ours))?).await?;
    let theirs = timeout(HELLO_TIMEOUT, next_frame(&mut socket.reader)).await;
    match theirs.map_err(|_| Disconnect::Silent(HELLO_TIMEOUT))?? {
        Frame::Hello(hello) => Ok(FarEnd {
            location: hello.location(),
            sender: hello.sender,
            acked: hello.acked,
            takes_headers: socket.takes_headers,
            session: socket.session,
        }),
        other => Err(WireError::Unexpected { frame: other.name(), expected: "hello" }.into()),
    }
}

async fn converse(app: &App, site: &Arc<Site>, far: &FarEnd, socket: &mut Socket) -> Result<Never, Disconnect> {
    let Socket { reader, writer, .. } = socket;
    let watermark = app.output.register_sender(&far.sender, far.acked, site.name())?;
    tell_of_twins(app, site, far);
    let _connected = ConnectedGuard::new(app, site, far);
    let (inbox, arrivals) = mpsc::channel(WINDOW_MESSAGES);
    let (resume, resumed) = oneshot::channel();
    let mut reported = far.acked;
    let ended = tokio::select! {
        ended = read(app, site, far, watermark, reader, inbox, resume) => ended,
        ended = write(app, site, far, writer, &mut reported, resumed) => ended,
        ended = process_arrivals(app, site, far, arrivals) => ended,
    };
    // Acknowledge what was processed last before closing, so that it need not be sent again.
    if let Err(Disconnect::Draining) = ended
        && timeout(STORE_TIMEOUT, app.output.all_stored()).await.is_ok()
        && let Some(ack) = app.output.next_ack(&far.sender, reported).now_or_never()
    {
        writer.feed(encode(&Frame::Ack(ack))?).await?;
    }
    ended
}

/// Reads frames: messages go to `inbox`, acks to the outbox; the first ack starts the writer through `resume`.
async fn read(
    app: &App,
    site: &Site,
    far: &FarEnd,
    watermark: u64,
    reader: &mut Reader,
    inbox: mpsc::Sender<QueuedArrival>,
    resume: oneshot::Sender<u64>,
) -> Result<Never, Disconnect> {
    let (mut last, mut resume) = (watermark, Some(resume));
    let room = Arc::new(Semaphore::new(MAX_INBOX_KIB));
    loop {
        match next_frame(reader).await? {
            Frame::Hello(_) => return Err(WireError::Unexpected { frame: "hello", expected: "message or ack" }.into()),
            Frame::Message(message) if message.id != far.sender.message(message.seq) => {
                return Err(WireError::Id { got: message.id, expected: far.sender.message(message.seq) }.into());
            }
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
                apply_ack(app, site, ack)?;
                if let Some(resume) = resume.take() {
                    let _ = resume.send(seq);
                }
            }
        }
    }
}

fn apply_ack(app: &App, site: &Site, ack: Ack) -> Result<(), WireError> {
    for AckedMessage { id, dead, age, span } in site.outbox.ack(ack)? {
        app.metrics.delivery(age);
        if let Some(span) = span {
            span.end(&id, dead.as_deref());
        }
        match dead {
            None => {
                app.metrics.delivered_messages.inc();
                debug!(%id, "message delivered");
            }
            Some(error) => {
                app.metrics.refused_messages.inc();
                let error = Foreign(&error);
                let log = |suppressed| warn!(%id, %error, suppressed, "message is dead: the far hook kept refusing it");
                app.log_limits.dead_at_far_side.log(log);
            }
        }
    }
    Ok(())
}

/// Writes acks, messages and pings. Frames are buffered while there are more, and flushed when there are none.
async fn write(
    app: &App,
    site: &Site,
    far: &FarEnd,
    writer: &mut Writer,
    reported: &mut u64,
    mut resumed: oneshot::Receiver<u64>,
) -> Result<Never, Disconnect> {
    let first = app.output.first_ack(&far.sender, far.acked);
    *reported = first.seq;
    writer.send(encode(&Frame::Ack(first))?).await?;
    let mut sent = None;
    loop {
        let idle = Instant::now() + PING_INTERVAL;
        let next = match next_write_item(app, site, far, *reported, sent, &mut resumed, idle).now_or_never() {
            Some(next) => next,
            None => {
                timeout(SILENCE_TIMEOUT, writer.flush()).await.map_err(|_| Disconnect::Silent(SILENCE_TIMEOUT))??;
                next_write_item(app, site, far, *reported, sent, &mut resumed, idle).await
            }
        };
        let item = match next {
            WriteItem::Resume(seq) => {
                sent = Some(seq);
                continue;
            }
            WriteItem::Ack(ack) => {
                *reported = ack.seq;
                encode(&Frame::Ack(ack))?
            }
            WriteItem::Message(message, again) => {
                sent = Some(message.seq);
                log_sent(app, far, &message, again);
                Outgoing::Text(Frame::of_message(
                    &message.text,
                    message.headers.as_deref().filter(|_| far.takes_headers),
                ))
            }
            WriteItem::Ping => Outgoing::Ping,
        };
        timeout(SILENCE_TIMEOUT, writer.feed(item)).await.map_err(|_| Disconnect::Silent(SILENCE_TIMEOUT))??;
    }
}

/// The next thing to write.
enum WriteItem {
    Resume(u64),
    Ack(Ack),
    Message(NumberedMessage, bool),
    Ping,
}

async fn next_write_item(
    app: &App,
    site: &Site,
    far: &FarEnd,
    reported: u64,
    sent: Option<u64>,
    resumed: &mut oneshot::Receiver<u64>,
    idle: Instant,
) -> WriteItem {
    tokio::select! {
        Ok(seq) = resumed, if sent.is_none() => WriteItem::Resume(seq),
        ack = app.output.next_ack(&far.sender, reported) => WriteItem::Ack(ack),
        (message, again) = site.outbox.next(sent.unwrap_or_default()), if sent.is_some() => WriteItem::Message(message, again),
        () = sleep_until(idle) => WriteItem::Ping,
    }
}

fn log_sent(app: &App, far: &FarEnd, message: &NumberedMessage, again: bool) {
    if again {
        app.metrics.resent_messages.inc();
        debug!(id = %message.id, to = %far.location, "message sent again");
    } else {
        app.metrics.sent_messages.inc();
        let log =
            |suppressed| info!(id = %message.id, from = %app.location, to = %far.location, suppressed, "message sent");
        app.log_limits.sent.log(log);
    }
}

/// Takes messages through the hook into the output, one after the other. When the web-app shuts down, it finishes the
/// current one.
async fn process_arrivals(
    app: &App,
    site: &Arc<Site>,
    far: &FarEnd,
    mut arrivals: mpsc::Receiver<QueuedArrival>,
) -> Result<Never, Disconnect> {
    loop {
        let (message, _room) = tokio::select! {
            biased;
            () = app.phases.closing.cancelled() => return Err(Disconnect::Draining),
            Some(queued) = arrivals.recv() => queued,
            // The reader has ended, which ends the conversation.
            else => return std::future::pending().await,
        };
        app.output.room().await;
        arrival::process(app, site, far, Source::Message(far.sender.clone(), message.seq), message).await?;
    }
}

async fn next_frame(reader: &mut Reader) -> Result<Frame, Disconnect> {
    loop {
        match timeout(SILENCE_TIMEOUT, reader.next()).await {
            Err(_) => return Err(Disconnect::Silent(SILENCE_TIMEOUT)),
            Ok(None) => return Err(Disconnect::Eof),
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(Some(Ok(Incoming::Alive))) => {}
            Ok(Some(Ok(Incoming::Binary))) => return Err(WireError::Binary.into()),
            Ok(Some(Ok(Incoming::Closed { code, reason }))) => return Err(Disconnect::Closed { code, reason }),
            Ok(Some(Ok(Incoming::Text(text)))) => return Ok(Frame::decode(&text)?),
        }
    }
}

fn encode(frame: &Frame) -> Result<Outgoing, serde_json::Error> {
    frame.encode().map(Outgoing::Text)
}

/// Two web-apps with one identity take turns: each is served until the other connects again, and each has its messages taken
/// once and in order, but what is sent to the site reaches now one, now the other.
fn tell_of_twins(app: &App, site: &Site, far: &FarEnd) {
    let (Some(before), Some(name)) = (site.note_sender(&far.sender), site.name()) else { return };
    app.log_limits.twins.log(|suppressed| {
        warn!(
            site = %name, sender = far.sender.as_str(), before = before.as_str(), far = %far.location, suppressed,
            "another web-app under the same identity: if it has not just got a new data directory, two run at once and take \
             turns; give each an identity of its own"
        );
    });
}

/// The far side counts as connected while this lives.
struct ConnectedGuard<'a>(&'a App, &'a Site);

impl<'a> ConnectedGuard<'a> {
    fn new(app: &'a App, site: &'a Site, far: &FarEnd) -> Self {
        info!(far = %far.location, site = app.shown(site), "connected to the far web-app");
        app.metrics.far_connects.inc();
        app.metrics.far_websockets.inc();
        site.far.send_replace(Some(far.location.clone()));
        Self(app, site)
    }
}

impl Drop for ConnectedGuard<'_> {
    fn drop(&mut self) {
        self.0.metrics.far_websockets.dec();
        self.1.far.send_replace(None);
    }
}

#[cfg(test)]
mod tests;
