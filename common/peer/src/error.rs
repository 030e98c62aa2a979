//! What can go wrong: at the start, with a message, with a call.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a node's wire does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The cluster's name can't stand in a certificate.
    #[error("cluster name {0:?}: use 1 to 63 of a-z, 0-9 and '-', not at either end")]
    ClusterName(String),
    /// Everybody could speak for a node.
    #[error("listening on {0} without TLS: give the cluster's certificates, or set insecure = true")]
    Insecure(SocketAddr),
    /// A setting is out of its range.
    #[error("{name} is {value}: {wanted}")]
    Limit {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it has to be.
        wanted: &'static str,
    },
    /// No version is left that the node speaks.
    #[error("versions {oldest} to {newest}: the oldest comes first, from 1")]
    Versions {
        /// The first of the range.
        oldest: u32,
        /// The last of the range.
        newest: u32,
    },
    /// The port is taken or not ours.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key can't be used.
    #[error("read {path}: {reason}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread of the beat lane does not start.
    #[error("start the thread of the beat lane")]
    Thread(#[source] std::io::Error),
}

/// Why a message was not taken. It is counted, and gone: who needs it sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Dropped {
    /// No address is known of the node.
    #[error("the node has no address")]
    Unknown,
    /// The lane to the node has no connection now.
    #[error("the node is not connected")]
    NotConnected,
    /// As many messages, or as many bytes, as may wait are waiting.
    #[error("too much is waiting for the node")]
    Full,
    /// Longer than the lane carries.
    #[error("longer than the lane carries")]
    TooLong,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no connection: it was not executed.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer came in time: it may have been executed, or still be.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The connection broke under way: it may have been executed.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// Nobody there answers questions of this kind: it was not executed.
    #[error("questions of kind {0:?} are unknown there")]
    UnknownKind(String),
    /// The node does not take us for a member any more: it was not executed.
    #[error("refused: {0}")]
    Refused(String),
    /// The question is longer than a call carries: it was not sent.
    #[error("a question of {bytes} bytes, for at most {bytes_max}")]
    TooLong {
        /// The body's length.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// It was executed, in part or whole, and failed.
    #[error("failed there: {0}")]
    Failed(String),
}

impl CallError {
    /// Says whether it is certain that nothing was executed, so that asking
    /// another node, or this one again, can't do it twice.
    pub fn is_unexecuted(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::UnknownKind(_) | Self::Refused(_) | Self::TooLong { .. } => true,
            Self::Deadline(_) | Self::Interrupted(_) | Self::Failed(_) => false,
        }
    }
}

/// Writes an error with all its causes, as the sources of tonic and hyper hide the one that matters.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
