//! Connections for another replica of this tunnel, and those that one has led here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::debug;

use super::Seat;
use crate::net::Stream;
use crate::shared::Shared;
use crate::telemetry::metrics::{OpenSplice, Splice};
use crate::telemetry::repeats::{Kind, Line};
use crate::transport::congestion;
use crate::transport::link::UNSENT_LIMIT;
use crate::transport::replicas::mark::{Mark, MarkKey};
use crate::transport::replicas::{own_hints, splice};
use crate::transport::tls::{ClientHello, TlsError, send};

/// A replica takes a connection within this time, or the dialler is answered here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Tells another replica which processes this one is and was.
pub(super) async fn answer(
    shared: &Shared,
    seat: Seat,
    marks: &MarkKey,
    mark: &Mark,
    stream: &mut dyn Stream,
) -> Result<(), TlsError> {
    if !marks.accepts(mark, &[]) {
        return Err(TlsError::Record("that is no replica's mark"));
    }
    let answer = marks.answer(mark, own_hints(shared));
    on_proof(shared, seat);
    Ok(send(stream, &answer).await?)
}

/// Where a marked ClientHello comes from: the dialler, as the replica saw it.
pub(super) fn source(
    shared: &Shared,
    seat: Seat,
    marks: &MarkKey,
    mark: &Mark,
    hello: &ClientHello,
) -> Result<SocketAddr, TlsError> {
    let source = mark.source.filter(|_| marks.accepts(mark, hello.records()));
    let source = source.ok_or(TlsError::Record("that is no replica's mark"))?;
    on_proof(shared, seat);
    Ok(source)
}

/// Who has the key of marks is no stranger.
fn on_proof(shared: &Shared, seat: Seat) {
    seat.on_proof(&shared.config().tunnel.name, Instant::now());
}

/// Leads a connection to the replica that it asks for, and carries it for as long as it lasts.
///
/// # Errors
/// With all that there was, if it is to be answered here: it asks for this process, for one that nobody is, or for one
/// that cannot be reached.
pub(super) async fn splice(
    shared: &Arc<Shared>,
    mut seat: Seat,
    (hello, mut near): (ClientHello, Box<dyn Stream>),
    from: SocketAddr,
) -> Result<(), (Seat, ClientHello, Box<dyn Stream>)> {
    let config = shared.config();
    let (Some(marks), Some(hint)) = (&config.marks, hello.hint()) else { return Err((seat, hello, near)) };
    if own_hints(shared).any(|own| own == hint) {
        return Err((seat, hello, near));
    }
    let led = match shared.replicas.find(hint) {
        None => Err(Splice::Unknown),
        Some(address) => match shared.replicas.places.clone().try_acquire_owned() {
            Err(_) => Err(Splice::Limit),
            Ok(place) => match lead(shared, marks, (&hello, &*near), from, address).await {
                Ok(far) => Ok((far, place)),
                Err(error) => {
                    let text = format!(
                        "a link for the replica at {address} could not be led there: {error}; is `listen` of each \
                         replica reached from the others, and is their `identity` the same?"
                    );
                    shared.repeats.tell(Kind::new("splice"), Line::warn(text));
                    Err(Splice::Unreachable)
                }
            },
        },
    };
    let (far, _place) = match led {
        Ok(led) => led,
        Err(result) => {
            debug!(%from, ?result, "a connection that asks for another replica is answered here");
            shared.metrics.spliced(result);
            return Err((seat, hello, near));
        }
    };
    drop(hello);
    let _open = OpenSplice::new(&shared.metrics);
    seat.on_spliced();
    congestion::apply(&mut *near, config.tunnel.settings.congestion.as_ref());
    near.set_unsent_limit(UNSENT_LIMIT);
    drop(config);
    splice::carry(near, far, || drop(seat)).await;
    Ok(())
}

/// A connection to the replica, over which has gone what the dialler has sent so far.
async fn lead(
    shared: &Shared,
    marks: &MarkKey,
    (hello, near): (&ClientHello, &dyn Stream),
    from: SocketAddr,
    address: SocketAddr,
) -> Result<Box<dyn Stream>, TlsError> {
    let mark = marks.splice((from, near.local_addr()), hello.records())?;
    let leading = async {
        let mut far = shared.network.connect(address).await?;
        send(&mut *far, &[&mark, hello.records(), hello.rest()].concat()).await?;
        Ok(far)
    };
    let late = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    timeout(CONNECT_TIMEOUT, leading).await.unwrap_or_else(late)
}
