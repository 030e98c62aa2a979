//! Errors of control; a variant is what the caller can do about it.

use std::path::PathBuf;

use crate::agreed::Founding;
use crate::bodies::BodyError;

/// Why control could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The configuration makes no sense.
    #[error("control's configuration: {0}")]
    Config(String),
    /// The folder can't be used.
    #[error("open control's folder")]
    Store(#[from] StoreError),
    /// No leader took it in time, so it was not done. Try again.
    #[error("no leader of control answered in time; nothing was proposed")]
    NoLeader,
    /// It was proposed, but no answer came: it may or may not be done. Look, then try again.
    #[error("control's answer did not come in time; whether it was done is unknown")]
    Unknown,
    /// The cluster has no map yet: no majority of the first voters has started.
    #[error("the cluster is not founded yet")]
    NotFounded,
    /// The cluster was founded with another map than this node is configured for.
    #[error(
        "the cluster was founded with {} partitions of {} replicas, but this node is configured for {} of {}",
        .founded.partitions, .founded.replicas, .configured.partitions, .configured.replicas
    )]
    FoundedOtherwise {
        /// What the cluster has.
        founded: Founding,
        /// What this node would have.
        configured: Founding,
    },
    /// The voters do not know this kind of command: they are of an earlier version.
    #[error("the voters do not know this command: update them first")]
    UnknownCommand,
    /// The set of voters can't be changed so, or not now.
    #[error("change the voters: {0}")]
    Voters(String),
    /// Control has stopped on this node; its disk, most likely. A person must act.
    #[error("control has stopped on this node: {0}")]
    Stopped(String),
}

/// Why a folder of control can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// RocksDB refused or failed.
    #[error(
        "{action} {}: {source}; if the folder is damaged, take this node out of the voters, delete the \
         folder and add the node again", .folder.display()
    )]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: rocksdb::Error,
    },
    /// A later version of the program has written to it.
    #[error("{} was used by a later version: {what}; update this node", .folder.display())]
    Later {
        /// The folder.
        folder: PathBuf,
        /// What was found.
        what: String,
    },
    /// The folder belongs to another node or cluster.
    #[error(
        "{} belongs to {found}, not to {expected}: give this node its own folder", .folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// What is stored contradicts itself.
    #[error(
        "{} is damaged: {what}; take this node out of the voters, delete the folder and add the node again",
        .folder.display()
    )]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What was found.
        what: String,
    },
}

/// Why a message of another node was not handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The kind is none of [`KINDS`](crate::KINDS).
    #[error("control knows no messages of kind {0:?}")]
    UnknownKind(String),
    /// The message can't be read.
    #[error("read a message of kind {kind}: {why}")]
    Body {
        /// The message's kind.
        kind: String,
        /// What is wrong with it.
        why: String,
    },
    /// Control has stopped on this node.
    #[error("control has stopped on this node: {0}")]
    Stopped(String),
}

impl HandleError {
    pub(crate) fn body(kind: &str, why: &BodyError) -> Self {
        Self::Body { kind: kind.to_owned(), why: why.to_string() }
    }
}
