//! Writes Arrow rows as JSON, exactly; pure.
//!
//! - Decimals are numbers with all digits of their scale: `0.125000`. They never pass a float.
//! - Timestamps are RFC 3339 in UTC, with a fraction of 3 or 6 digits only where there is one.
//! - Dates are ISO 8601. Text is text. What JSON can't say (NaN, infinity) is null.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use serde_json::value::RawValue;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnInfo {
    /// The name.
    pub name: String,
    /// The type, as SQL writes it.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// A row is an array in order of the columns.
    #[default]
    Arrays,
    /// A row is an object by column name.
    Objects,
}

/// Describes the columns of a schema.
pub fn columns(schema: &Schema) -> Vec<ColumnInfo> {
    let column = |field: &arrow::datatypes::FieldRef| ColumnInfo {
        name: field.name().clone(),
        type_name: type_name(field.data_type()),
    };
    schema.fields().iter().map(column).collect()
}

/// Returns a type's name as SQL writes it.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            "bigint unsigned".to_owned()
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".to_owned(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("decimal({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Null => "null".to_owned(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::List(field) | DataType::LargeList(field) => format!("{}[]", type_name(field.data_type())),
        other => other.to_string().to_lowercase(),
    }
}

/// Writes an instant as RFC 3339 in UTC; null beyond the years that can be written.
pub fn time_text(us: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(us)?;
    Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Writes rows as one JSON array.
pub fn rows(batches: &[RecordBatch], shape: Shape) -> Result<Box<RawValue>, ArrowError> {
    let mut out = String::from("[");
    for batch in batches {
        let schema = batch.schema();
        let names: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| serde_json::Value::from(field.name().as_str()).to_string())
            .collect();
        let cells = batch.columns().iter().map(|array| cells(array)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            if out.len() > 1 {
                out.push(',');
            }
            out.push(if shape == Shape::Arrays { '[' } else { '{' });
            for (index, cell) in cells.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                if shape == Shape::Objects {
                    out.push_str(&names[index]);
                    out.push(':');
                }
                cell(row, &mut out);
            }
            out.push(if shape == Shape::Arrays { ']' } else { '}' });
        }
    }
    out.push(']');
    RawValue::from_string(out).map_err(|error| ArrowError::JsonError(error.to_string()))
}

type Cell<'a> = Box<dyn Fn(usize, &mut String) + 'a>;

/// Returns a function that writes the value of one row of a column.
fn cells(array: &ArrayRef) -> Result<Cell<'_>, ArrowError> {
    macro_rules! number {
        ($type:ty) => {{
            let array = array.as_primitive::<$type>();
            nullable(array, move |row, out| {
                let _ = write!(out, "{}", array.value(row));
            })
        }};
    }
    macro_rules! decimal {
        ($type:ty) => {{
            let array = array.as_primitive::<$type>();
            nullable(array, move |row, out| out.push_str(&array.value_as_string(row)))
        }};
    }
    macro_rules! text {
        ($array:expr) => {{
            let array = $array;
            nullable(array, move |row, out| push_text(array.value(row), out))
        }};
    }
    Ok(match array.data_type() {
        DataType::Null => Box::new(|_, out| out.push_str("null")),
        DataType::Boolean => {
            let array = array.as_boolean();
            nullable(array, move |row, out| out.push_str(if array.value(row) { "true" } else { "false" }))
        }
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => {
            let array = array.as_primitive::<Float32Type>();
            nullable(array, move |row, out| push_float(f64::from(array.value(row)), out))
        }
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>();
            nullable(array, move |row, out| push_float(array.value(row), out))
        }
        DataType::Decimal32(..) => decimal!(Decimal32Type),
        DataType::Decimal64(..) => decimal!(Decimal64Type),
        DataType::Decimal128(..) => decimal!(Decimal128Type),
        DataType::Decimal256(..) => decimal!(Decimal256Type),
        DataType::Utf8 => text!(array.as_string::<i32>()),
        DataType::LargeUtf8 => text!(array.as_string::<i64>()),
        DataType::Utf8View => text!(array.as_string_view()),
        _ => other_cells(array)?,
    })
}

fn other_cells(array: &ArrayRef) -> Result<Cell<'_>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Timestamp(unit, _) => timestamp_cells(array, *unit)?,
        DataType::Date32 => {
            let array = array.as_primitive::<Date32Type>();
            nullable(array, move |row, out| push_shown(array.value_as_date(row), out))
        }
        DataType::Date64 => {
            let array = array.as_primitive::<Date64Type>();
            nullable(array, move |row, out| push_shown(array.value_as_date(row), out))
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            nullable(list, move |row, out| push_list(&list.value(row), out))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            nullable(list, move |row, out| push_list(&list.value(row), out))
        }
        DataType::Dictionary(_, values) => owned_cells(cast(array, values)?)?,
        DataType::Float16 => owned_cells(cast(array, &DataType::Float64)?)?,
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options.with_null("null"))?;
            nullable(array, move |row, out| push_text(&formatter.value(row).to_string(), out))
        }
    })
}

/// Cells of an array made here, written row by row.
fn owned_cells<'a>(array: ArrayRef) -> Result<Cell<'a>, ArrowError> {
    cells(&array).map(drop)?;
    Ok(Box::new(move |row, out| match cells(&array) {
        Ok(cell) => cell(row, out),
        Err(_) => out.push_str("null"),
    }))
}

fn timestamp_cells(array: &ArrayRef, unit: TimeUnit) -> Result<Cell<'_>, ArrowError> {
    if unit != TimeUnit::Microsecond {
        let zone = match array.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        return owned_cells(cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?);
    }
    let array = array.as_primitive::<TimestampMicrosecondType>();
    Ok(nullable(array, move |row, out| match time_text(array.value(row)) {
        Some(text) => push_text(&text, out),
        None => out.push_str("null"),
    }))
}

fn nullable<'a>(array: &'a dyn Array, write: impl Fn(usize, &mut String) + 'a) -> Cell<'a> {
    Box::new(move |row, out| if array.is_null(row) { out.push_str("null") } else { write(row, out) })
}

fn push_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn push_shown(value: Option<impl std::fmt::Display>, out: &mut String) {
    match value {
        Some(value) => push_text(&value.to_string(), out),
        None => out.push_str("null"),
    }
}

fn push_float(value: f64, out: &mut String) {
    match serde_json::Number::from_f64(value) {
        Some(number) => out.push_str(&number.to_string()),
        None => out.push_str("null"),
    }
}

fn push_list(values: &ArrayRef, out: &mut String) {
    let Ok(cell) = cells(values) else {
        out.push_str("null");
        return;
    };
    out.push('[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(',');
        }
        cell(row, out);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray, TimestampNanosecondArray,
    };

    use super::*;

    fn check(array: ArrayRef, expected: &str) {
        let batch = RecordBatch::try_from_iter_with_nullable([("a", array, true)]).expect("one column");
        assert_eq!(rows(&[batch], Shape::Arrays).expect("writes").get(), expected);
    }

    #[test]
    fn decimals_keep_every_digit_of_their_scale() {
        let values =
            vec![Some(125_000), Some(-1), None, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)];
        let array = Decimal128Array::from(values).with_precision_and_scale(38, 6).expect("fits");
        check(Arc::new(array), "[[0.125000],[-0.000001],[null],[99999999999999999999999999999999.999999]]");
    }

    #[test]
    fn scalars_are_written_as_json_says_them() {
        check(
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
            "[[-9223372036854775808],[9223372036854775807]]",
        );
        check(Arc::new(BooleanArray::from(vec![Some(true), None])), "[[true],[null]]");
        check(Arc::new(StringArray::from(vec!["a\"b\u{1}"])), "[[\"a\\\"b\\u0001\"]]");
        check(Arc::new(Float64Array::from(vec![0.5, f64::NAN, f64::INFINITY])), "[[0.5],[null],[null]]");
        check(Arc::new(Date32Array::from(vec![0, 19_723])), "[[\"1970-01-01\"],[\"2024-01-01\"]]");
    }

    #[test]
    fn timestamps_are_utc_with_a_fraction_only_where_there_is_one() {
        let array = TimestampMicrosecondArray::from(vec![0, 1_500_000, 1]).with_timezone("UTC");
        check(
            Arc::new(array),
            "[[\"1970-01-01T00:00:00Z\"],[\"1970-01-01T00:00:01.500Z\"],[\"1970-01-01T00:00:00.000001Z\"]]",
        );
        check(Arc::new(TimestampNanosecondArray::from(vec![1_000])), "[[\"1970-01-01T00:00:00.000001Z\"]]");
    }

    #[test]
    fn lists_are_arrays() {
        let array = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        check(Arc::new(array), "[[[1,null]],[null]]");
    }

    #[test]
    fn rows_can_be_objects() {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])
            .expect("one column");
        assert_eq!(rows(&[batch], Shape::Objects).expect("writes").get(), "[{\"a\":1}]");
    }
}
