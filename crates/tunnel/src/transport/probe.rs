//! One link to one address, made for whoever looks for what is wrong, and closed again.

use std::sync::Arc;
use std::time::Duration;

use ferry_config::{Address, Identity, Peer, PublicKey};
use ferry_session::{Instance, LinkKind};

use crate::net::{Network, Tcp};
use crate::transport::dial::{CONNECT_TIMEOUT, DialError, HANDSHAKE_TIMEOUT};
use crate::transport::dialler::{Aim, Destination, Dialler, Progress};
use crate::transport::link::{Link, LinkError};
use crate::transport::tls::TlsError;

/// Longest wait for a good end of the link.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A link that was made.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The key that the peer proved.
    pub key: PublicKey,
    /// How long the handshake took to be answered.
    pub round_trip: Option<Duration>,
}

/// How far a probe came.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no address.
    #[error("no address is known")]
    NoAddress,
    /// The name has no address.
    #[error("the name in {0} does not resolve: {1}")]
    Name(String, std::io::Error),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// Nothing came back, neither a connection nor a refusal.
    #[error("no answer to a connection within {CONNECT_TIMEOUT:?}")]
    ConnectTimedOut,
    /// What carries the link, a proxy or an HTTP endpoint, does not.
    #[error("{0}")]
    Carrier(String),
    /// A connection that nothing comes over.
    #[error("connected, and no answer to a handshake within {HANDSHAKE_TIMEOUT:?}")]
    Silent,
    /// A connection that was ended before a handshake was done.
    #[error("connected, and the connection was ended during the handshake: {0}")]
    Ended(String),
    /// Whoever answers proves another key than those that are listed.
    #[error("the key presented there is not listed here: {0}")]
    Unlisted(PublicKey),
    /// The peer does not list this end's key.
    #[error("this end's key is not accepted there")]
    KeyRefused,
    /// What answers speaks no TLS, or other TLS than a tunnel.
    #[error("what answers is no tunnel: {0}")]
    NoTunnel(String),
    /// A tunnel of another version, or with no room for another link.
    #[error("the peer refuses the link: {0}")]
    Refused(String),
}

/// Makes a link to the peer at one of its addresses, as a tunnel would, and closes it.
///
/// # Errors
/// How far it came, and what was presented.
pub async fn probe(identity: &Identity, peer: &Peer, address: Address) -> Result<Probed, ProbeError> {
    let at_one_address = Peer { addresses: vec![address], ..peer.clone() };
    let destination = Destination::new(identity, &at_one_address).map_err(judge_tls)?;
    let network: Arc<dyn Network> = Arc::new(Tcp);
    let establish = async |established| {
        let own = random_instance()?;
        let mut link = Link::new(established, own, Some(LinkKind::Own));
        // In TLS 1.3 the dialler is done before the other end has judged its key: only the Preface says.
        link.exchange_prefaces(own, Some(LinkKind::Own)).await?;
        Ok(link)
    };
    let dialled =
        Dialler::default().dial(&network, &destination, Aim::default(), &Progress::default(), establish).await;
    let link = dialled.map_err(judge)?;
    let probed = Probed { key: link.facts().key, round_trip: link.facts().round_trip };
    link.close(CLOSE_TIMEOUT).await;
    Ok(probed)
}

/// An instance of its own: a probe says nothing about the tunnel whose identity it uses.
fn random_instance() -> Result<Instance, DialError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| LinkError::Lost(std::io::Error::other(error)))?;
    Ok(Instance(bytes))
}

pub(super) fn judge(error: DialError) -> ProbeError {
    match error {
        DialError::NoAddress => ProbeError::NoAddress,
        DialError::Resolve { address, error } => ProbeError::Name(address, error),
        DialError::Connect { error, .. } => ProbeError::Connect(error),
        DialError::Carrier(error) => ProbeError::Carrier(error.to_string()),
        DialError::ConnectTimedOut => ProbeError::ConnectTimedOut,
        DialError::HandshakeTimedOut | DialError::GivenUp => ProbeError::Silent,
        DialError::Tls(error) | DialError::Link(LinkError::Tls(error)) => judge_tls(error),
        DialError::Link(error @ (LinkError::Closed | LinkError::Lost(_))) => ProbeError::Ended(error.to_string()),
        DialError::Link(error @ (LinkError::Refused(..) | LinkError::Version(_) | LinkError::TooMany)) => {
            ProbeError::Refused(error.to_string())
        }
        DialError::Link(error) => ProbeError::NoTunnel(error.to_string()),
    }
}

pub(super) fn judge_tls(error: TlsError) -> ProbeError {
    match error {
        TlsError::Unlisted(key) => ProbeError::Unlisted(key),
        TlsError::KeyRefused => ProbeError::KeyRefused,
        TlsError::Io(error) => ProbeError::Ended(error.to_string()),
        error => ProbeError::NoTunnel(error.to_string()),
    }
}
