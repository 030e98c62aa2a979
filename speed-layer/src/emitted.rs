//! What was emitted: the JSON form of closed windows, and the record that keeps
//! each distinct content from being written twice.
//!
//! ```text
//!   append to the topic ──▶ record (revision, content, applied, synced offset)
//!        crash here: the topic is read again from the synced offset, so the
//!        record learns what it missed, and nothing is doubled
//! ```
//!
//! The record is derived from the topic and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Float64Type, Int64Type, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use rocksdb::{DB, Options, WriteBatch};
use sanso_core::PartitionId;
use sanso_state::{Fingerprint, Offset, Value, ValueType};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Remedy, Result};
use crate::rocks::local;

/// One record of an output topic: a closed window's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmittedWindow {
    /// The view's name.
    pub view: String,
    /// The view's version, in full.
    pub version: Fingerprint,
    /// The view partition.
    pub partition: u32,
    /// The grouping key by column.
    pub key: BTreeMap<String, Json>,
    /// The window's start, RFC 3339.
    pub window_start: String,
    /// The window's end, RFC 3339.
    pub window_end: String,
    /// 1 for the first content of the window, then counting up.
    pub revision: u64,
    /// Whether the window had closed before the change that caused this.
    pub late: bool,
    /// The columns of the view but the key's; absent when every reading of the
    /// window was retracted.
    pub values: Option<BTreeMap<String, Json>>,
    /// The offsets of the source's log partitions that the content stands for.
    pub applied: Vec<Offset>,
}

impl EmittedWindow {
    /// Returns the window's identity among all windows of its view, which is
    /// also the record's key in the topic.
    pub fn identity(&self) -> String {
        let key = serde_json::to_string(&self.key).expect("JSON values are JSON");
        format!("{key} {}", self.window_start)
    }

    /// Returns the fingerprint of what is compared: the values.
    pub fn content(&self) -> Fingerprint {
        Fingerprint::of(&serde_json::to_vec(&self.values).expect("JSON values are JSON"))
    }

    /// Names the view partition it came from.
    pub fn source(&self) -> PartitionId {
        PartitionId { view: self.version, index: self.partition }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    revision: u64,
    content: Fingerprint,
}

/// The record of what output topics hold. The topics themselves have all of it, so that a damaged
/// record is made again from them.
pub(crate) struct EmittedRecord {
    /// None when it could not be made again.
    db: Option<DB>,
    path: PathBuf,
}

impl EmittedRecord {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut record = Self { db: None, path: path.to_owned() };
        match open_db(path) {
            Err(error) if error.remedy() == Remedy::Rebuild => record.make_again(&error)?,
            opened => record.db = Some(opened?),
        }
        Ok(record)
    }

    /// Begins an empty record in place of a broken one; the topics fill it.
    pub(crate) fn make_again(&mut self, broken: &Error) -> Result<()> {
        tracing::warn!(
            path = %self.path.display(), error = broken.chain(),
            "the record of emissions is made again from the output topics"
        );
        self.db = None;
        let io = |source| Error::Io { action: "delete", path: self.path.clone(), source };
        std::fs::remove_dir_all(&self.path).map_err(io)?;
        self.db = Some(open_db(&self.path)?);
        Ok(())
    }

    fn db(&self) -> Result<&DB> {
        let gone = || Error::Broken { what: "no record of emissions".into(), path: self.path.clone() };
        self.db.as_ref().ok_or_else(gone)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, key: &[u8]) -> Result<Option<T>> {
        let bytes = self.db()?.get(key).map_err(|e| local("read", &self.path, e))?;
        let broken =
            || Error::Broken { what: "a broken record of emissions".into(), path: self.path.clone() };
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|_| broken())).transpose()
    }

    /// Returns the revision that this content would have; none when it is what
    /// was emitted last, or a retraction of what was never emitted.
    pub(crate) fn revision(&self, window: &EmittedWindow) -> Result<Option<u64>> {
        let last: Option<Last> = self.read(&window_key(window))?;
        Ok(match last {
            None => window.values.is_some().then_some(1),
            Some(last) if last.content == window.content() => None,
            Some(last) => Some(last.revision + 1),
        })
    }

    /// Returns the applied vector of a view partition's last emission.
    pub(crate) fn applied(&self, id: PartitionId) -> Result<Option<Vec<Offset>>> {
        self.read(&applied_key(id))
    }

    /// Returns the offset below which a topic's partition is in the record.
    pub(crate) fn synced(&self, topic: &str, partition: u32) -> Result<Offset> {
        Ok(self.read(&synced_key(topic, partition))?.unwrap_or_default())
    }

    /// Records what a topic's partition holds in `[synced, to)`, in order.
    pub(crate) fn record(
        &self,
        topic: &str,
        partition: u32,
        to: Offset,
        windows: &[EmittedWindow],
    ) -> Result<()> {
        let mut batch = WriteBatch::default();
        let mut put = |key: Vec<u8>, value: serde_json::Result<Vec<u8>>| {
            batch.put(key, value.expect("plain structs are always JSON"));
        };
        let mut applied: BTreeMap<PartitionId, Vec<Offset>> = BTreeMap::new();
        for window in windows {
            let last = Last { revision: window.revision, content: window.content() };
            put(window_key(window), serde_json::to_vec(&last));
            let vector = match applied.remove(&window.source()) {
                Some(vector) => vector,
                None => self.applied(window.source())?.unwrap_or_default(),
            };
            applied.insert(window.source(), greatest(vector, &window.applied));
        }
        for (id, vector) in applied {
            put(applied_key(id), serde_json::to_vec(&vector));
        }
        put(synced_key(topic, partition), serde_json::to_vec(&to));
        self.db()?.write(batch).map_err(|e| local("write", &self.path, e))
    }
}

fn open_db(path: &Path) -> Result<DB> {
    let io = |source| Error::Io { action: "create", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(io)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(8 << 20);
    options.set_keep_log_file_num(2);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    DB::open(&options, path).map_err(|e| local("open", path, e))
}

fn greatest(mut vector: Vec<Offset>, other: &[Offset]) -> Vec<Offset> {
    vector.resize(vector.len().max(other.len()), 0);
    vector.iter_mut().zip(other).for_each(|(mine, &theirs)| *mine = (*mine).max(theirs));
    vector
}

fn window_key(window: &EmittedWindow) -> Vec<u8> {
    [b"w", window.view.as_bytes(), &[0], window.identity().as_bytes()].concat()
}

fn applied_key(id: PartitionId) -> Vec<u8> {
    [b"a".as_slice(), id.view.as_bytes(), &id.index.to_be_bytes()].concat()
}

fn synced_key(topic: &str, partition: u32) -> Vec<u8> {
    [b"s", topic.as_bytes(), &[0], &partition.to_be_bytes()].concat()
}

/// Writes microseconds since 1970 as RFC 3339.
pub(crate) fn time_text(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => micros.to_string(),
    }
}

/// Writes the columns of one row as JSON; decimals as numbers in full.
pub(crate) fn row_json(rows: &RecordBatch, row: usize) -> BTreeMap<String, Json> {
    let schema = rows.schema();
    let cells = schema.fields().iter().zip(rows.columns());
    cells.map(|(field, column)| (field.name().clone(), cell_json(column, row))).collect()
}

fn cell_json(column: &ArrayRef, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Decimal128(_, _) => {
            decimal_json(column.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        DataType::Timestamp(_, _) => {
            time_text(column.as_primitive::<TimestampMicrosecondType>().value(row)).into()
        }
        DataType::Date32 => date_json(column.as_primitive::<Date32Type>().value(row)),
        other => Json::String(format!("a value of type {other}")),
    }
}

/// Writes one part of a grouping key as JSON.
pub(crate) fn value_json(value: &Value, value_type: ValueType) -> Json {
    match (value, value_type) {
        (Value::Bool(v), _) => (*v).into(),
        (Value::Int(v), _) => (*v).into(),
        (Value::Text(v), _) => v.as_ref().into(),
        (Value::Timestamp(v), _) => time_text(*v).into(),
        (Value::Date(v), _) => date_json(*v),
        (Value::Decimal(v), ValueType::Decimal { precision, scale }) => {
            decimal_json(Decimal128Type::format_decimal(*v, precision, scale))
        }
        _ => Json::Null,
    }
}

fn date_json(days: i32) -> Json {
    NaiveDate::from_epoch_days(days).map_or_else(|| days.into(), |day| day.to_string().into())
}

fn decimal_json(text: String) -> Json {
    text.parse::<serde_json::Number>().map_or(Json::String(text), Json::Number)
}
