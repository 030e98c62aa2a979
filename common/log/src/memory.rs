//! A log in memory, for simulation and tests: nothing in it depends on time or threads but what is
//! given to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{Append, Batch, Log, LogError, Record, Result, TopicSpec};

/// Largest batch accepted, the same as the embedded log's, so that a test in memory meets it too.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Where append times come from.
#[derive(Debug)]
enum Clock {
    System,
    Given(AtomicI64),
}

/// Keeps topics in memory. Durable as long as the value lives.
#[derive(Debug)]
pub struct MemoryLog {
    clock: Clock,
    topics: RwLock<BTreeMap<String, Vec<Partition>>>,
}

#[derive(Debug)]
struct Partition {
    kept: Mutex<Kept>,
    /// The committed end; sent while `kept` is locked.
    end: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Record>,
    start: u64,
    end: u64,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// Makes an empty log that stamps records with the system's time.
    pub fn new() -> Self {
        Self { clock: Clock::System, topics: RwLock::default() }
    }

    /// Makes an empty log that stamps records with a time that only [`Self::set_time_us`] moves.
    pub fn simulated(time_us: i64) -> Self {
        Self { clock: Clock::Given(AtomicI64::new(time_us)), topics: RwLock::default() }
    }

    /// Sets the time with which later appends are stamped; it may step back.
    ///
    /// # Panics
    /// If the log isn't [`Self::simulated`].
    pub fn set_time_us(&self, time_us: i64) {
        match &self.clock {
            Clock::Given(now) => now.store(time_us, Ordering::Relaxed),
            Clock::System => panic!("only a simulated log's time can be set"),
        }
    }

    /// Takes `count` offsets that hold no record, as a transaction marker or compaction leaves in
    /// Kafka, and gives the new end.
    pub fn append_hole(&self, topic: &str, partition: u32, count: u64) -> Result<u64> {
        self.with(topic, partition, |p| {
            let mut kept = p.kept.lock();
            kept.end += count;
            p.end.send_replace(kept.end);
            Ok(kept.end)
        })
    }

    /// Appends at once; [`Log::append`] without a future.
    pub fn append_now(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>> {
        let time_us = self.time_us();
        self.with(topic, partition, |p| {
            let bytes = records.iter().map(Append::bytes).sum();
            if bytes > BATCH_BYTES_MAX {
                return Err(LogError::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
            }
            let mut kept = p.kept.lock();
            let first = kept.end;
            for record in records {
                let offset = kept.end;
                let Append { key, payload } = record;
                kept.records.push_back(Record { offset, append_time_us: time_us, key, payload });
                kept.end += 1;
            }
            p.end.send_replace(kept.end);
            Ok((first..kept.end).collect())
        })
    }

    fn time_us(&self) -> i64 {
        match &self.clock {
            Clock::Given(now) => now.load(Ordering::Relaxed),
            Clock::System => system_time_us(),
        }
    }

    fn with<T>(&self, topic: &str, partition: u32, f: impl FnOnce(&Partition) -> Result<T>) -> Result<T> {
        let topics = self.topics.read();
        let partitions =
            topics.get(topic).ok_or_else(|| LogError::UnknownTopic { topic: topic.to_owned() })?;
        let found = partitions.get(partition as usize).ok_or(LogError::UnknownPartition {
            topic: topic.to_owned(),
            partition,
            partitions: partitions.len() as u32,
        })?;
        f(found)
    }
}

/// Reads the system's clock in microseconds since 1970 UTC.
pub(crate) fn system_time_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, std::ops::Neg::neg),
    }
}

impl Kept {
    /// Refuses a position outside `[start, end]`.
    fn check(&self, topic: &str, partition: u32, from: u64) -> Result<()> {
        let topic = topic.to_owned();
        if from < self.start {
            return Err(LogError::Truncated { topic, partition, from, start: self.start });
        }
        if from > self.end {
            return Err(LogError::BeyondEnd { topic, partition, from, end: self.end });
        }
        Ok(())
    }

    fn read(&self, from: u64, max_records: usize, max_bytes: usize) -> Batch {
        let first = self.records.partition_point(|r| r.offset < from);
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        for record in self.records.range(first..) {
            bytes += record.bytes();
            if records.len() == max_records || (bytes > max_bytes && !records.is_empty()) {
                let next = if records.is_empty() { from } else { record.offset };
                return Batch { records, next, end: self.end };
            }
            records.push(record.clone());
        }
        Batch { records, next: self.end, end: self.end }
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        spec.validate()?;
        let mut topics = self.topics.write();
        if let Some(existing) = topics.get(&spec.name) {
            let existing = existing.len() as u32;
            if existing != spec.partitions {
                let (topic, asked) = (spec.name.clone(), spec.partitions);
                return Err(LogError::PartitionMismatch { topic, existing, asked });
            }
            return Ok(());
        }
        let partition = |_| Partition { kept: Mutex::default(), end: watch::Sender::new(0) };
        topics.insert(spec.name.clone(), (0..spec.partitions).map(partition).collect());
        Ok(())
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        let topics = self.topics.read();
        let found = topics.get(topic);
        found
            .map(|partitions| partitions.len() as u32)
            .ok_or_else(|| LogError::UnknownTopic { topic: topic.to_owned() })
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>> {
        self.append_now(topic, partition, records)
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch> {
        self.with(topic, partition, |p| {
            let kept = p.kept.lock();
            kept.check(topic, partition, from)?;
            Ok(kept.read(from, max_records, max_bytes))
        })
    }

    async fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, |p| Ok(p.kept.lock().start))
    }

    async fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, |p| Ok(p.kept.lock().end))
    }

    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> Result<u64> {
        let mut end = self.with(topic, partition, |p| {
            let kept = p.kept.lock();
            if from > kept.end {
                kept.check(topic, partition, from)?;
            }
            Ok(p.end.subscribe())
        })?;
        let end = end.wait_for(|end| *end > from).await;
        end.map(|end| *end).map_err(|_| LogError::Closed)
    }

    async fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<()> {
        self.with(topic, partition, |p| {
            let mut kept = p.kept.lock();
            if before <= kept.start {
                return Ok(());
            }
            kept.check(topic, partition, before)?;
            let gone = kept.records.partition_point(|r| r.offset < before);
            kept.records.drain(..gone);
            kept.start = before;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn with_log(_case: &str, run: impl AsyncFnOnce(&dyn Log, &str)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let log = MemoryLog::new();
        runtime.expect("start a runtime").block_on(run(&log, "readings"));
    }

    crate::log_contract!(with_log);

    fn simulated() -> MemoryLog {
        let log = MemoryLog::simulated(1000);
        block_on(log.ensure_topic(&TopicSpec::new("t", 1))).expect("make a topic");
        log
    }

    #[test]
    fn records_carry_the_simulated_time_even_when_it_steps_back() {
        let log = simulated();
        log.append_now("t", 0, vec![Append::unkeyed("a")]).expect("append");
        log.set_time_us(500);
        log.append_now("t", 0, vec![Append::unkeyed("b")]).expect("append");
        let batch = block_on(log.read("t", 0, 0, 10, 100)).expect("read");
        assert_eq!(batch.records.iter().map(|r| r.append_time_us).collect::<Vec<_>>(), [1000, 500]);
    }

    #[test]
    fn reading_moves_past_holes() {
        let log = simulated();
        assert_eq!(log.append_hole("t", 0, 2).expect("hole"), 2);
        let record = || vec![Append::unkeyed("x")];
        assert_eq!(log.append_now("t", 0, record()).expect("append"), [2]);
        assert_eq!(log.append_hole("t", 0, 3).expect("hole"), 6);
        assert_eq!(log.append_now("t", 0, record()).expect("append"), [6]);
        log.append_hole("t", 0, 1).expect("hole");
        let read = |from, max_records| {
            let batch = block_on(log.read("t", 0, from, max_records, 100)).expect("read");
            (batch.records.iter().map(|r| r.offset).collect::<Vec<_>>(), batch.next, batch.end)
        };
        assert_eq!(read(0, 1), (vec![2], 6, 8), "a full read continues at the next record");
        assert_eq!(read(3, 1), (vec![6], 8, 8), "the hole at the end is passed");
        assert_eq!(read(0, 9), (vec![2, 6], 8, 8));
        assert_eq!(read(7, 9), (vec![], 8, 8), "a hole alone still moves the reader");
    }

    #[test]
    fn a_hole_ends_a_wait() {
        let log = simulated();
        log.append_hole("t", 0, 1).expect("hole");
        assert_eq!(block_on(log.wait_beyond("t", 0, 0)).expect("wait"), 1);
    }
}
