//! What goes into a log and what comes out of it.

use bytes::Bytes;

use crate::{LogError, Result};

/// Names a topic and says how it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name: 1 to 249 of `a-z A-Z 0-9 . _ -`, as Kafka allows, so that a topic can move there.
    pub name: String,
    /// Number of partitions, fixed for the life of the topic.
    pub partitions: u32,
    /// Bytes a partition may keep before its oldest files are deleted; unlimited when absent.
    /// Takes effect when the topic is made; the log in memory keeps everything.
    pub retention_bytes: Option<u64>,
}

impl TopicSpec {
    /// Describes a topic whose records are kept until they are trimmed.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        Self { name: name.into(), partitions, retention_bytes: None }
    }

    /// Limits each partition to about `bytes`; the oldest records go first.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// Checks the name and the partition count.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason| Err(LogError::InvalidTopic { topic: self.name.clone(), reason });
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.name.is_empty() || self.name.len() > 249 {
            return refuse("a topic name has 1 to 249 characters");
        }
        if self.name == "." || self.name == ".." || !self.name.chars().all(legal) {
            return refuse("a topic name is made of a-z A-Z 0-9 . _ - and is not . or ..");
        }
        if self.partitions == 0 || self.partitions > 100_000 {
            return refuse("a topic has 1 to 100000 partitions");
        }
        Ok(())
    }
}

/// One record to append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Append {
    /// Key, by which the producer chose the partition.
    pub key: Option<Bytes>,
    /// Payload; the log doesn't look into it.
    pub payload: Bytes,
}

impl Append {
    /// Makes a record with a key.
    pub fn keyed(key: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), payload: payload.into() }
    }

    /// Makes a record without a key.
    pub fn unkeyed(payload: impl Into<Bytes>) -> Self {
        Self { key: None, payload: payload.into() }
    }

    /// Bytes of key and payload, the measure of every `max_bytes`.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.len()
    }
}

/// One record as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in its partition.
    pub offset: u64,
    /// When the log took it, in microseconds since 1970 UTC; it may step back with the clock.
    pub append_time_us: i64,
    /// Key, if the record has one; an empty key is a key.
    pub key: Option<Bytes>,
    /// Payload as appended.
    pub payload: Bytes,
}

impl Record {
    /// Bytes of key and payload, the measure of every `max_bytes`.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.len()
    }
}

/// What one read gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Records in offset order, all in `[from, next)`.
    pub records: Vec<Record>,
    /// Where to continue. Everything in `[from, next)` is in `records` or is a hole; equals `from`
    /// only when there was nothing to read.
    pub next: u64,
    /// End of the partition when the read was served; `next == end` means caught up.
    pub end: u64,
}

/// What a log holds in memory, with the bounds; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogUse {
    /// Appends that wait to be written.
    pub queue_bytes: u64,
    /// The most that may wait; a further append waits outside.
    pub queue_bytes_max: u64,
    /// The newest records, kept for readers at the end.
    pub recent_bytes: u64,
    /// The most that are kept.
    pub recent_bytes_max: u64,
}
