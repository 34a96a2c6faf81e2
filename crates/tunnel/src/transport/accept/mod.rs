//! Peers that dial this end: strangers cost no more than a bounded number of files and half of the turns at the processors.

mod joining;
mod known;
mod lobby;
mod replica;
mod rolling;
mod room;
mod source;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_config::{PublicKey, RedeemError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, error};

pub(crate) use lobby::Lobby;

use crate::net::{Listener, Stream};
use crate::peer::Peer;
use crate::sessions::intake;
use crate::shared::Shared;
use crate::telemetry::events::Event;
use crate::telemetry::metrics::{LinkFailure, Role};
use crate::telemetry::presence::Present;
use crate::telemetry::repeats::{Kind, Line};
use crate::transport;
use crate::transport::carrier::HeadError;
use crate::transport::carrier::upgrade::{self, NotUpgraded};
use crate::transport::dial::HANDSHAKE_TIMEOUT;
use crate::transport::link::{Link, LinkError};
use crate::transport::quic::{Arrival, QuicError, QuicListener};
use crate::transport::replicas::mark::{Mark, Purpose};
use crate::transport::tls::{ClientHello, Established, ServerHandshake, TlsError};
use lobby::Seat;

/// A whole ClientHello has to be here after this long where many others come.
const CROWDED_HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// A whole ClientHello has to be here after this long in any case: a path that loses large packets takes a while.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// After an accept that failed for want of something: time for others to end.
pub(crate) const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// A connection as it comes.
enum Arrived {
    Tcp(Box<dyn Stream>, Opening),
    Quic(Box<Arrival>),
}

/// What peers' connections begin with.
#[derive(Clone)]
pub(crate) enum Opening {
    /// Ferry's TLS.
    Tls,
    /// The request for a WebSocket at this path, with Ferry's TLS in it; what is in front of it ends it after this long.
    WebSocket(Arc<str>, Option<Duration>),
}

/// Takes peers' connections until the tunnel stops: a draining end still lets its sessions resume.
pub(crate) async fn listen(shared: Arc<Shared>, mut listener: Box<dyn Listener>, opening: Opening) {
    loop {
        let accepted = tokio::select! {
            () = shared.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                spawn_accept(&shared, Arrived::Tcp(stream, opening.clone()), from);
                // Whoever has to make way closes before the next one is let in: it holds a file until then.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                on_accept_failed(&shared, "a peer's", &error);
                tokio::time::sleep(ACCEPT_DELAY).await;
            }
        }
    }
}

/// As [`listen`], over QUIC.
pub(crate) async fn listen_quic(shared: Arc<Shared>, listener: QuicListener) {
    loop {
        let accepted = tokio::select! {
            () = shared.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Some((arrival, from)) => spawn_accept(&shared, Arrived::Quic(Box::new(arrival)), from),
            None => return error!("the socket of `listen_quic` has failed; links are not accepted there any more"),
        }
    }
}

fn spawn_accept(shared: &Arc<Shared>, arrived: Arrived, from: SocketAddr) {
    let shared = shared.clone();
    shared.clone().tasks.spawn(async move {
        tokio::select! {
            () = shared.stopping() => {}
            () = accept(&shared, arrived, from) => {}
        }
    });
}

/// A listener gets no connection because the system is out of something: what strangers hold of it is freed.
pub(crate) fn on_accept_failed(shared: &Shared, whose: &str, error: &std::io::Error) {
    let shed = shared.lobby.shed();
    let text = format!(
        "cannot accept {whose} connection: {error}; closed {shed} connections that had not authenticated (raise the \
         limit of open files, ulimit -n, if this continues)"
    );
    shared.repeats.tell(Kind::new("accept"), Line::warn(text));
}

async fn accept(shared: &Arc<Shared>, arrived: Arrived, from: SocketAddr) {
    let (seat, mut evicted) = shared.lobby.enter(from.ip(), Instant::now());
    let mut from = from;
    let proven = tokio::select! {
        biased;
        Ok(()) = &mut evicted => Err(Refused::MadeWay),
        proven = take(shared, seat, arrived, &mut from) => proven,
    };
    let made = match proven {
        Ok(Some((peer, mut established))) => {
            established.from = Some(from.ip().to_canonical());
            welcome(shared, &peer, established).await.map(|link| Some((peer, link)))
        }
        Ok(None) => Ok(None),
        Err(refused) => Err(refused),
    };
    match made {
        Ok(None) => {}
        Ok(Some((peer, link))) => {
            shared.metrics.link_made(Role::Listener);
            shared.events.tell(Event::link_made(&peer.name, Role::Listener));
            intake::take_accepted(shared, &peer, link);
        }
        Err(refused) => refused.tell(shared, from),
    }
}

/// What a listed peer proves. Nothing comes of it for another replica or its dialler, which have been seen to.
type Proof = Option<(Arc<Peer>, Established)>;

/// A connection, up to a proof of a listed key. `from` becomes where its dialler is, if a replica has led it here.
async fn take(shared: &Arc<Shared>, seat: Seat, arrived: Arrived, from: &mut SocketAddr) -> Result<Proof, Refused> {
    let config = shared.config();
    let marks = config.marks.as_ref();
    let tls = |error: TlsError| Refused::Link(error.into());
    let (mark, begun) = beginning(&seat, arrived, marks.is_some()).await?;
    let (Some(mark), Some(marks)) = (mark, marks) else {
        let Begun::Hello(hello, stream) = begun else { return Ok(None) };
        drop(config);
        return match replica::splice(shared, seat, (*hello, stream), *from).await {
            Ok(()) => Ok(None),
            Err((seat, hello, stream)) => prove(shared, seat, (hello, stream), *from).await,
        };
    };
    let (hello, stream) = match begun {
        Begun::Hello(hello, stream) => (*hello, stream),
        Begun::Asked(mut stream) => {
            return replica::answer(shared, seat, marks, &mark, &mut *stream).await.map(|()| None).map_err(tls);
        }
    };
    *from = replica::source(shared, seat, marks, &mark, &hello).map_err(tls)?;
    let (seat, mut evicted) = shared.lobby.enter(from.ip(), Instant::now());
    tokio::select! {
        biased;
        Ok(()) = &mut evicted => Err(Refused::MadeWay),
        proven = prove(shared, seat, (hello, stream), *from) => proven,
    }
}

/// The handshake, up to a proof of a listed key. Nothing comes of it for a joiner or for a peer that replaces
/// a key, which have been answered.
async fn prove(
    shared: &Arc<Shared>,
    mut seat: Seat,
    (hello, stream): (ClientHello, Box<dyn Stream>),
    from: SocketAddr,
) -> Result<Proof, Refused> {
    if hello.wants_to_join()
        && let Some(invitations) = joining::invitations(shared)
    {
        return joining::answer(shared, seat, (hello, stream), invitations, from).await.map(|()| None);
    }
    let is_roll = hello.wants_to_roll();
    let proving = async {
        let config = shared.config();
        let accepting = if is_roll { &config.rolls } else { &config.handshake };
        let established = handshake(&mut seat, accepting, hello, stream).await?;
        let key = established.proven.key;
        // The config that accepted the key: another may be in force by now.
        let peer = config.peer_of(&key).ok_or(TlsError::Unlisted(key))?;
        peer.round_trip.note(established.round_trip);
        shared.metrics.handshake_done(Role::Listener, established.round_trip);
        seat.on_proof(&peer.name, Instant::now());
        Ok::<_, LinkError>((peer.clone(), established))
    };
    let proved = timeout(HANDSHAKE_TIMEOUT, proving).await.unwrap_or(Err(LinkError::TimedOut));
    let (peer, established) = proved.map_err(Refused::Link)?;
    if is_roll {
        return rolling::answer(shared, &peer, established).await.map(|()| None).map_err(Refused::Link);
    }
    Ok(Some((peer, established)))
}

/// Answers a ClientHello, when its turn has come.
async fn handshake(
    seat: &mut Seat,
    handshake: &ServerHandshake,
    hello: ClientHello,
    mut stream: Box<dyn Stream>,
) -> Result<Established, TlsError> {
    let turns = seat.turns();
    // A turn is for computing: whoever has it waits for nobody.
    let turn = turns.acquire().await;
    seat.on_answer();
    let answer = handshake.answer(hello);
    drop(turn);
    match answer {
        Ok(answer) => answer.finish(stream, &turns).await,
        Err((error, alert)) => {
            alert.send(&mut *stream).await;
            Err(error)
        }
    }
}

/// What a connection begins with.
enum Begun {
    Hello(Box<ClientHello>, Box<dyn Stream>),
    /// A replica's question.
    Asked(Box<dyn Stream>),
}

/// Waits for a whole ClientHello, or for a replica's question; for less long where many others wait. Either may come
/// behind a mark, if this is one of several replicas.
async fn beginning(seat: &Seat, arrived: Arrived, has_marks: bool) -> Result<(Option<Mark>, Begun), Refused> {
    let begun = Instant::now();
    let mut reading = Box::pin(read_beginning(seat.turns(), arrived, has_marks));
    let mut read = timeout_at(begun + CROWDED_HELLO_TIMEOUT, &mut reading).await;
    if read.is_err() && !seat.is_crowded() {
        read = timeout_at(begun + HELLO_TIMEOUT, &mut reading).await;
    }
    read.map_err(|_| Refused::NoHello)?
}

async fn read_beginning(
    turns: Arc<Semaphore>,
    arrived: Arrived,
    has_marks: bool,
) -> Result<(Option<Mark>, Begun), Refused> {
    let tls = |error: TlsError| Refused::Link(error.into());
    let (mut mark, mut received) = (None, Vec::new());
    let mut stream = match arrived {
        Arrived::Tcp(mut stream, Opening::Tls) => {
            if has_marks {
                mark = Mark::read(&mut *stream, &mut received).await.map_err(tls)?;
            }
            stream
        }
        Arrived::Tcp(stream, Opening::WebSocket(path, max_life)) => {
            upgrade::answer(stream, &path, max_life).await.map_err(Refused::NotUpgraded)?
        }
        Arrived::Quic(arrival) => arrival.answer(&turns).await.map_err(|error| match error.is_closed() {
            true => Refused::Link(LinkError::Closed),
            false => Refused::NoQuic(error),
        })?,
    };
    if mark.as_ref().is_some_and(|mark| mark.purpose == Purpose::Ask) {
        return Ok((mark, Begun::Asked(stream)));
    }
    let hello = ClientHello::read_behind(&mut *stream, received).await.map_err(tls)?;
    Ok((mark, Begun::Hello(Box::new(hello), stream)))
}

/// A peer's link with its Prefaces, among as many as it may have without a session.
async fn welcome(shared: &Arc<Shared>, peer: &Arc<Peer>, established: Established) -> Result<Link, Refused> {
    let Some(idle) = shared.idle_links.hold(&peer.name) else {
        let link = Link::new(established, shared.instance, None);
        if let Some(reject) = LinkError::TooMany.to_reject() {
            transport::reject(shared, link, reject);
        }
        return Err(Refused::TooMany(peer.clone()));
    };
    let present = Present::new(&peer.presence, &peer.name, &shared.repeats, &shared.events);
    let link = timeout(HANDSHAKE_TIMEOUT, transport::establish(shared, established, None))
        .await
        .unwrap_or(Err(LinkError::TimedOut));
    let mut link = link.map_err(Refused::Link)?;
    link.hold(idle, present);
    Ok(link)
}

/// Why a connection did not become a link.
enum Refused {
    MadeWay,
    NoHello,
    NotUpgraded(NotUpgraded),
    NoQuic(QuicError),
    TooMany(Arc<Peer>),
    Link(LinkError),
    NotJoined(PublicKey, RedeemError),
}

impl Refused {
    /// Counts it, and tells the operator, whose part it may be to add a key.
    fn tell(&self, shared: &Shared, from: SocketAddr) {
        debug!(%from, "link not made: {self}");
        let (reason, failure) = match self {
            Self::MadeWay => ("made way", LinkFailure::Limit),
            Self::NoHello => ("no ClientHello", LinkFailure::Timeout),
            // Load balancers ask so whether somebody is there.
            Self::NotUpgraded(NotUpgraded::Answered(_) | NotUpgraded::Head(HeadError::Closed)) => return,
            Self::NotUpgraded(_) => ("no WebSocket", LinkFailure::Carrier),
            Self::NoQuic(error) if error.is_let_go() => ("let go", LinkFailure::Closed),
            Self::NoQuic(_) => ("no QUIC", LinkFailure::Carrier),
            Self::TooMany(_) => ("too many links", LinkFailure::Limit),
            Self::Link(error) => (error.failure().as_str(), error.failure()),
            Self::NotJoined(..) => ("not joined", LinkFailure::Key),
        };
        shared.metrics.link_failed(Role::Listener, failure);
        let (ip, kind) = (from.ip().to_canonical(), Kind::new(reason));
        // Load balancers look so whether somebody listens, and a dialler leaves so what has lost its race.
        if failure == LinkFailure::Closed {
            return;
        }
        shared.events.tell(Event::stranger_refused(&ip, failure, self.to_string()));
        match self {
            Self::Link(LinkError::Tls(TlsError::Unlisted(key))) => {
                let text = format!(
                    "refused a tunnel from {ip} whose key is not listed here: {key}; if it is yours, add this key to \
                     `keys` of its entry under `peers` in tunnel.yaml"
                );
                shared.repeats.tell(kind.stranger(key), Line::info(text));
            }
            Self::TooMany(peer) => {
                shared.repeats.tell(kind.peer(&peer.name), Line::warn(format!("link refused: {self}")));
            }
            Self::MadeWay => {
                shared.repeats.tell(kind, Line::warn(format!("connection from {ip} closed: {self}")));
            }
            Self::NotJoined(key, RedeemError::Unknown) => {
                let text = format!("an invitation presented by {ip} with the key {key} was refused: {self}");
                shared.repeats.tell(kind, Line::info(text));
            }
            // The bearer of a secret that was right: somebody here has to know.
            Self::NotJoined(key, _) => {
                let text = format!("an invitation presented by {ip} with the key {key} was refused: {self}");
                shared.repeats.tell(kind.stranger(key), Line::warn(text));
            }
            Self::NoHello | Self::NotUpgraded(_) | Self::NoQuic(_) | Self::Link(_) => {
                let text = format!("connection from {ip} did not become a link: {self}");
                shared.repeats.tell(kind, Line::info(text));
            }
        }
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MadeWay => f.write_str("too many connections have not authenticated, and it made way for newer ones"),
            Self::NoHello => f.write_str("no ClientHello in time"),
            Self::NotUpgraded(error) => error.fmt(f),
            Self::NoQuic(error) => write!(f, "no QUIC connection: {error}"),
            Self::TooMany(_) => LinkError::TooMany.fmt(f),
            Self::Link(error) => error.fmt(f),
            Self::NotJoined(_, error) => error.fmt(f),
        }
    }
}
