//! Reference tables: small CSV files, read in full when an application is bound.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use sanso_state::{Fingerprint, Value, ValueType};

use crate::error::BindError;
use crate::rows::{encode_rows, key_of};
use crate::scalar::{ColumnBuilder, format_timestamp, parse_text, sql_type, value_at};
use crate::source::{Column, Source};

/// A declared reference table.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    /// The name in SQL.
    pub name: String,
    /// The columns, in order of declaration.
    pub columns: Vec<Column>,
    /// The CSV file, relative to the application's folder.
    pub path: String,
    pub(crate) schema: SchemaRef,
}

/// A reference table's content.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: RecordBatch,
    pub(crate) fingerprint: Fingerprint,
    by_keys: Mutex<HashMap<Vec<usize>, Arc<ByKey>>>,
}

/// The rows, in order, that have the same encoded values in some columns; without those where one is null.
pub(crate) type ByKey = HashMap<Box<[u8]>, Vec<u32>>;

impl Table {
    /// Returns the rows by their values in these columns, made once for all views.
    pub(crate) fn by_key(&self, columns: &[usize]) -> Arc<ByKey> {
        let mut by_keys = self.by_keys.lock().expect("no panic while it is held");
        let make = || {
            let columns: Vec<_> =
                columns.iter().map(|column| Arc::clone(self.rows.column(*column))).collect();
            let (mut by_key, mut key) = (ByKey::new(), Vec::new());
            for row in 0..self.rows.num_rows() {
                if let Some(key) = key_of(&columns, row, &mut key) {
                    by_key.entry(key.into()).or_default().push(row as u32);
                }
            }
            Arc::new(by_key)
        };
        Arc::clone(by_keys.entry(columns.to_vec()).or_insert_with(make))
    }
}

impl TableDefinition {
    pub(crate) fn new(name: String, columns: Vec<Column>, path: String) -> Self {
        let schema = Source::schema_of(&columns);
        Self { name, columns, path, schema }
    }

    /// Reads the table's file. The order of the file's columns does not
    /// matter; columns that are not declared are ignored; an empty field is
    /// null.
    pub(crate) fn load(
        &self,
        base_dir: &Path,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Table, BindError> {
        let (table, path) = (self.name.clone(), base_dir.join(&self.path));
        match read(&path) {
            Ok(text) => {
                self.parse(&text).map_err(|(line, message)| BindError::Table { table, path, line, message })
            }
            Err(source) => Err(BindError::Read { table, path, source }),
        }
    }

    /// Parses CSV with a header. An error is a line and a message.
    fn parse(&self, text: &[u8]) -> Result<Table, (u64, String)> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let positions = self.positions(&mut reader)?;
        let mut builders: Vec<_> =
            self.columns.iter().map(|c| ColumnBuilder::new(c.value_type, 64)).collect();
        let mut count = 0;
        for record in reader.records() {
            let record = record.map_err(|error| csv_error(&error))?;
            let line = record.position().map_or(0, csv::Position::line);
            for ((column, position), builder) in self.columns.iter().zip(&positions).zip(&mut builders) {
                let field = record.get(*position).unwrap_or("");
                let value =
                    cell(column, field).map_err(|why| (line, format!("column {}: {why}", column.name)))?;
                builder.append(&value);
            }
            count += 1;
        }
        let columns = builders.iter_mut().map(ColumnBuilder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| (0, error.to_string()))?;
        let fingerprint = self.fingerprint(&rows);
        Ok(Table { rows, fingerprint, by_keys: Mutex::default() })
    }

    fn positions<R: Read>(&self, reader: &mut csv::Reader<R>) -> Result<Vec<usize>, (u64, String)> {
        let header = reader.headers().map_err(|error| csv_error(&error))?;
        let find = |column: &Column| {
            let mut places =
                header.iter().enumerate().filter(|(_, name)| name.eq_ignore_ascii_case(&column.name));
            match (places.next(), places.next()) {
                (Some((place, _)), None) => Ok(place),
                (Some(_), Some(_)) => Err((1, format!("column {} stands twice in the header", column.name))),
                (None, _) => {
                    let found: Vec<_> = header.iter().collect();
                    Err((1, format!("no column {} in the header, found {}", column.name, found.join(", "))))
                }
            }
        };
        self.columns.iter().map(find).collect()
    }

    /// Returns the fingerprint of the declared columns and their values;
    /// formatting, the order of rows and undeclared columns leave it as it is.
    fn fingerprint(&self, rows: &RecordBatch) -> Fingerprint {
        let mut encoded = encode_rows(rows);
        encoded.sort_unstable();
        let mut builder = Fingerprint::builder().part(&self.name);
        for column in &self.columns {
            builder = builder.part(&column.name).part(sql_type(column.value_type));
        }
        encoded.iter().fold(builder, |builder, row| builder.part(row)).finish()
    }
}

fn cell(column: &Column, field: &str) -> Result<Value, String> {
    if field.is_empty() {
        if column.nullable {
            return Ok(Value::Null);
        }
        return Err(format!("found nothing, expected a {}", sql_type(column.value_type)));
    }
    // A date alone is taken as its midnight UTC: spreadsheets write valid_from so.
    if column.value_type == ValueType::Timestamp
        && let Ok(days) = crate::scalar::parse_date(field)
    {
        return Ok(Value::Timestamp(i64::from(days) * crate::window::DAY_US));
    }
    parse_text(field, column.value_type)
}

fn csv_error(error: &csv::Error) -> (u64, String) {
    let line = error.position().map_or(1, csv::Position::line);
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("found {len} fields, expected {expected_len} as in the header")
        }
        csv::ErrorKind::Utf8 { .. } => "the line is not UTF-8 text".into(),
        _ => error.to_string(),
    };
    (line, message)
}

/// Finds rows of one key that hold at the same time: readings in the overlap
/// count for each of them.
///
/// `key` are the columns a join compares; `validity` its `valid_from` and
/// `valid_to`, where it has them.
pub(crate) fn overlaps(
    definition: &TableDefinition,
    table: &Table,
    key: &[usize],
    validity: Option<(usize, usize)>,
) -> Vec<String> {
    let bound = |column: usize, row: u32, open: i64| match value_at(table.rows.column(column), row as usize) {
        Value::Timestamp(at) => at,
        Value::Date(days) => i64::from(days) * crate::window::DAY_US,
        _ => open,
    };
    let range = |row: &u32| match validity {
        None => (i64::MIN, i64::MAX),
        Some((from, to)) => (bound(from, *row, i64::MIN), bound(to, *row, i64::MAX)),
    };
    let by_key = table.by_key(key);
    let mut several: Vec<_> = by_key.iter().filter(|(_, rows)| rows.len() > 1).collect();
    several.sort_unstable();
    let mut warnings = Vec::new();
    for (_, rows) in several {
        let mut ranges: Vec<_> = rows.iter().map(range).filter(|(from, to)| from < to).collect();
        ranges.sort_unstable();
        let mut until = i64::MIN;
        for (nth, (from, to)) in ranges.into_iter().enumerate() {
            if nth > 0 && from < until {
                let values = key.iter().map(|column| value_at(table.rows.column(*column), rows[0] as usize));
                warnings.push(overlap_warning(definition, &values.collect::<Vec<_>>(), from));
            }
            until = until.max(to);
        }
    }
    warnings
}

fn overlap_warning(definition: &TableDefinition, key: &[Value], from: i64) -> String {
    let key: Vec<_> = key.iter().map(Value::to_string).collect();
    let since = match from {
        i64::MIN => "at all times".to_owned(),
        from => format!("from {}", format_timestamp(from)),
    };
    format!(
        "table {}: {} has more than one row {since}; a reading there counts for each",
        definition.name,
        key.join(", "),
    )
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
