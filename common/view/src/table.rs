//! Reference tables: small CSV files, read in full when an application is bound.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use sanso_state::{Fingerprint, Value, ValueType};

use crate::error::BindError;
use crate::rows::encode_rows;
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
        Ok(Table { rows, fingerprint })
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
    let mut ranges: Vec<(Vec<Value>, i64, i64)> = (0..table.rows.num_rows())
        .map(|row| {
            let values: Vec<Value> = key.iter().map(|c| value_at(table.rows.column(*c), row)).collect();
            let bound = |column: usize, open: i64| match value_at(table.rows.column(column), row) {
                Value::Timestamp(at) => at,
                Value::Date(days) => i64::from(days) * crate::window::DAY_US,
                _ => open,
            };
            let (from, to) = validity
                .map_or((i64::MIN, i64::MAX), |(from, to)| (bound(from, i64::MIN), bound(to, i64::MAX)));
            (values, from, to)
        })
        .filter(|(values, from, to)| from < to && !values.iter().any(Value::is_null))
        .collect();
    ranges.sort_by(|a, b| Value::encode_key(&a.0).cmp(&Value::encode_key(&b.0)).then(a.1.cmp(&b.1)));
    let mut warnings = Vec::new();
    let mut open_until: Option<(&[Value], i64)> = None;
    for (key, from, to) in &ranges {
        match open_until {
            Some((current, until)) if current == key && *from < until => {
                warnings.push(overlap_warning(definition, key, *from));
                open_until = Some((current, until.max(*to)));
            }
            _ => open_until = Some((key, *to)),
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
