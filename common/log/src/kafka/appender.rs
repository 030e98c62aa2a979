//! Appends to Kafka: acks from all in-sync replicas, idempotent, to the partition it is told.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::address::KafkaAddress;
use super::context::{Context, Deliveries, Fate};
use super::fault::{explain, is_certainly_absent, is_unknown};
use crate::{Append, LogError, Result};

type Producer = ThreadedProducer<Context>;

/// Wait between attempts while the client's queue is full; deliveries free it.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(2);

/// Owns the producer, and replaces it should it fail for good.
pub(super) struct Appender {
    address: KafkaAddress,
    producer: RwLock<Arc<Producer>>,
}

impl Appender {
    pub(super) fn new(address: &KafkaAddress) -> Result<Self> {
        let producer = RwLock::new(connect(address)?);
        Ok(Self { address: address.clone(), producer })
    }

    /// Appends a batch to a partition that exists, and gives the offsets.
    pub(super) async fn append(&self, topic: &str, partition: u32, records: &[Append]) -> Result<Vec<u64>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes_max = self.address.message_bytes_max();
        // What Kafka adds to a message at most.
        let overhead = 512;
        if let Some(large) = records.iter().find(|r| r.bytes() + overhead > bytes_max) {
            return Err(LogError::TooLarge { bytes: large.bytes(), bytes_max });
        }
        let producer = self.producer.read().clone();
        let (deliveries, fate) = Deliveries::expect(records.len());
        for record in records {
            enqueue(&producer, topic, partition, record, &deliveries).await;
        }
        let fate = fate.await.map_err(|_| LogError::Closed)?;
        if fate.errors.iter().any(is_fatal) || producer.client().fatal_error().is_some() {
            self.replace(&producer)?;
        }
        conclude(topic, partition, fate)
    }

    /// Replaces a producer that failed for good, unless another caller did.
    fn replace(&self, failed: &Arc<Producer>) -> Result<()> {
        let mut current = self.producer.write();
        if Arc::ptr_eq(&current, failed) {
            tracing::warn!("producer failed for good, it is replaced");
            *current = connect(&self.address)?;
        }
        Ok(())
    }
}

fn connect(address: &KafkaAddress) -> Result<Arc<Producer>> {
    let producer = Producer::from_config_and_context(&address.producer(), Context::default());
    Ok(Arc::new(producer.map_err(|e| explain("start the Kafka producer", &e))?))
}

fn is_fatal(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
}

/// Gives one message to the client, waiting for room.
async fn enqueue(
    producer: &Producer,
    topic: &str,
    partition: u32,
    append: &Append,
    deliveries: &Arc<Deliveries>,
) {
    loop {
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, deliveries.clone())
            .partition(partition.cast_signed())
            .payload(&append.payload[..]);
        if let Some(key) = &append.key {
            record = record.key(&key[..]);
        }
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                tokio::time::sleep(QUEUE_FULL_WAIT).await;
            }
            // No report follows for what was never queued.
            Err((error, _)) => return deliveries.note(Err(error)),
        }
    }
}

/// Decides what the caller is told.
fn conclude(topic: &str, partition: u32, fate: Fate) -> Result<Vec<u64>> {
    let Fate { mut offsets, errors } = fate;
    let Some(first) = errors.first() else {
        // One partition, one idempotent producer: the order of the batch is that of the offsets.
        offsets.sort_unstable();
        let known = offsets.into_iter().map(u64::try_from).collect::<Result<Vec<_>, _>>();
        let reason = "the records are in the log, but a repeated request has lost their offsets";
        return known.map_err(|_| indeterminate(topic, partition, reason));
    };
    if !offsets.is_empty() || !errors.iter().all(is_certainly_absent) {
        return Err(indeterminate(topic, partition, &first.to_string()));
    }
    if is_unknown(first) {
        return Err(LogError::UnknownTopic { topic: topic.to_owned() });
    }
    Err(explain("append", first))
}

fn indeterminate(topic: &str, partition: u32, reason: &str) -> LogError {
    LogError::Indeterminate { topic: topic.to_owned(), partition, reason: reason.to_owned() }
}
