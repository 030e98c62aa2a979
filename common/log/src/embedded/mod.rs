//! A durable log on local disk: the default on one machine.
//!
//! ```text
//!   append ─▶ queue ─▶ writer thread ─▶ frames ─▶ one write, one sync ─▶ visible ─▶ acknowledged
//!             bounded   per partition                                    │
//!                                                  wait_beyond ◀─────────┤
//!   read ◀── recent records in memory ◀──────────────────────────────────┘
//!        ◀── files, checked record by record
//! ```
//!
//! Promised: an acknowledged append survives the end of the process and, with
//! [`Durability::Sync`], of the machine; offsets have no holes; each record is checked on every
//! read from disk; a write that never finished is cut off at the next start, with a log line;
//! damage to what was durable is an error, never skipped; with a full disk appends fail, and
//! succeed again when there is space.
//!
//! Not promised: that an append which failed with an unknown outcome, or was never answered, is
//! absent; that damage to the very last write before a crash can be told from an unfinished write.

mod disk;
mod frame;
pub mod inspect;
mod partition;
mod recent;
mod scan;
#[cfg(test)]
mod tests;
mod topic;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use self::disk::{create_dir, failed, sync_dir};
use self::partition::{Found, Partition};
use self::topic::{Context, Topic};
use self::writer::{Counters, Request};
use crate::blocking::blocking;
use crate::memory::system_time_us;
use crate::take::Limit;
use crate::{Append, Batch, Log, LogError, LogUse, Result, TopicSpec};

const LOCK_FILE: &str = "~lock";

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is on disk: it survives a loss of power.
    #[default]
    Sync,
    /// When the operating system has it: it survives the end of the process, not of the machine.
    /// For tests and for measuring, never the default.
    OsBuffer,
}

/// Settings of an embedded log.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// When an append is acknowledged.
    pub durability: Durability,
    /// Size at which the next file is started; up to 1 GiB.
    pub file_bytes: u64,
    /// Bytes of appends that may wait for each partition; also the largest batch.
    pub queue_bytes_max: usize,
    /// Memory for the newest records of each partition.
    pub recent_bytes_max: usize,
    /// Gives the append time, in microseconds since 1970 UTC; called once for each commit.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            file_bytes: 64 << 20,
            queue_bytes_max: 32 << 20,
            recent_bytes_max: 8 << 20,
            clock: Arc::new(system_time_us),
        }
    }
}

impl fmt::Debug for EmbeddedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConfig")
            .field("durability", &self.durability)
            .field("file_bytes", &self.file_bytes)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("recent_bytes_max", &self.recent_bytes_max)
            .finish_non_exhaustive()
    }
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EmbeddedStats {
    /// Records appended.
    pub records: u64,
    /// Groups of appends committed together.
    pub commits: u64,
    /// Calls to the file system to make data durable.
    pub syncs: u64,
}

/// A log in a directory of this machine. One process has it at a time.
#[derive(Debug)]
pub struct EmbeddedLog {
    // Dropped in this order: the writers end before the lock is given up.
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    creating: Arc<tokio::sync::Mutex<()>>,
    dir: PathBuf,
    context: Context,
    _lock: File,
}

impl EmbeddedLog {
    /// Opens the log in `dir` with default settings, making the directory if need be. Blocks.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, EmbeddedConfig::default())
    }

    /// Opens the log in `dir`, making the directory if need be. Blocks while the newest file of
    /// each partition is checked, and what a crash left is cleared.
    pub fn open_with(dir: impl AsRef<Path>, mut config: EmbeddedConfig) -> Result<Self> {
        let dir = dir.as_ref();
        config.file_bytes = config.file_bytes.clamp(1, 1 << 30);
        config.queue_bytes_max = config.queue_bytes_max.clamp(1, 1 << 30);
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(|e| failed("create directory", parent, e))?;
        }
        create_dir(dir)?;
        let lock = lock(dir)?;
        let context = Context { config: Arc::new(config), counters: Arc::new(Counters::default()) };
        let topics = topic::open_all(dir, &context)?;
        let topics = topics.into_iter().map(|(name, topic)| (name, Arc::new(topic))).collect();
        Ok(Self {
            topics: RwLock::new(topics),
            creating: Arc::default(),
            dir: dir.to_owned(),
            context,
            _lock: lock,
        })
    }

    /// Tells what the log has done since it was opened.
    pub fn stats(&self) -> EmbeddedStats {
        let counters = &self.context.counters;
        EmbeddedStats {
            records: counters.records.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
        }
    }

    fn topic(&self, topic: &str) -> Result<Arc<Topic>> {
        let found = self.topics.read().get(topic).cloned();
        found.ok_or_else(|| LogError::UnknownTopic { topic: topic.to_owned() })
    }

    fn partition(&self, topic: &str, partition: u32) -> Result<Arc<Partition>> {
        let found = self.topic(topic)?;
        Ok(handle(&found, topic, partition)?.shared.clone())
    }
}

fn handle<'a>(found: &'a Topic, topic: &str, partition: u32) -> Result<&'a topic::Handle> {
    let partitions = found.partitions.len() as u32;
    let handle = found.partitions.get(partition as usize);
    let topic = || topic.to_owned();
    handle.ok_or_else(|| LogError::UnknownPartition { topic: topic(), partition, partitions })
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| failed("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path }),
        Err(TryLockError::Error(e)) => Err(failed("lock", &path, e)),
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        spec.validate()?;
        let creating = self.creating.clone().lock_owned().await;
        if let Ok(existing) = self.topic(&spec.name) {
            let existing = existing.partitions.len() as u32;
            if existing != spec.partitions {
                let (topic, asked) = (spec.name.clone(), spec.partitions);
                return Err(LogError::PartitionMismatch { topic, existing, asked });
            }
            return Ok(());
        }
        let (dir, wanted, context) = (self.dir.clone(), spec.clone(), self.context.clone());
        // The topic is dropped before the guard should this future be: no two make it at once.
        let (topic, _creating) = blocking(move || {
            let topic = match topic::open(&dir, &wanted.name, &context)? {
                Some(topic) => topic,
                None => topic::create(&dir, &wanted, &context)?,
            };
            sync_dir(&dir)?;
            Ok((topic, creating))
        })
        .await?;
        self.topics.write().insert(spec.name.clone(), Arc::new(topic));
        Ok(())
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        Ok(self.topic(topic)?.partitions.len() as u32)
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>> {
        let found = self.topic(topic)?;
        let handle = handle(&found, topic, partition)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes_max = self.context.config.queue_bytes_max;
        let bytes = records.iter().map(|r| frame::FRAME_BYTES + r.bytes()).sum();
        let room = u32::try_from(bytes).ok().filter(|_| bytes <= bytes_max);
        let room = room.ok_or(LogError::TooLarge { bytes, bytes_max })?;
        let room = handle.room.clone().acquire_many_owned(room).await;
        let room = room.map_err(|_| LogError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let queue = handle.queue.as_ref().ok_or(LogError::Closed)?;
        let request = Request { records, reply, room };
        queue.send(request).await.map_err(|_| LogError::Closed)?;
        Ok(answer.await.map_err(|_| LogError::Closed)??.collect())
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch> {
        let shared = self.partition(topic, partition)?;
        let limit = Limit { records_max: max_records, bytes_max: max_bytes };
        match shared.find(from, &limit)? {
            Found::Now(batch) => Ok(batch),
            Found::OnDisk(lookup) => blocking(move || shared.read_disk(lookup, from, limit)).await,
        }
    }

    async fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.partition(topic, partition)?.start())
    }

    async fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.partition(topic, partition)?.end())
    }

    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> Result<u64> {
        let shared = self.partition(topic, partition)?;
        let mut end = shared.watch_end();
        if from > shared.end() {
            shared.check(from)?;
        }
        let end = end.wait_for(|end| *end > from).await;
        end.map(|end| *end).map_err(|_| LogError::Closed)
    }

    async fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<()> {
        let shared = self.partition(topic, partition)?;
        if before > shared.end() {
            shared.check(before)?;
        }
        blocking(move || shared.trim(before)).await
    }

    fn memory(&self) -> LogUse {
        let topics = self.topics.read();
        let (queue_max, recent_max) =
            (self.context.config.queue_bytes_max, self.context.config.recent_bytes_max);
        let mut sum = LogUse::default();
        for handle in topics.values().flat_map(|topic| &topic.partitions) {
            sum.queue_bytes += queue_max.saturating_sub(handle.room.available_permits()) as u64;
            sum.queue_bytes_max += queue_max as u64;
            sum.recent_bytes += handle.shared.recent_bytes() as u64;
            sum.recent_bytes_max += recent_max as u64;
        }
        sum
    }
}
