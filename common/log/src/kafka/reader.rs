//! Reads from Kafka at any offset, for several readers of a partition at once.
//!
//! A consumer of librdkafka has one place for each partition. Readers at different places (the
//! speed layer at the end, the archiver behind it) would drag one consumer to and fro and throw
//! away what it fetched ahead, so there are a few consumers, *lanes*; each read goes to the lane
//! that stands where it wants to read, or takes over the lane that was used least recently.
//!
//! Questions (for the end, the partitions) go to a consumer that reads nothing: a broker answers a
//! connection in order, so they would wait behind each fetch that waits for records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use tokio::sync::Notify;

use super::address::KafkaAddress;
use super::context::Context;
use super::cursor::{Cursor, Reached};
use super::fault::{explain, is_moving, is_out_of_range, is_unknown};
use crate::take::{Limit, Take};
use crate::{Batch, LogError, Result};

/// Places of one partition that are read at the same time without seeking.
const LANES_MAX: usize = 3;

/// Wait while a partition gets another leader.
const LEADER_WAIT: Duration = Duration::from_millis(50);

/// How long a failed call listens for what the client has to say of it.
const EVENTS_WAIT: Duration = Duration::from_millis(100);
/// Most events taken for one explanation.
const EVENTS_MAX: usize = 8;

/// A topic and one of its partitions.
type Place = (String, u32);

/// Serves reads; every method blocks.
pub(super) struct Reader {
    address: KafkaAddress,
    /// Longest that one question to the cluster may take.
    timeout: Duration,
    questions: Arc<Lane>,
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// Highest end of each partition that was seen.
    ends: Mutex<BTreeMap<Place, u64>>,
    /// Partition counts that were seen.
    topics: Mutex<BTreeMap<String, u32>>,
    uses: AtomicU64,
}

struct Lane {
    timeout: Duration,
    consumer: Arc<BaseConsumer<Context>>,
    slots: Mutex<BTreeMap<Place, Arc<Slot>>>,
}

/// A lane's cursor in one partition.
struct Slot {
    cursor: Mutex<Option<Cursor>>,
    /// Where the cursor stands, to find it without waiting for it.
    position: AtomicU64,
    used: AtomicU64,
    arrived: Arc<Notify>,
}

/// A slot chosen for a read, with its lane.
struct Chosen {
    lane: Arc<Lane>,
    slot: Arc<Slot>,
}

impl Reader {
    pub(super) fn new(address: &KafkaAddress) -> Result<Self> {
        Ok(Self {
            address: address.clone(),
            timeout: address.request_timeout(),
            // Made now, so that settings that librdkafka refuses are told at once.
            questions: Lane::new(address)?,
            lanes: Mutex::default(),
            ends: Mutex::default(),
            topics: Mutex::default(),
            uses: AtomicU64::new(0),
        })
    }

    /// Gives the partition count of a topic, and the number of brokers, as the cluster says now.
    pub(super) fn describe(&self, topic: &str) -> Result<(Option<u32>, usize)> {
        self.questions.serve_events();
        let metadata = self.questions.consumer.fetch_metadata(Some(topic), self.timeout);
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(error) if is_unknown(&error) => return Ok((None, 0)),
            Err(error) => return Err(self.questions.explain("ask for a topic", &error)),
        };
        let brokers = metadata.brokers().len();
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let error = found.and_then(|t| t.error());
        if let Some(error) = error {
            let error = KafkaError::MetadataFetch(error.into());
            if is_unknown(&error) {
                return Ok((None, brokers));
            }
            return Err(explain("ask for a topic", &error));
        }
        let partitions = found.map(|t| t.partitions().len() as u32).filter(|n| *n > 0);
        Ok((partitions, brokers))
    }

    /// Gives the partition count that a topic has now: someone may have added partitions.
    pub(super) fn count(&self, topic: &str) -> Result<u32> {
        self.forget_count(topic);
        self.partitions(topic)
    }

    /// Gives the partition count of a topic as it was seen first.
    fn partitions(&self, topic: &str) -> Result<u32> {
        if let Some(partitions) = self.topics.lock().get(topic) {
            return Ok(*partitions);
        }
        let (partitions, _) = self.describe(topic)?;
        let topic = topic.to_owned();
        let Some(partitions) = partitions else {
            return Err(LogError::UnknownTopic { topic });
        };
        self.topics.lock().insert(topic, partitions);
        Ok(partitions)
    }

    /// Says whether the partition was seen before; doesn't block.
    pub(super) fn is_known(&self, topic: &str, partition: u32) -> bool {
        self.topics.lock().get(topic).is_some_and(|partitions| partition < *partitions)
    }

    /// Refuses a topic or partition that isn't there.
    pub(super) fn check(&self, topic: &str, partition: u32) -> Result<()> {
        if partition < self.partitions(topic)? {
            return Ok(());
        }
        // It may have grown since it was asked for.
        let partitions = self.count(topic)?;
        if partition < partitions {
            return Ok(());
        }
        Err(LogError::UnknownPartition { topic: topic.to_owned(), partition, partitions })
    }

    fn forget_count(&self, topic: &str) {
        self.topics.lock().remove(topic);
    }

    /// Forgets what was seen of a topic, since the cluster says something else.
    pub(super) fn forget(&self, topic: &str) {
        self.forget_count(topic);
        self.ends.lock().retain(|(name, _), _| name != topic);
    }

    /// Asks for `[start, end)` of a partition.
    pub(super) fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64)> {
        self.check(topic, partition)?;
        self.questions.serve_events();
        let consumer = &self.questions.consumer;
        let deadline = Instant::now() + self.timeout;
        let (start, end) = loop {
            let asked = consumer.fetch_watermarks(topic, partition.cast_signed(), self.timeout);
            match asked {
                Ok(range) => break range,
                Err(error) if is_moving(&error) && Instant::now() < deadline => {
                    // This thread is one for blocking calls.
                    std::thread::sleep(LEADER_WAIT);
                }
                Err(error) if is_unknown(&error) => {
                    return Err(self.explain("ask for offsets", topic, &error));
                }
                Err(error) => return Err(self.questions.explain("ask for offsets", &error)),
            }
        };
        let (start, end) = (start.max(0).cast_unsigned(), end.max(0).cast_unsigned());
        self.ends.lock().insert((topic.to_owned(), partition), end);
        Ok((start, end))
    }

    fn explain(&self, action: &'static str, topic: &str, error: &KafkaError) -> LogError {
        if is_unknown(error) {
            self.forget(topic);
            return LogError::UnknownTopic { topic: topic.to_owned() };
        }
        explain(action, error)
    }

    /// Asks for the range and refuses a position outside; gives the end.
    pub(super) fn end_from(&self, topic: &str, partition: u32, from: u64) -> Result<u64> {
        let (start, end) = self.range(topic, partition)?;
        let topic = || topic.to_owned();
        if from < start {
            return Err(LogError::Truncated { topic: topic(), partition, from, start });
        }
        if from > end {
            return Err(LogError::BeyondEnd { topic: topic(), partition, from, end });
        }
        Ok(end)
    }

    pub(super) fn read(&self, topic: &str, partition: u32, from: u64, limit: Limit) -> Result<Batch> {
        let place = (topic.to_owned(), partition);
        let known = self.ends.lock().get(&place).copied();
        let end = match known {
            Some(end) if from < end => end,
            _ => self.end_from(topic, partition, from)?,
        };
        if from == end || limit.records_max == 0 {
            return Ok(Batch { records: Vec::new(), next: from, end });
        }
        let chosen = self.choose(&place, from)?;
        let mut take = Take::new(from, limit);
        let outcome = chosen.with(&place, from, |cursor| cursor.read(end, &mut take));
        match outcome {
            Ok(Reached::Records) => {
                let end = end.max(take.next());
                self.raise_end(place, end);
                Ok(take.batch(end))
            }
            Ok(Reached::End) => Ok(Batch { records: Vec::new(), next: end, end }),
            Err(error) if is_out_of_range(&error) => {
                // Retention overtook the reader, or the topic was made anew.
                self.end_from(topic, partition, from)?;
                Err(explain("read", &error))
            }
            Err(KafkaError::NoMessageReceived) => Err(LogError::Unavailable {
                action: "read",
                reason: format!("no answer within {:?}", self.timeout),
            }),
            Err(error) => Err(self.explain("read", topic, &error)),
        }
    }

    /// Waits for at most `patience` for the end to pass `from`; gives the end if it did.
    pub(super) async fn wait(
        self: &Arc<Self>,
        topic: &str,
        partition: u32,
        from: u64,
        patience: Duration,
    ) -> Result<Option<u64>> {
        let place = (topic.to_owned(), partition);
        let (reader, wanted) = (self.clone(), place.clone());
        let chosen = super::blocking(move || reader.choose(&wanted, from)).await?;
        let arrived = chosen.slot.arrived.clone();
        let notified = arrived.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        let (reader, wanted) = (self.clone(), place);
        // Looked at after enabling: what comes from now on is told.
        let end = super::blocking(move || reader.look(&chosen, wanted, from)).await?;
        if end > from {
            return Ok(Some(end));
        }
        // Not every new end comes with a record, and a broker may be away: look again then.
        let _ = tokio::time::timeout(patience, notified).await;
        Ok(None)
    }

    fn look(&self, chosen: &Chosen, place: Place, from: u64) -> Result<u64> {
        match chosen.with(&place, from, Cursor::arrived) {
            Ok(Some(offset)) => {
                self.raise_end(place, offset + 1);
                Ok(offset + 1)
            }
            Ok(None) => self.end_from(&place.0, place.1, from),
            Err(error) if is_out_of_range(&error) => {
                self.end_from(&place.0, place.1, from)?;
                Err(explain("wait", &error))
            }
            Err(error) => Err(self.explain("wait", &place.0, &error)),
        }
    }

    fn raise_end(&self, place: Place, end: u64) {
        let mut ends = self.ends.lock();
        let known = ends.entry(place).or_default();
        *known = end.max(*known);
    }

    /// Chooses the slot that stands at `from`, else a free one, else the least recently used.
    fn choose(&self, place: &Place, from: u64) -> Result<Chosen> {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut lanes = self.lanes.lock();
        let slot = |lane: &Arc<Lane>| lane.slots.lock().get(place).cloned();
        let mut chosen: Option<(Arc<Lane>, Arc<Slot>)> = None;
        for lane in lanes.iter() {
            let Some(slot) = slot(lane) else { continue };
            if slot.position.load(Ordering::Acquire) == from {
                chosen = Some((lane.clone(), slot));
                break;
            }
        }
        let free = || lanes.iter().find(|lane| slot(lane).is_none()).cloned();
        let (lane, slot) = match chosen {
            Some(chosen) => chosen,
            None => match free() {
                Some(lane) => lane.add(place, from),
                None if lanes.len() < LANES_MAX => {
                    lanes.push(Lane::new(&self.address)?);
                    lanes[lanes.len() - 1].add(place, from)
                }
                None => {
                    let all = lanes.iter().filter_map(|lane| Some((lane.clone(), slot(lane)?)));
                    all.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed))
                        .expect("every lane has a slot here, or one was free")
                }
            },
        };
        slot.used.store(used, Ordering::Relaxed);
        Ok(Chosen { lane, slot })
    }
}

impl Lane {
    fn new(address: &KafkaAddress) -> Result<Arc<Self>> {
        let consumer = BaseConsumer::from_config_and_context(&address.consumer(), Context::default());
        let consumer = consumer.map_err(|e| explain("start a Kafka consumer", &e))?;
        let (timeout, consumer) = (address.request_timeout(), Arc::new(consumer));
        Ok(Arc::new(Self { timeout, consumer, slots: Mutex::default() }))
    }

    /// Lets the client call back; says whether no record came where none may come: every partition
    /// has a queue of its own.
    fn serve_events(&self) -> bool {
        let mut is_quiet = true;
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                Ok(_) => is_quiet = false,
                Err(error) => tracing::debug!(%error, "consumer event"),
            }
        }
        is_quiet
    }

    /// Explains an error of a call to the cluster, with what was said of the brokers.
    fn explain(&self, action: &'static str, error: &KafkaError) -> LogError {
        // What the client has to say is told on its main queue, behind log lines; no record comes there.
        // While a broker is away it goes on saying so for ever.
        for _ in 0..EVENTS_MAX {
            if self.consumer.poll(EVENTS_WAIT).is_none() {
                break;
            }
        }
        match (explain(action, error), self.consumer.context().take_trouble()) {
            (LogError::Unavailable { action, reason }, Some(trouble)) => {
                LogError::Unavailable { action, reason: format!("{reason}: {trouble}") }
            }
            (explained, _) => explained,
        }
    }

    fn add(self: &Arc<Self>, place: &Place, from: u64) -> (Arc<Self>, Arc<Slot>) {
        let slot = Arc::new(Slot {
            cursor: Mutex::default(),
            position: AtomicU64::new(from),
            used: AtomicU64::new(0),
            arrived: Arc::default(),
        });
        self.slots.lock().insert(place.clone(), slot.clone());
        (self.clone(), slot)
    }
}

impl Chosen {
    /// Uses the slot's cursor at `from`, making or moving it; one that failed is given up.
    fn with<T>(
        &self,
        place: &Place,
        from: u64,
        f: impl FnOnce(&mut Cursor) -> Result<T, KafkaError>,
    ) -> Result<T, KafkaError> {
        if !self.lane.serve_events() {
            tracing::error!("a record came to no partition's queue: the read is refused");
            return Err(KafkaError::NoMessageReceived);
        }
        let mut held = self.slot.cursor.lock();
        let mut cursor = match held.take() {
            Some(cursor) => cursor,
            None => {
                let Lane { consumer, timeout, .. } = &*self.lane;
                let arrived = self.slot.arrived.clone();
                Cursor::start(consumer, (&place.0, place.1), from, *timeout, arrived)?
            }
        };
        let moved = if cursor.position() == from { Ok(()) } else { cursor.seek(from) };
        let result = moved.and_then(|()| f(&mut cursor));
        if result.is_ok() && !cursor.has_failed() {
            self.slot.position.store(cursor.position(), Ordering::Release);
            *held = Some(cursor);
        } else {
            cursor.stop();
        }
        result
    }
}
