//! A log whose readers and writers see JSON where the topic holds Avro or Protobuf.
//!
//! A record that can't be read, by its bytes and its schema alone, is handed on as
//! `{"$undecodable":{"reason":…,"bytes":…}}`: the layers refuse it with that reason, each the same,
//! and what they keep of it holds the record's bytes (base64). A schema that the registry does not
//! give *now* is an error that ends the read before the record: whether an id is unknown depends on
//! when one asks, and no reading may depend on that. A person who knows that an id will never be
//! registered declares it refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_log::{Append, Batch, Log, LogError, LogUse, Result, TopicSpec};
use serde_json::json;

use crate::number::bytes_text;
use crate::{Mismatch, Registry, Schema, frame};

/// How the records of a topic are read and written.
#[derive(Clone)]
pub struct TopicFormat {
    /// Gives the schemas.
    pub registry: Registry,
    /// The subject whose latest schema records are written with.
    pub subject: String,
    /// The columns that must not change on the way in.
    pub columns: Vec<String>,
    /// Ids that will never be registered; their records can't be read.
    pub refused_schemas: BTreeSet<u32>,
}

/// Wraps a log; topics without a format pass through. Every promise of [`Log`] holds, but
/// `max_bytes` and `TooLarge` measure the records as the wrapped log holds them.
pub struct TranscodingLog {
    log: Arc<dyn Log>,
    topics: BTreeMap<String, TopicFormat>,
}

type Schemas = BTreeMap<u32, Arc<Result<Schema, Mismatch>>>;

impl TranscodingLog {
    /// Wraps `log`.
    pub fn new(log: Arc<dyn Log>, topics: BTreeMap<String, TopicFormat>) -> Self {
        Self { log, topics }
    }
}

#[async_trait]
impl Log for TranscodingLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        self.log.ensure_topic(spec).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        self.log.partitions(topic).await
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>> {
        let Some(format) = self.topics.get(topic) else {
            return self.log.append(topic, partition, records).await;
        };
        let (id, schema) = format.registry.latest(&format.subject).await.map_err(|error| {
            LogError::Unavailable { action: "ask for the latest schema", reason: error.to_string() }
        })?;
        let columns = format.columns.clone();
        let subject = format.subject.clone();
        let records = blocking(move || encode_all(records, id, &schema, &columns, &subject)).await?;
        self.log.append(topic, partition, records).await
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch> {
        let mut batch = self.log.read(topic, partition, from, max_records, max_bytes).await?;
        let Some(format) = self.topics.get(topic) else { return Ok(batch) };
        let mut schemas = Schemas::new();
        let mut missing = None;
        for (index, record) in batch.records.iter().enumerate() {
            let Ok((id, _)) = frame::split(&record.payload) else { continue };
            if schemas.contains_key(&id) || format.refused_schemas.contains(&id) {
                continue;
            }
            match format.registry.schema(id).await {
                Ok(schema) => drop(schemas.insert(id, schema)),
                Err(error) => {
                    missing = Some((index, error));
                    break;
                }
            }
        }
        if let Some((index, error)) = missing {
            let offset = batch.records[index].offset;
            if index == 0 {
                let reason = format!("record {topic}/{partition}/{offset} waits: {error}");
                return Err(LogError::Unavailable { action: "ask for a record's schema", reason });
            }
            // What can be read comes first; the next read begins at this record.
            batch.records.truncate(index);
            batch.next = offset;
        }
        Ok(blocking(move || {
            for record in &mut batch.records {
                record.payload = readable(&record.payload, &schemas);
            }
            batch
        })
        .await)
    }

    async fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.log.start_offset(topic, partition).await
    }

    async fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.log.end_offset(topic, partition).await
    }

    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> Result<u64> {
        self.log.wait_beyond(topic, partition, from).await
    }

    async fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<()> {
        self.log.trim(topic, partition, before).await
    }

    fn memory(&self) -> LogUse {
        self.log.memory()
    }
}

/// Writes all records, or names those that don't fit the schema.
fn encode_all(
    mut records: Vec<Append>,
    id: u32,
    schema: &Result<Schema, Mismatch>,
    columns: &[String],
    subject: &str,
) -> Result<Vec<Append>> {
    let schema = schema.as_ref().map_err(|mismatch| LogError::Refused {
        action: "write with the latest schema",
        reason: format!("schema {id}, the latest of {subject}, can't be used: {mismatch}"),
    })?;
    let mut refused = Vec::new();
    for (index, record) in records.iter_mut().enumerate() {
        let mut payload = frame::begin(id);
        match schema.encode(&record.payload, columns, &mut payload) {
            Ok(()) => record.payload = payload.into(),
            Err(mismatch) => refused.push((index, format!("schema {id} of {subject}: {mismatch}"))),
        }
    }
    if refused.is_empty() { Ok(records) } else { Err(LogError::Unwritable { refused }) }
}

/// Reads a record as JSON, or says in JSON why it can't be read.
fn readable(record: &Bytes, schemas: &Schemas) -> Bytes {
    let read = frame::split(record).and_then(|(id, payload)| {
        let within = |mismatch: &Mismatch| Mismatch::new(format!("schema {id}: {mismatch}"));
        let Some(schema) = schemas.get(&id) else {
            return Err(Mismatch::new(format!("schema {id} is declared refused")));
        };
        schema.as_ref().as_ref().map_err(within)?.decode(payload).map_err(|mismatch| within(&mismatch))
    });
    match read {
        Ok(json) => json.into(),
        Err(mismatch) => {
            let reason = mismatch.to_string();
            json!({ "$undecodable": { "bytes": bytes_text(record), "reason": reason } }).to_string().into()
        }
    }
}

/// Runs work on the blocking pool: a batch takes longer than a task may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the runtime shuts down while records are being read"),
        },
    }
}
