//! Why a web-app did not start, or stopped by itself.

use std::net::SocketAddr;

use crate::store::StoreError;

/// Why a web-app did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The peer cannot be dialled.
    #[error("peer {url:?} cannot be used: {reason}; give it as ws://127.0.0.1:18001/ws")]
    Peer {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pod's or the cluster's name cannot stand in a trail.
    #[error("{0}; give a name of at most 253 bytes without control characters")]
    Name(String),
    /// An output of no messages.
    #[error("the output must keep at least 1 message")]
    OutputMax,
    /// The listener could not be opened.
    #[error("cannot listen on {listen}: {source}; choose a free port and an address of this machine")]
    Listen {
        /// As configured.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a running web-app stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The listener cannot accept any more connections.
    #[error("the listener failed: {0}")]
    Accept(std::io::Error),
    /// What is on the disk is unknown, so continuing would risk accepted messages.
    #[error(transparent)]
    Store(StoreError),
    /// A task panicked, which is a bug in Ferry.
    #[error("a task of the web-app panicked: {0}")]
    Panicked(String),
}
