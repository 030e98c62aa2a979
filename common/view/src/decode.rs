//! JSON records to typed rows, exactly or not at all.
//!
//! A record is read straight into a scratch row of cells, in one pass and
//! without a tree; only a row that is whole is appended to the columns, so one
//! that fails midway leaves nothing behind.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use arrow::array::{RecordBatch, RecordBatchOptions};
use sanso_state::ValueType;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::scalar::{ColumnBuilder, parse_date, parse_decimal, parse_timestamp, quote, sql_type};
use crate::source::{Column, Source};
use crate::stage;

/// Decoded records.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows, in the order of the payloads.
    pub rows: RecordBatch,
    /// For each row the index of its payload.
    pub index: Vec<usize>,
    /// The payloads that are no rows: index and reason, naming the column,
    /// what was found and what is expected.
    pub rejected: Vec<(usize, String)>,
}

/// The beginning of a record that stands for one that could not be read.
const UNDECODABLE: &[u8] = br#"{"$undecodable":"#;

/// Why a record could not be read as JSON before it came here.
#[derive(serde::Deserialize)]
struct Undecodable {
    #[serde(rename = "$undecodable")]
    found: UndecodableReason,
}

#[derive(serde::Deserialize)]
struct UndecodableReason {
    reason: String,
}

/// One cell of the scratch row.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Missing,
    Null,
    Bool(bool),
    Int(i64),
    Decimal(i128),
    /// A range of the scratch row's text.
    Text(Range<usize>),
    Timestamp(i64),
    Date(i32),
}

/// The scratch row.
struct Scratch {
    cells: Vec<Cell>,
    text: String,
    /// Why a column was refused; told apart from broken JSON.
    refusal: Option<String>,
}

/// Decodes payloads; see [`Source::decode`].
pub(crate) fn decode<'a>(source: &Source, payloads: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let payloads = payloads.into_iter();
    let capacity = payloads.size_hint().0;
    let mut builders: Vec<_> =
        source.columns.iter().map(|c| ColumnBuilder::new(c.value_type, capacity)).collect();
    let mut scratch =
        Scratch { cells: vec![Cell::Missing; source.columns.len()], text: String::new(), refusal: None };
    let mut index = Vec::with_capacity(capacity);
    let mut rejected = Vec::new();
    let fields = source.format.view().map(|_| stage::fields(source));
    let columns = fields.as_deref().unwrap_or(&source.columns);
    let outside = if fields.is_some() { stage::FIELDS } else { columns.len() };
    for (at, payload) in payloads.enumerate() {
        match scratch.read(columns, outside, payload) {
            Ok(()) => {
                scratch.append_to(&mut builders);
                index.push(at);
            }
            Err(reason) => rejected.push((at, reason)),
        }
    }
    let columns = builders.iter_mut().map(ColumnBuilder::finish).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(index.len()));
    let rows = RecordBatch::try_new_with_options(source.schema(), columns, &options)
        .expect("the builders are of the schema's types, and nulls were refused");
    Decoded { rows, index, rejected }
}

impl Scratch {
    /// Reads a record. The first columns are its fields, others are within its objects.
    fn read(&mut self, columns: &[Column], outside: usize, payload: &[u8]) -> Result<(), String> {
        self.cells.fill(Cell::Missing);
        self.text.clear();
        self.refusal = None;
        if payload.starts_with(UNDECODABLE)
            && let Ok(undecodable) = serde_json::from_slice::<Undecodable>(payload)
        {
            return Err(undecodable.found.reason);
        }
        let (columns_outside, within) = columns.split_at(outside);
        let seed = RowSeed { columns: columns_outside, first: 0, within, scratch: self };
        // Known to be text, it is not looked at again string by string.
        let read = match std::str::from_utf8(payload) {
            Ok(text) => read_whole(seed, serde_json::Deserializer::from_str(text)),
            Err(_) => read_whole(seed, serde_json::Deserializer::from_slice(payload)),
        };
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        read.map_err(|error| format!("not one JSON object: {error}"))?;
        for (column, cell) in columns.iter().zip(&mut self.cells) {
            match cell {
                Cell::Missing if column.nullable => *cell = Cell::Null,
                Cell::Missing | Cell::Null if !column.nullable => {
                    let found = if *cell == Cell::Null { "null" } else { "no such field" };
                    let expected = expectation(column.value_type);
                    return Err(format!("column {}: found {found}, expected {expected}", column.name));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn append_to(&self, builders: &mut [ColumnBuilder]) {
        for (cell, builder) in self.cells.iter().zip(builders) {
            match (builder, cell) {
                (ColumnBuilder::Bool(b), Cell::Bool(v)) => b.append_value(*v),
                (ColumnBuilder::Int(b), Cell::Int(v)) => b.append_value(*v),
                (ColumnBuilder::Decimal(b), Cell::Decimal(v)) => b.append_value(*v),
                (ColumnBuilder::Text(b), Cell::Text(range)) => {
                    b.append_value(&self.text[range.clone()]);
                }
                (ColumnBuilder::Timestamp(b), Cell::Timestamp(v)) => b.append_value(*v),
                (ColumnBuilder::Date(b), Cell::Date(v)) => b.append_value(*v),
                (builder, _) => builder.append_null(),
            }
        }
    }

    /// Reads one field's JSON into the column's cell.
    fn set(&mut self, index: usize, column: &Column, json: &str) -> Result<(), String> {
        if self.cells[index] != Cell::Missing {
            return Err("found the field twice, expected it once".into());
        }
        self.cells[index] = self.cell(column.value_type, json)?;
        Ok(())
    }

    fn cell(&mut self, value_type: ValueType, json: &str) -> Result<Cell, String> {
        let found = || format!("found {}, expected {}", quote_json(json), expectation(value_type));
        let first = json.as_bytes().first().copied().unwrap_or(b' ');
        let is_number = first == b'-' || first.is_ascii_digit();
        match value_type {
            _ if json == "null" => Ok(Cell::Null),
            ValueType::Bool if json == "true" => Ok(Cell::Bool(true)),
            ValueType::Bool if json == "false" => Ok(Cell::Bool(false)),
            ValueType::Int if is_number => parse_int(json).map(Cell::Int).ok_or_else(found),
            ValueType::Decimal { precision, scale } if is_number => {
                parse_decimal(json, precision, scale).map(Cell::Decimal)
            }
            ValueType::Decimal { precision, scale } if first == b'"' => {
                let text = unquote(json)?;
                parse_decimal(&text, precision, scale).map(Cell::Decimal)
            }
            ValueType::Text if first == b'"' => {
                let text = unquote(json)?;
                let from = self.text.len();
                self.text.push_str(&text);
                Ok(Cell::Text(from..self.text.len()))
            }
            ValueType::Timestamp if first == b'"' => parse_timestamp(&unquote(json)?).map(Cell::Timestamp),
            ValueType::Date if first == b'"' => parse_date(&unquote(json)?).map(Cell::Date),
            _ => Err(found()),
        }
    }
}

/// Reads what is to be one JSON object and nothing else.
fn read_whole<'de, R: serde_json::de::Read<'de>>(
    seed: RowSeed<'_>,
    mut json: serde_json::Deserializer<R>,
) -> serde_json::Result<()> {
    seed.deserialize(&mut json).and_then(|()| json.end())
}

/// Parses a JSON number as a whole number of 64 bits; `9e2` and `900.0` are
/// whole numbers too.
fn parse_int(json: &str) -> Option<i64> {
    if let Ok(value) = json.parse() {
        return Some(value);
    }
    parse_decimal(json, 19, 0).ok().and_then(|value| i64::try_from(value).ok())
}

/// Returns the text of a JSON string, borrowed where nothing is escaped.
fn unquote(json: &str) -> Result<Cow<'_, str>, String> {
    let inner = json.get(1..json.len().saturating_sub(1)).unwrap_or("");
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(json)
        .map(Cow::Owned)
        .map_err(|error| format!("found {}, which is not Unicode text: {error}", quote_json(json)))
}

fn expectation(value_type: ValueType) -> String {
    match value_type {
        ValueType::Bool => "true or false".into(),
        ValueType::Int => "a whole number of 64 bits".into(),
        ValueType::Text => "a string".into(),
        ValueType::Timestamp => "an RFC 3339 timestamp such as \"2024-07-01T00:30:00Z\"".into(),
        ValueType::Date => "a date such as \"2024-07-01\"".into(),
        other => format!("a number for {}", sql_type(other)),
    }
}

/// Shows JSON as it stands, shortened.
fn quote_json(json: &str) -> Cow<'_, str> {
    if json.chars().count() <= 60 {
        return Cow::Borrowed(json);
    }
    let quoted = quote(json);
    Cow::Owned(quoted)
}

/// Reads one JSON object into the scratch row.
struct RowSeed<'s> {
    columns: &'s [Column],
    /// The index of the first of them.
    first: usize,
    /// The columns after them, which lie in the objects `key` and `values`.
    within: &'s [Column],
    scratch: &'s mut Scratch,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Reads an object within a record, which may be null.
struct WithinSeed<'s>(RowSeed<'s>);

impl<'de> DeserializeSeed<'de> for WithinSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Producers write fields in the order of the columns more often than not.
        let mut likely = 0;
        while let Some(field) = map.next_key_seed(FieldSeed { columns: self.columns, likely })? {
            let index = match field {
                Field::Column(index) => index,
                Field::Within if !self.within.is_empty() => {
                    let (columns, first) = (self.within, self.first + self.columns.len());
                    let scratch = &mut *self.scratch;
                    map.next_value_seed(WithinSeed(RowSeed { columns, first, within: &[], scratch }))?;
                    continue;
                }
                Field::Within | Field::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            likely = index + 1;
            let value: &'de RawValue = map.next_value()?;
            let column = &self.columns[index];
            if let Err(reason) = self.scratch.set(self.first + index, column, value.get()) {
                self.scratch.refusal = Some(format!("column {}: {reason}", column.name));
                return Err(A::Error::custom("refused column"));
            }
        }
        Ok(())
    }
}

/// What a field of a record is.
enum Field {
    /// A column, by its index.
    Column(usize),
    /// What may be an object with columns.
    Within,
    /// Nothing that is read.
    Unknown,
}

/// Finds the column of a field's name.
struct FieldSeed<'s> {
    columns: &'s [Column],
    likely: usize,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = Field;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldSeed<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
        if self.columns.get(self.likely).is_some_and(|c| c.name == name) {
            return Ok(Field::Column(self.likely));
        }
        Ok(match self.columns.iter().position(|c| c.name == name) {
            Some(index) => Field::Column(index),
            None if matches!(name, "key" | "values") => Field::Within,
            None => Field::Unknown,
        })
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
