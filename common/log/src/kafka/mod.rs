//! The log in an Apache Kafka cluster.
//!
//! ```text
//!   append ─▶ idempotent producer, acks=all ─▶ partition ─▶ acknowledged with its offset
//!   read   ◀─ lane at that offset: consumer, split queue, read_committed ◀─ fetched ahead
//! ```
//!
//! Promised: an append is acknowledged when all in-sync replicas have it; a read shows committed
//! records only; what it passes over are holes (transaction markers, aborted or compacted records),
//! never records that are still to come; a reader that retention overtook, or that knows more than
//! the topic holds, gets an error; a compacted topic is refused.
//!
//! Not promised: that a topic which was deleted, made again and filled beyond a reader's position
//! is told from the first; that appends are visible while a transaction of another producer is open
//! before them. `append_time_us` is the broker's where the topic says `LogAppendTime`, as those made
//! here do, and has the precision of a millisecond.

mod address;
mod appender;
mod context;
mod cursor;
mod fault;
mod presence;
mod reader;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use self::address::KafkaAddress;
use self::appender::Appender;
use self::context::Context;
use self::fault::explain;
use self::presence::Presence;
use self::reader::Reader;
pub use self::secret::without_secrets;
use crate::blocking::blocking;
use crate::take::Limit;
use crate::{Append, Batch, Log, LogError, Result, TopicSpec};

/// Longest that a change of topics may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest that looking at a topic's settings may take; without them it goes on, with a warning.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a wait asks for the end although nothing arrived: a new end may hold no record.
const WAIT_RECHECK: Duration = Duration::from_secs(1);
/// The wait before another look at a topic that was just made.
const CREATED_WAIT: Duration = Duration::from_millis(25);

/// A log in a Kafka cluster.
pub struct KafkaLog {
    appender: Appender,
    reader: Arc<Reader>,
    presence: Mutex<Presence>,
    admin: AdminClient<Context>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Makes the clients for `kafka://HOST:PORT,HOST:PORT?option=value&…`; options go to librdkafka
    /// as they are, values may use `%XX`. A secret such as `sasl.password` may be given as
    /// `sasl.password.file=PATH` or `sasl.password.env=VARIABLE`, read now. Connects when it is used.
    pub fn new(address: &str) -> Result<Self> {
        Self::with_settings(address, &BTreeMap::new())
    }

    /// Makes the clients like [`KafkaLog::new`], with these options where the address doesn't say
    /// otherwise.
    pub fn with_settings(address: &str, settings: &BTreeMap<String, String>) -> Result<Self> {
        let address = KafkaAddress::parse(address, settings)?;
        let admin = AdminClient::from_config_and_context(&address.consumer(), Context::default());
        Ok(Self {
            appender: Appender::new(&address)?,
            reader: Arc::new(Reader::new(&address)?),
            presence: Mutex::new(Presence::new(address.request_timeout())),
            admin: admin.map_err(|e| explain("start the Kafka client", &e))?,
        })
    }

    async fn with_reader<T: Send + 'static>(
        &self,
        topic: &str,
        f: impl FnOnce(&Reader, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let outcome = self.ask(topic, f).await;
        self.judge(topic, outcome)
    }

    /// Asks the cluster, whatever it says of the topic.
    async fn ask<T: Send + 'static>(
        &self,
        topic: &str,
        f: impl FnOnce(&Reader, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reader, topic) = (self.reader.clone(), topic.to_owned());
        blocking(move || f(&reader, &topic)).await
    }

    /// Tells a topic that is gone from one whose brokers are only coming back.
    fn judge<T>(&self, topic: &str, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(_) => self.presence.lock().seen(topic),
            Err(LogError::UnknownTopic { .. }) if !self.presence.lock().is_gone(topic, Instant::now()) => {
                let reason = format!("the cluster denies that there is a topic {topic}, which it had");
                return Err(LogError::Unavailable { action: "find a topic", reason });
            }
            Err(_) => {}
        }
        outcome
    }

    /// Refuses a topic that loses records by itself; warns of one that may lose acknowledged ones.
    async fn check_settings(&self, topic: &str) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(SETTINGS_TIMEOUT));
        let described = self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        let described = described.map(|mut resources| resources.pop());
        let resource = match described {
            Ok(Some(Ok(resource))) => resource,
            // Not every cluster shows its settings to everyone.
            other => {
                let reason = format!("{other:?}");
                tracing::warn!(topic, reason, "settings of the topic not checked");
                return Ok(());
            }
        };
        let value = |name| resource.get(name).and_then(|entry| entry.value.as_deref());
        if value("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            let action = "use a topic";
            let reason = format!("topic {topic} is compacted: set its cleanup.policy to delete");
            return Err(LogError::Refused { action, reason });
        }
        if value("retention.ms").is_some_and(|kept| kept != "-1") {
            tracing::warn!(topic, "the cluster deletes records by age, archived or not: see retention.ms");
        }
        if value("unclean.leader.election.enable") == Some("true") {
            tracing::warn!(topic, "unclean leader election may lose acknowledged records");
        }
        if value("min.insync.replicas") == Some("1") {
            tracing::warn!(topic, "min.insync.replicas is 1: one lost disk may lose acknowledged records");
        }
        Ok(())
    }

    /// Asks every partition: the first append to a new topic then meets none that is still being set up.
    async fn await_leaders(&self, spec: &TopicSpec) -> Result<()> {
        let partitions = spec.partitions;
        let ask = move |reader: &Reader, topic: &str| {
            (0..partitions).try_for_each(|partition| reader.range(topic, partition).map(|_| ()))
        };
        self.ask(&spec.name, ask).await
    }

    async fn create(&self, spec: &TopicSpec, brokers: usize) -> Result<()> {
        let replicas = brokers.clamp(1, 3);
        let in_sync_min = if replicas == 3 { "2" } else { "1" };
        let retention = spec.retention_bytes.map_or("-1".to_owned(), |bytes| bytes.to_string());
        let replication = TopicReplication::Fixed(replicas as i32);
        let topic = NewTopic::new(&spec.name, spec.partitions.cast_signed(), replication)
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", &retention)
            .set("min.insync.replicas", in_sync_min)
            .set("unclean.leader.election.enable", "false")
            .set("message.timestamp.type", "LogAppendTime");
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        let made = self.admin.create_topics([&topic], &options).await;
        let made = made.map_err(|e| explain("make a topic", &e))?;
        for result in made {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    let error = rdkafka::error::KafkaError::AdminOp(code);
                    return Err(explain("make a topic", &error));
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        spec.validate()?;
        let mut known_by: Option<Instant> = None;
        // A topic that was just made is not known to every broker at once, and each question may
        // go to another one.
        while known_by.is_none_or(|known_by| Instant::now() < known_by) {
            let describe = |reader: &Reader, topic: &str| reader.describe(topic);
            match self.ask(&spec.name, describe).await? {
                (Some(existing), _) if existing == spec.partitions => {
                    let ready = if known_by.is_some() { self.await_leaders(spec).await } else { Ok(()) };
                    match ready {
                        Ok(()) => {
                            self.presence.lock().seen(&spec.name);
                            return self.check_settings(&spec.name).await;
                        }
                        Err(LogError::UnknownTopic { .. }) => tokio::time::sleep(CREATED_WAIT).await,
                        Err(error) => return Err(error),
                    }
                }
                (Some(existing), _) => {
                    let (topic, asked) = (spec.name.clone(), spec.partitions);
                    return Err(LogError::PartitionMismatch { topic, existing, asked });
                }
                (None, brokers) if known_by.is_none() => {
                    self.create(spec, brokers).await?;
                    known_by = Some(Instant::now() + ADMIN_TIMEOUT);
                }
                (None, _) => tokio::time::sleep(CREATED_WAIT).await,
            }
        }
        let (action, reason) = ("make a topic", "it was made but no broker knows it".to_owned());
        Err(LogError::Unavailable { action, reason })
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        self.with_reader(topic, Reader::count).await
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>> {
        if !self.reader.is_known(topic, partition) {
            self.with_reader(topic, move |reader, topic| reader.check(topic, partition)).await?;
        }
        let appended = self.appender.append(topic, partition, &records).await;
        if let Err(LogError::UnknownTopic { .. }) = &appended {
            self.reader.forget(topic);
        }
        self.judge(topic, appended)
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch> {
        let limit = Limit { records_max: max_records, bytes_max: max_bytes };
        let read = move |reader: &Reader, topic: &str| {
            reader.check(topic, partition)?;
            reader.read(topic, partition, from, limit)
        };
        self.with_reader(topic, read).await
    }

    async fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        let range = move |reader: &Reader, topic: &str| reader.range(topic, partition);
        Ok(self.with_reader(topic, range).await?.0)
    }

    async fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        let range = move |reader: &Reader, topic: &str| reader.range(topic, partition);
        Ok(self.with_reader(topic, range).await?.1)
    }

    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> Result<u64> {
        let end = move |reader: &Reader, topic: &str| {
            let (_, end) = reader.range(topic, partition)?;
            if from > end {
                reader.end_from(topic, partition, from)?;
            }
            Ok(end)
        };
        let end = self.with_reader(topic, end).await?;
        if end > from {
            return Ok(end);
        }
        loop {
            let waited = self.reader.wait(topic, partition, from, WAIT_RECHECK).await;
            if let Some(end) = self.judge(topic, waited)? {
                return Ok(end);
            }
        }
    }

    async fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<()> {
        let range = move |reader: &Reader, topic: &str| reader.range(topic, partition);
        let (start, end) = self.with_reader(topic, range).await?;
        if before > end {
            let topic = topic.to_owned();
            return Err(LogError::BeyondEnd { topic, partition, from: before, end });
        }
        if before <= start {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(before.cast_signed());
        let added = offsets.add_partition_offset(topic, partition.cast_signed(), offset);
        added.map_err(|e| explain("trim", &e))?;
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        let deleted = self.admin.delete_records(&offsets, &options).await;
        for element in deleted.map_err(|e| explain("trim", &e))?.elements() {
            element.error().map_err(|e| explain("trim", &e))?;
        }
        Ok(())
    }
}
