//! Links: how they are dialled, accepted and spoken over.
//!
//! A link is Ferry's own TLS over a byte stream. [`dialler`] and [`accept`] end in an [`Established`] stream whose other
//! end has proved a key; here it becomes a [`Link`], and nothing above knows what carries it.

pub(crate) mod accept;
pub(crate) mod carrier;
pub(crate) mod congestion;
pub(crate) mod dial;
pub(crate) mod dialler;
pub(crate) mod hint;
pub(crate) mod join;
mod layer;
pub(crate) mod link;
pub(crate) mod lookup;
pub(crate) mod ports;
pub(crate) mod probe;
pub(crate) mod quic;
pub(crate) mod replicas;
pub(crate) mod roll;
pub(crate) mod segments;
pub(crate) mod tls;
mod unsent;

use std::sync::Arc;
use std::time::Duration;

use ferry_session::{Frame, LinkKind, Reject};

use crate::shared::Shared;
use link::{Link, LinkError, PrefaceCheck};
use tls::Established;

/// How long a link that is closed in good order may take for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What both ways to make a link begin with.
fn begin(shared: &Shared, mut established: Established, dialled: Option<LinkKind>) -> Link {
    congestion::apply(&mut *established.stream, shared.config().tunnel.settings.congestion.as_ref());
    Link::new(established, shared.instance, dialled)
}

/// Makes a link of a connection whose handshake is done. A peer that cannot be spoken to is told why.
pub(crate) async fn establish(
    shared: &Arc<Shared>,
    established: Established,
    dialled: Option<LinkKind>,
) -> Result<Link, LinkError> {
    let mut link = begin(shared, established, dialled);
    match link.exchange_prefaces(shared.instance, dialled).await {
        Ok(()) => {
            link.count(&shared.metrics);
            // The end that sends the Hello tells: the other one listens.
            let speaker = if dialled.is_some() { LinkKind::Own } else { LinkKind::Offered };
            if link.facts().kind == speaker {
                for gone in shared.instance_file.gone() {
                    link.send(&gone).await?;
                }
            }
            Ok(link)
        }
        Err(error) => {
            if let Some(reason) = error.to_reject() {
                reject(shared, link, reason);
            }
            Err(error)
        }
    }
}

/// Makes a link for a session that speaks before the peer's Preface is here.
pub(crate) fn establish_early(shared: &Shared, established: Established) -> Result<(Link, PrefaceCheck), LinkError> {
    let mut link = begin(shared, established, Some(LinkKind::Own));
    let check = link.push_preface(shared.instance)?;
    for gone in shared.instance_file.gone() {
        link.push(&gone)?;
    }
    link.count(&shared.metrics);
    Ok((link, check))
}

/// Closes a link with a Reject. Where many are being closed already the peer only sees that it ends.
pub(crate) fn reject(shared: &Arc<Shared>, mut link: Link, reason: Reject<'_>) {
    let Ok(closing) = shared.rejected_links.clone().try_acquire_owned() else { return };
    if link.push(&Frame::Reject(reason)).is_ok() {
        shared.spawn_session(async move {
            link.close(CLOSE_TIMEOUT).await;
            drop(closing);
        });
    }
}

/// Closes a link in good order, in the background.
pub(crate) fn close(shared: &Arc<Shared>, link: Link) {
    shared.spawn_session(link.close(CLOSE_TIMEOUT));
}
