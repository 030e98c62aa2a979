//! A source: the typed columns of a log topic's records.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use sanso_state::{Fingerprint, Segments, Storage, Value, ValueType};

use crate::decode::{self, Decoded};
use crate::error::RowError;
use crate::rows;
use crate::scalar::{arrow_type, format_date, format_decimal, format_timestamp, sql_type, value_at};

/// One declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name, in lower case unless quoted in the SQL; also the field of the
    /// JSON record.
    pub name: String,
    /// The type.
    pub value_type: ValueType,
    /// Whether the column may be null or missing.
    pub nullable: bool,
}

/// How a source's topic holds its records; `WITH (format = 'avro', registry = 'http://…')`. What the
/// layers read is JSON in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecordFormat {
    /// JSON objects.
    #[default]
    Json,
    /// Avro, with the id of a registered schema in front.
    Avro(Registered),
    /// Protobuf, with the id of a registered schema in front.
    Protobuf(Registered),
    /// Closed windows, as they are written to a view's output topic: `CREATE SOURCE … FROM VIEW …`.
    Windows {
        /// The view.
        view: String,
    },
}

/// Where the schemas of a source's records are registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The registry's address; `WITH (registry = 'http://registry:8081')`.
    pub registry: String,
    /// The subject that ingested records are written for; `WITH (subject = …)`, by default the
    /// topic and `-value`.
    pub subject: String,
    /// Ids of schemas that will never be registered: records with them are quarantined instead of
    /// waited for; `WITH (refused_schemas = '17, 99')`.
    pub refused_schemas: BTreeSet<u32>,
}

impl RecordFormat {
    /// Returns the word in SQL.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Avro(_) => "avro",
            Self::Protobuf(_) => "protobuf",
            Self::Windows { .. } => "windows",
        }
    }

    /// Returns the view whose closed windows the records are, if they are any.
    pub fn view(&self) -> Option<&str> {
        match self {
            Self::Windows { view } => Some(view),
            _ => None,
        }
    }

    /// Returns where the schemas are registered, if the format has any.
    pub fn registered(&self) -> Option<&Registered> {
        match self {
            Self::Json | Self::Windows { .. } => None,
            Self::Avro(registered) | Self::Protobuf(registered) => Some(registered),
        }
    }
}

impl fmt::Display for RecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Json => Ok(()),
            Self::Avro(Registered { registry, subject, .. })
            | Self::Protobuf(Registered { registry, subject, .. }) => {
                write!(f, " (subject {subject} at {registry})")
            }
            Self::Windows { view } => write!(f, " of view {view}"),
        }
    }
}

/// A declared source. Its topic, columns and partition count never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name in SQL.
    pub name: String,
    /// The log topic; `WITH (topic = …)`, by default the name.
    pub topic: String,
    /// How the topic holds the records.
    pub format: RecordFormat,
    /// The columns, in order of declaration.
    pub columns: Vec<Column>,
    /// The number of offsets in a segment; `WITH (segment = '65536')`.
    pub segment_size: u64,
    /// The number of log partitions; `WITH (partitions = '4')`.
    pub partitions: u32,
    /// How far behind the newest event others may follow; `WITH (lateness = '1 hour')`.
    pub lateness_us: i64,
    /// How far an event may lie after its append time before it no longer
    /// moves the watermark; `WITH (ahead = '1 day')`.
    pub ahead_us_max: i64,
    /// The index of the partitioning key's column.
    pub key_column: usize,
    /// The indexes of the identity's columns.
    pub identity_columns: Vec<usize>,
    /// The index of the version's column, if versions are declared.
    pub version_column: Option<usize>,
    /// The index of the event time's column.
    pub event_time_column: usize,
    /// The indexes of the columns that are no part of a record's content;
    /// `WITH (ignore = 'received_at')`.
    pub ignored_columns: Vec<usize>,
    /// Where, and how many, nodes keep the newest-version table at hand; `WITH (storage = 'memory,disk',
    /// replicas = 2)`. It changes no row of anything.
    pub storage: Storage,
    pub(crate) schema: SchemaRef,
}

impl Source {
    pub(crate) fn schema_of(columns: &[Column]) -> SchemaRef {
        let fields = columns
            .iter()
            .map(|c| Field::new(&c.name, arrow_type(c.value_type), c.nullable))
            .collect::<Vec<_>>();
        Arc::new(Schema::new(fields))
    }

    /// Returns the Arrow schema of the declared columns, in order.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Returns the source's segment arithmetic.
    pub fn segments(&self) -> Segments {
        Segments::new(self.segment_size)
    }

    /// Returns the index of a column by its name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// Decodes records, each one JSON object, into typed rows.
    ///
    /// A record `{"$undecodable":{"reason":…}}` stands for one that could not be read as JSON; it
    /// is rejected for that reason.
    ///
    /// Rows keep the order of the payloads; one that can't be decoded exactly
    /// is left out and reported with its index and the reason.
    pub fn decode<'a>(&self, payloads: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
        decode::decode(self, payloads)
    }

    /// Returns the partitioning key's column. The input of the partitioner is
    /// the UTF-8 bytes of its value; it is never null.
    pub fn keys<'a>(&self, rows: &'a RecordBatch) -> &'a StringArray {
        rows.column(self.key_column).as_string::<i32>()
    }

    /// Returns each row's identity: the ordered encoding of its columns.
    pub fn identities(&self, rows: &RecordBatch) -> Vec<Bytes> {
        let columns: Vec<_> = self.identity_columns.iter().map(|&c| rows.column(c)).collect();
        rows::each_row(rows.num_rows(), |row, out| {
            columns.iter().for_each(|column| rows::append_ordered(column, row, out));
        })
    }

    /// Returns each row's version: `None` when the source declares no version
    /// column (then the offset is the version); a null version is 0.
    pub fn versions(&self, rows: &RecordBatch) -> Vec<Option<i64>> {
        let Some(column) = self.version_column else {
            return vec![None; rows.num_rows()];
        };
        let column = rows.column(column);
        (0..rows.num_rows())
            .map(|row| match value_at(column, row) {
                Value::Int(version) | Value::Timestamp(version) => Some(version),
                _ => Some(0),
            })
            .collect()
    }

    /// Returns each row's event time in microseconds UTC.
    pub fn event_times(&self, rows: &RecordBatch) -> Vec<i64> {
        rows.column(self.event_time_column).as_primitive::<TimestampMicrosecondType>().values().to_vec()
    }

    /// Encodes each row in full: compact, versioned and deterministic.
    pub fn encode_rows(&self, rows: &RecordBatch) -> Vec<Bytes> {
        rows::encode_rows(rows)
    }

    /// Decodes rows written by [`Source::encode_rows`] of the same source.
    pub fn decode_rows<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch, RowError> {
        rows::decode_rows(self, rows)
    }

    /// Returns each row's content: rows are the same reading restated exactly
    /// when these are equal. Ignored columns are left out.
    pub fn contents(&self, rows: &RecordBatch) -> Vec<Fingerprint> {
        let columns: Vec<_> = (0..self.columns.len())
            .filter(|index| !self.ignored_columns.contains(index))
            .map(|index| rows.column(index))
            .collect();
        let mut buffer = Vec::with_capacity(128);
        (0..rows.num_rows())
            .map(|row| {
                buffer.clear();
                columns.iter().for_each(|column| rows::append_ordered(column, row, &mut buffer));
                Fingerprint::of(&buffer)
            })
            .collect()
    }

    /// Returns one row as canonical JSON; decoding it gives the row again.
    pub fn to_json(&self, rows: &RecordBatch, row: usize) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        for (column, array) in self.columns.iter().zip(rows.columns()) {
            object.insert(column.name.clone(), json(&value_at(array, row), column.value_type));
        }
        serde_json::Value::Object(object)
    }

    /// Describes what of the definition decides the rows and their newest versions.
    pub(crate) fn definition(&self) -> String {
        let names = |indexes: &[usize]| {
            let names: Vec<_> = indexes.iter().map(|&i| self.columns[i].name.as_str()).collect();
            names.join(",")
        };
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|c| {
                let null = if c.nullable { "" } else { " NOT NULL" };
                format!("{} {}{null}", c.name, sql_type(c.value_type))
            })
            .collect();
        // Left out for JSON, which fingerprints were made of before there was another.
        let format = match &self.format {
            RecordFormat::Json => String::new(),
            RecordFormat::Windows { view } => format!(" windows of {view}"),
            other => format!(" format {}", other.name()),
        };
        format!(
            "source {} topic {}{format} partitions {} segment {} key {} identity {} version {} event_time {} ignore {} ({})",
            self.name,
            self.topic,
            self.partitions,
            self.segment_size,
            names(&[self.key_column]),
            names(&self.identity_columns),
            self.version_column.map(|c| names(&[c])).unwrap_or_default(),
            names(&[self.event_time_column]),
            names(&self.ignored_columns),
            columns.join(", "),
        )
    }
}

/// Writes a value as JSON; decimals as numbers in full.
pub(crate) fn json(value: &Value, value_type: ValueType) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(v) => (*v).into(),
        Value::Int(v) => (*v).into(),
        Value::Decimal(v) => {
            let scale = match value_type {
                ValueType::Decimal { scale, .. } => scale,
                _ => 0,
            };
            let text = format_decimal(*v, scale);
            serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
        }
        Value::Float(v) => (*v).into(),
        Value::Text(v) => v.as_ref().into(),
        Value::Timestamp(v) => format_timestamp(*v).into(),
        Value::Date(v) => format_date(*v).into(),
        Value::At(_, inner) => json(inner, value_type),
    }
}
