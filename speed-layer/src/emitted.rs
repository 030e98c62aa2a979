//! What is written to output topics: closed windows as JSON.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Float64Type, Int64Type, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use sanso_core::PartitionId;
use sanso_state::{Fingerprint, Offset, Value, ValueType};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// One record of an output topic: a closed window's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmittedWindow {
    /// Names the window among all of its view; also the record's key in the topic.
    pub id: String,
    /// The view's name.
    pub view: String,
    /// The source that the view is of.
    pub source: String,
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
    /// Orders the contents of a window: the highest is the newest. What has the same revision has the same
    /// content, and was written twice. It is how many offsets of the log the content stands for, or one
    /// more than the revision before where that is not higher.
    pub revision: u64,
    /// Whether the window had closed before the change that caused this.
    pub late: bool,
    /// The columns of the view but the key's; absent when every reading of the
    /// window was retracted.
    pub values: Option<BTreeMap<String, Json>>,
    /// Whether there are values.
    pub present: bool,
    /// The offsets of the source's log partitions that the content stands for.
    pub applied: Vec<Offset>,
}

impl EmittedWindow {
    /// Returns the fingerprint of what is compared: the values and the window's end.
    pub fn content(&self) -> Fingerprint {
        Fingerprint::of(&serde_json::to_vec(&(&self.values, &self.window_end)).expect("JSON values are JSON"))
    }

    /// Names the view partition it came from.
    pub fn origin(&self) -> PartitionId {
        PartitionId { view: self.version, index: self.partition }
    }
}

/// Writes a window's identity.
pub(crate) fn identity(key: &BTreeMap<String, Json>, window_start: &str) -> String {
    let key = serde_json::to_string(key).expect("JSON values are JSON");
    format!("{key} {window_start}")
}

/// Reads a window's identity; none of what is not one.
pub(crate) fn from_identity(identity: &str) -> Option<(BTreeMap<String, Json>, &str)> {
    let (key, window_start) = identity.rsplit_once(' ')?;
    Some((serde_json::from_str(key).ok()?, window_start))
}

/// Reads a time as [`time_text`] writes it.
pub(crate) fn time_of(text: &str) -> Option<i64> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.timestamp_micros()),
        Err(_) => text.parse().ok(),
    }
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
