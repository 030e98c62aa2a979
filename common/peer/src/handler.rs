//! Who gets what arrives.

use async_trait::async_trait;
use bytes::Bytes;
use sanso_core::cluster::{Instance, NodeId};

use crate::lane::Lane;

/// Who sent a message or asks: a node, in one of its lives, in a version of the
/// wire that both speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The node and its life.
    pub instance: Instance,
    /// The newest version that both speak.
    pub version: u32,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody here answers such questions; nothing was done.
    UnknownKind,
    /// It failed, for this reason; it may have been done in part.
    Failed(String),
}

/// Takes what arrives. `message` and `broken` are called on the threads that
/// serve the lanes and must return at once (hand over to a channel); what they
/// hold up is their own lane, and all nodes' beats in the case of
/// [`Lane::Beat`] and `broken`.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Takes a message. Messages of one lane of one life of a node come in the
    /// order in which they were sent, each at most once; there may be gaps.
    /// After one of a later life, none of an earlier life comes.
    fn message(&self, from: Speaker, lane: Lane, bytes: Bytes);

    /// Takes note that the beat lane's connection to a node was reset, refused
    /// or closed: at once, and once until there is a connection again.
    fn broken(&self, node: NodeId);

    /// Answers a question. It is dropped unfinished when its deadline passes or its asker is gone.
    async fn call(&self, from: Speaker, kind: &str, body: Bytes) -> Result<Bytes, Refusal>;
}
