//! Writes Arrow rows as JSON, exactly; pure.
//!
//! - Decimals are numbers with all digits of their scale: `0.125000`. They never pass a float.
//! - Timestamps are RFC 3339 in UTC, with a fraction of 3 or 6 digits only where there is one.
//! - Dates are ISO 8601. Text is text. What JSON can't say (NaN, infinity) is null.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat};
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
    let mut out = vec![b'['];
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
                out.push(b',');
            }
            out.push(if shape == Shape::Arrays { b'[' } else { b'{' });
            for (index, cell) in cells.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if shape == Shape::Objects {
                    out.extend_from_slice(names[index].as_bytes());
                    out.push(b':');
                }
                cell(row, &mut out);
            }
            out.push(if shape == Shape::Arrays { b']' } else { b'}' });
        }
    }
    out.push(b']');
    let text = String::from_utf8(out).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    RawValue::from_string(text).map_err(|error| ArrowError::JsonError(error.to_string()))
}

type Cell<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

/// Returns a function that writes the value of one row of a column.
fn cells(array: &ArrayRef) -> Result<Cell<'_>, ArrowError> {
    macro_rules! number {
        ($type:ty) => {{
            let array = array.as_primitive::<$type>();
            nullable(array, move |row, out| push_json(&array.value(row), out))
        }};
    }
    macro_rules! decimal {
        ($type:ty) => {{
            let array = array.as_primitive::<$type>();
            nullable(array, move |row, out| out.extend_from_slice(array.value_as_string(row).as_bytes()))
        }};
    }
    macro_rules! text {
        ($array:expr) => {{
            let array = $array;
            nullable(array, move |row, out| push_text(array.value(row), out))
        }};
    }
    Ok(match array.data_type() {
        DataType::Null => Box::new(|_, out| push_null(out)),
        DataType::Boolean => {
            let array = array.as_boolean();
            nullable(array, move |row, out| push_json(&array.value(row), out))
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
        DataType::Decimal128(_, scale) => {
            let (array, scale) = (array.as_primitive::<Decimal128Type>(), *scale);
            nullable(array, move |row, out| push_decimal(array.value(row), scale, out))
        }
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
        Err(_) => push_null(out),
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
    Ok(nullable(array, move |row, out| push_time(array.value(row), out)))
}

fn nullable<'a>(array: &'a dyn Array, write: impl Fn(usize, &mut Vec<u8>) + 'a) -> Cell<'a> {
    Box::new(move |row, out| if array.is_null(row) { push_null(out) } else { write(row, out) })
}

fn push_null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn push_json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("memory takes a scalar");
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    push_json(text, out);
}

fn push_shown(value: Option<impl std::fmt::Display>, out: &mut Vec<u8>) {
    match value {
        Some(value) => push_text(&value.to_string(), out),
        None => push_null(out),
    }
}

fn push_float(value: f64, out: &mut Vec<u8>) {
    match serde_json::Number::from_f64(value) {
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None => push_null(out),
    }
}

/// Writes a decimal with all digits of its scale.
fn push_decimal(mantissa: i128, scale: i8, out: &mut Vec<u8>) {
    let (Ok(scale), Ok(magnitude)) = (usize::try_from(scale), u64::try_from(mantissa.unsigned_abs())) else {
        return out.extend_from_slice(Decimal128Type::format_decimal(mantissa, 38, scale).as_bytes());
    };
    if mantissa < 0 {
        out.push(b'-');
    }
    let unit = 10_u64.checked_pow(scale as u32);
    push_json(&unit.map_or(0, |unit| magnitude / unit), out);
    if scale > 0 {
        out.push(b'.');
        push_digits(unit.map_or(magnitude, |unit| magnitude % unit), scale, out);
    }
}

/// Writes an instant as [`time_text`] does; the common form without its detours.
fn push_time(us: i64, out: &mut Vec<u8>) {
    let (seconds, rest) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let days = i32::try_from(seconds.div_euclid(86_400)).ok().and_then(NaiveDate::from_epoch_days);
    match days {
        Some(date) if rest == 0 && (0..=9_999).contains(&date.year()) => {
            let second = seconds.rem_euclid(86_400) as u64;
            out.push(b'"');
            push_digits(date.year() as u64, 4, out);
            let parts = [
                (b'-', u64::from(date.month())),
                (b'-', u64::from(date.day())),
                (b'T', second / 3_600),
                (b':', second / 60 % 60),
                (b':', second % 60),
            ];
            for (before, part) in parts {
                out.push(before);
                push_digits(part, 2, out);
            }
            out.extend_from_slice(b"Z\"");
        }
        _ => match time_text(us) {
            Some(text) => push_text(&text, out),
            None => push_null(out),
        },
    }
}

/// Writes a number with leading zeros.
fn push_digits(mut number: u64, digits: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + digits, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn push_list(values: &ArrayRef, out: &mut Vec<u8>) {
    let Ok(cell) = cells(values) else {
        push_null(out);
        return;
    };
    out.push(b'[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(b',');
        }
        cell(row, out);
    }
    out.push(b']');
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
    fn instants_and_decimals_are_written_as_by_the_long_way() {
        let written = |push: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            push(&mut out);
            String::from_utf8(out).expect("text")
        };
        let last = 253_402_300_799_000_000_i64;
        for seconds in [0, 1, -1, 951_782_399, 951_782_400, 1_709_164_800, -62_135_596_800, 4_102_444_799] {
            for us in [seconds * 1_000_000, seconds * 1_000_000 + 1, last, last + 1_000_000, i64::MAX] {
                let expected = serde_json::to_string(&time_text(us)).expect("text");
                assert_eq!(written(&|out| push_time(us, out)), expected, "{us}");
            }
        }
        let mantissas = [0, 1, -1, 999_999, -1_000_000, i128::from(u64::MAX), i128::from(u64::MAX) + 1];
        for mantissa in mantissas {
            for scale in [0, 1, 6, 18, 20, 37] {
                let expected = Decimal128Type::format_decimal(mantissa, 38, scale);
                assert_eq!(
                    written(&|out| push_decimal(mantissa, scale, out)),
                    expected,
                    "{mantissa} {scale}"
                );
            }
        }
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
