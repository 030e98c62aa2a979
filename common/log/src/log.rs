//! The one interface that the layers know.

use async_trait::async_trait;

use crate::{Append, Batch, LogUse, Result, TopicSpec};

/// An ordered, partitioned, durable log. Used as `Arc<dyn Log>`.
///
/// Every method may be called from any number of tasks at once and is cancellation safe: dropping
/// the future of [`Log::append`] leaves it open whether the batch was appended.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Makes the topic durably unless it exists. Idempotent; an existing topic with another
    /// partition count is [`PartitionMismatch`](crate::LogError::PartitionMismatch).
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()>;

    /// Gives the number of partitions of a topic.
    async fn partitions(&self, topic: &str) -> Result<u32>;

    /// Appends the batch to one partition, in order, and gives the offset of each record.
    ///
    /// `Ok` means durable as the implementation promises. The offsets grow, but records of other
    /// batches, or holes, may lie between them. After an error nothing of the batch is in the log,
    /// but for [`Indeterminate`](crate::LogError::Indeterminate) and
    /// [`Unavailable`](crate::LogError::Unavailable), where part of it may be.
    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>>;

    /// Reads records from `from` on, in offset order, without waiting for new ones.
    ///
    /// Gives at most `max_records`, and at most `max_bytes` of keys and payloads but at least one
    /// record if there is one, however large. Offsets may have holes: continue at
    /// [`Batch::next`], which moves past them, not at the last record plus one. `from` below the
    /// start is [`Truncated`](crate::LogError::Truncated), above the end
    /// [`BeyondEnd`](crate::LogError::BeyondEnd).
    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch>;

    /// Gives the first offset that can still be read.
    async fn start_offset(&self, topic: &str, partition: u32) -> Result<u64>;

    /// Gives the offset after the last committed record; `[start, end)` can be read.
    async fn end_offset(&self, topic: &str, partition: u32) -> Result<u64>;

    /// Waits until the end is above `from` and gives it; at once if it is already.
    ///
    /// What is new may be holes only. `from` above the end is
    /// [`BeyondEnd`](crate::LogError::BeyondEnd); a topic that went away, or a log that is closed,
    /// ends the wait with an error.
    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> Result<u64>;

    /// Allows everything below `before` to be deleted. The start never passes `before`, and may
    /// stay below it: the embedded log deletes whole files. `before` above the end is
    /// [`BeyondEnd`](crate::LogError::BeyondEnd).
    async fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<()>;

    /// Tells what its queues and caches hold in memory, of all topics together; nothing where the
    /// implementation has none or can't tell.
    fn memory(&self) -> LogUse {
        LogUse::default()
    }
}
