//! Errors of the log; a variant is what the caller can do about it.

use std::path::PathBuf;

/// Result of a log operation.
pub type Result<T, E = LogError> = std::result::Result<T, E>;

/// Says what a caller does after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Trying again later may succeed without anyone acting.
    Later,
    /// Trying again changes nothing until a person or the caller's own recovery acts.
    Never,
}

/// Why a log refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The topic was never made, or was deleted.
    #[error("topic {topic} does not exist: create it with ensure_topic first")]
    UnknownTopic {
        /// The topic asked for.
        topic: String,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has partitions 0 to {}, not {partition}", .partitions.saturating_sub(1))]
    UnknownPartition {
        /// The topic asked for.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// Partitions the topic has.
        partitions: u32,
    },
    /// The topic exists with another partition count. A count never changes: keys would move.
    #[error(
        "topic {topic} has {existing} partitions, not {asked}: use a new topic, a partition count never changes"
    )]
    PartitionMismatch {
        /// The topic asked for.
        topic: String,
        /// Partitions it has.
        existing: u32,
        /// Partitions asked for.
        asked: u32,
    },
    /// The topic can't be made as described.
    #[error("topic '{topic}' refused: {reason}")]
    InvalidTopic {
        /// The topic asked for.
        topic: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The reader is behind what is kept; `[from, start)` must come from the master dataset.
    #[error(
        "offsets [{from}, {start}) of {topic}/{partition} are no longer in the log: read them from the master dataset, or continue at {start}"
    )]
    Truncated {
        /// The topic read.
        topic: String,
        /// The partition read.
        partition: u32,
        /// Where the reader wanted to read.
        from: u64,
        /// First offset still there.
        start: u64,
    },
    /// The caller knows offsets that the log doesn't have: the log was recreated, or lost its end.
    #[error(
        "offset {from} of {topic}/{partition} is beyond its end {end}: the topic was recreated or lost records, readers of it must stop"
    )]
    BeyondEnd {
        /// The topic read.
        topic: String,
        /// The partition read.
        partition: u32,
        /// Position that the caller gave.
        from: u64,
        /// End of the partition.
        end: u64,
    },
    /// The batch is larger than the log takes at once; nothing of it was appended.
    #[error("batch or record of {bytes} bytes refused: the limit is {bytes_max}")]
    TooLarge {
        /// Size of what was given.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Stored bytes are not what was written; never skipped, a person decides.
    #[error("{} is corrupt at byte {position}: {what}; restore it from a copy of the data folder", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte in the file.
        position: u64,
        /// What was found.
        what: String,
    },
    /// Another process has the directory.
    #[error("{} is in use by another process: stop it, or choose another directory", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The disk is full or the quota is used up; nothing of the batch was appended.
    #[error("{}: no space to append: free some, appends then succeed again", .path.display())]
    Full {
        /// The file that couldn't grow.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The outcome of an append is not known: it may or may not be in the log. Appending again may
    /// double it, which the newest rule makes harmless for readings.
    #[error("append to {topic}/{partition} has an unknown outcome: {reason}")]
    Indeterminate {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What happened.
        reason: String,
    },
    /// The log can't be reached now.
    #[error("{action}: the log is unavailable: {reason}")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// What the client library said.
        reason: String,
    },
    /// The log refused for a reason that waiting doesn't change (authorisation, configuration).
    #[error("{action}: {reason}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// What the client library said.
        reason: String,
    },
    /// Records of the batch can't be written in the topic's format; nothing of it was appended.
    #[error("{} records of the batch can't be written in the topic's format: {}", .refused.len(), .refused.first().map_or("", |(_, reason)| reason.as_str()))]
    Unwritable {
        /// The place in the batch of each such record, in order, and why.
        refused: Vec<(usize, String)>,
    },
    /// The address doesn't name a log.
    #[error(
        "'{address}' does not name a log: {reason}; use embedded:DIR, memory: or kafka://HOST:PORT,…?option=value"
    )]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log was closed while the call waited.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Says whether trying again can help by itself.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Full { .. } | Self::Unavailable { .. } | Self::Indeterminate { .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}
