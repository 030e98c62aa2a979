//! Writes rows as JSON, and columns as rows; pure. How a scalar is written: see `json.rs`.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, FieldRef,
    Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use crate::json::{push_decimal, push_float, push_json, push_null, push_shown, push_text, push_time};

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnInfo<'a> {
    /// The name.
    pub name: &'a str,
    /// The type, as SQL writes it.
    #[serde(rename = "type")]
    pub type_name: Cow<'static, str>,
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
pub fn columns(schema: &Schema) -> Vec<ColumnInfo<'_>> {
    let fields = schema.fields().iter();
    fields.map(|field| ColumnInfo { name: field.name(), type_name: type_name(field.data_type()) }).collect()
}

/// Returns a type's name as SQL writes it.
pub fn type_name(data_type: &DataType) -> Cow<'static, str> {
    Cow::Borrowed(match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "bigint unsigned",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double",
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => return format!("decimal({p},{s})").into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Timestamp(..) => "timestamp",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Null => "null",
        DataType::Dictionary(_, values) => return type_name(values),
        DataType::List(field) | DataType::LargeList(field) => {
            return format!("{}[]", type_name(field.data_type())).into();
        }
        other => return other.to_string().to_lowercase().into(),
    })
}

/// Writes rows as one JSON array.
pub fn rows(batches: &[RecordBatch], shape: Shape) -> Result<Vec<u8>, ArrowError> {
    let mut writer = RowWriter::with_capacity(0);
    for batch in batches {
        let names = names(shape, batch.schema().fields());
        let cells = batch.columns().iter().map(|array| cells(array)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            writer.row(names.as_deref(), cells.len(), |column, out| cells[column](row, out));
        }
    }
    Ok(writer.end())
}

/// Returns what stands before each cell of a row that is an object.
pub(crate) fn names(shape: Shape, fields: &Fields) -> Option<Vec<String>> {
    let name = |field: &FieldRef| format!("{}:", serde_json::Value::from(field.name().as_str()));
    (shape == Shape::Objects).then(|| fields.iter().map(name).collect())
}

/// Writes rows as one JSON array.
pub(crate) struct RowWriter {
    out: Vec<u8>,
    rows: usize,
}

impl RowWriter {
    /// Begins an array that will take about so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes + 2);
        out.push(b'[');
        Self { out, rows: 0 }
    }

    /// Returns how many rows were written.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Writes a row of so many cells: an object where there are [`names`], else an array.
    pub(crate) fn row(
        &mut self,
        names: Option<&[String]>,
        cells: usize,
        mut cell: impl FnMut(usize, &mut Vec<u8>),
    ) {
        let Self { out, rows } = self;
        if *rows > 0 {
            out.push(b',');
        }
        *rows += 1;
        out.push(if names.is_none() { b'[' } else { b'{' });
        for column in 0..cells {
            if column > 0 {
                out.push(b',');
            }
            if let Some(names) = names {
                out.extend_from_slice(names[column].as_bytes());
            }
            cell(column, out);
        }
        out.push(if names.is_none() { b']' } else { b'}' });
    }

    /// Ends the array.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.out.push(b']');
        self.out
    }
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

    fn written(batches: &[RecordBatch], shape: Shape) -> String {
        String::from_utf8(rows(batches, shape).expect("writes")).expect("text")
    }

    fn check(array: ArrayRef, expected: &str) {
        let batch = RecordBatch::try_from_iter_with_nullable([("a", array, true)]).expect("one column");
        assert_eq!(written(&[batch], Shape::Arrays), expected);
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
        assert_eq!(written(&[batch], Shape::Objects), "[{\"a\":1}]");
    }
}
