//! The columns of an archived file: the source's, then two of the log.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;

/// The column with a row's position in its log partition.
pub const OFFSET_COLUMN: &str = "_offset";
/// The column with the time at which the log took the record.
pub const APPEND_TIME_COLUMN: &str = "_append_time";

/// Returns the schema of archived files of a source with these columns.
pub fn archived_schema(source: &Schema) -> SchemaRef {
    let mut fields = source.fields().to_vec();
    fields.push(Arc::new(Field::new(OFFSET_COLUMN, DataType::UInt64, false)));
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    fields.push(Arc::new(Field::new(APPEND_TIME_COLUMN, time, false)));
    Arc::new(Schema::new(fields))
}

/// Adds the two columns of the log to rows of a source. `append_times_us` in microseconds UTC.
pub fn with_log_columns(
    rows: &RecordBatch,
    offsets: Vec<u64>,
    append_times_us: Vec<i64>,
) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from(offsets)));
    columns.push(Arc::new(TimestampMicrosecondArray::from(append_times_us).with_timezone("UTC")));
    RecordBatch::try_new(archived_schema(rows.schema_ref()), columns)
}

/// Returns only the source's own columns of archived rows.
///
/// # Panics
/// When the rows lack the two columns of the log; every batch read from a dataset has them.
pub fn source_columns(rows: &RecordBatch) -> RecordBatch {
    let own: Vec<usize> = (0..rows.num_columns() - 2).collect();
    rows.project(&own).expect("indices below the number of columns")
}

/// Returns the offsets of archived rows.
///
/// # Panics
/// When the rows lack the column; every batch read from a dataset has it.
pub fn offsets(rows: &RecordBatch) -> &UInt64Array {
    log_column(rows, OFFSET_COLUMN).as_primitive::<UInt64Type>()
}

/// Returns the append times of archived rows, in microseconds UTC.
///
/// # Panics
/// When the rows lack the column; every batch read from a dataset has it.
pub fn append_times(rows: &RecordBatch) -> &TimestampMicrosecondArray {
    log_column(rows, APPEND_TIME_COLUMN).as_primitive::<TimestampMicrosecondType>()
}

fn log_column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).expect("archived rows have the columns of the log")
}

/// Says what is wrong with the columns of rows that are to be archived.
pub(crate) fn check_archived(rows: &RecordBatch) -> Result<(), String> {
    let fields = rows.schema_ref().fields();
    let names: Vec<&str> = fields.iter().rev().take(2).map(|field| field.name().as_str()).collect();
    if names != [APPEND_TIME_COLUMN, OFFSET_COLUMN] {
        return Err(format!("the last two columns must be {OFFSET_COLUMN} and {APPEND_TIME_COLUMN}"));
    }
    let numbered = rows.column(fields.len() - 2).data_type() == &DataType::UInt64;
    let timed = matches!(
        rows.column(fields.len() - 1).data_type(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_))
    );
    if !numbered || !timed || offsets(rows).null_count() > 0 || append_times(rows).null_count() > 0 {
        return Err(format!("{OFFSET_COLUMN} or {APPEND_TIME_COLUMN} has a wrong type or a null"));
    }
    Ok(())
}
