//! The binary forms of rows: ordered keys, and full rows for the index of
//! newest versions.
//!
//! A full row is a version byte, the number of columns, and for each column a
//! tag and its value: integers as zigzag varints, text with its length.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use sanso_state::Value;

use crate::error::RowError;
use crate::scalar::{ColumnBuilder, sql_type, value_at};
use crate::source::Source;

/// The version of the row encoding.
const VERSION: u8 = 1;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const DECIMAL: u8 = 4;
const TEXT: u8 = 5;
const TIMESTAMP: u8 = 6;
const DATE: u8 = 7;

/// The tag of text in the ordered encoding; a test holds it against
/// [`Value::encode_ordered`].
const ORDERED_TEXT: u8 = 0x05;

/// Appends the ordered encoding of one cell, as [`Value::encode_ordered`]
/// does, without making a [`Value`] of text first.
pub(crate) fn append_ordered(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    if let DataType::Utf8 = array.data_type()
        && array.is_valid(row)
    {
        let text = array.as_string::<i32>().value(row).as_bytes();
        if !text.contains(&0) {
            out.push(ORDERED_TEXT);
            out.extend_from_slice(text);
            out.extend_from_slice(&[0, 0]);
            return;
        }
    }
    value_at(array, row).encode_ordered(out);
}

/// Encodes the values a join compares; `None` when one of them is null, which
/// equals nothing.
pub(crate) fn key_of<'b>(columns: &[ArrayRef], row: usize, buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
    if columns.iter().any(|column| column.is_null(row)) {
        return None;
    }
    encode_key(columns, row, buffer);
    Some(buffer)
}

/// Encodes a row of columns, as [`Value::encode_key`] does.
pub(crate) fn encode_key(columns: &[ArrayRef], row: usize, key: &mut Vec<u8>) {
    key.clear();
    columns.iter().for_each(|column| append_ordered(column, row, key));
}

/// Returns the ranges of rows, one after the other, that are equal in these columns.
pub(crate) fn runs(columns: &[ArrayRef], rows: usize) -> Vec<Range<usize>> {
    if columns.is_empty() || rows == 0 {
        return Vec::from_iter((rows > 0).then_some(0..rows));
    }
    partition(columns).expect("columns of canonical types and one length").ranges()
}

/// Encodes every row of a batch of canonical types.
pub(crate) fn encode_rows(rows: &RecordBatch) -> Vec<Bytes> {
    each_row(rows.num_rows(), |row, out| {
        out.push(VERSION);
        append_varint(rows.num_columns() as u128, out);
        rows.columns().iter().for_each(|column| append_cell(column, row, out));
    })
}

/// Encodes rows one by one; what comes of all lies in one piece of memory, which lives as long as any.
pub(crate) fn each_row(rows: usize, append: impl Fn(usize, &mut Vec<u8>)) -> Vec<Bytes> {
    let (mut all, mut ends) = (Vec::with_capacity(rows * 64), Vec::with_capacity(rows));
    for row in 0..rows {
        append(row, &mut all);
        ends.push(all.len());
    }
    let (all, mut from) = (Bytes::from(all), 0);
    ends.into_iter().map(|end| all.slice(std::mem::replace(&mut from, end)..end)).collect()
}

fn append_cell(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    if array.is_null(row) {
        out.push(NULL);
        return;
    }
    match array.data_type() {
        DataType::Boolean => out.push(if array.as_boolean().value(row) { TRUE } else { FALSE }),
        DataType::Int64 => tagged(INT, array.as_primitive::<Int64Type>().value(row).into(), out),
        DataType::Decimal128(_, _) => {
            tagged(DECIMAL, array.as_primitive::<Decimal128Type>().value(row), out);
        }
        DataType::Timestamp(_, _) => {
            let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
            tagged(TIMESTAMP, value.into(), out);
        }
        DataType::Date32 => tagged(DATE, array.as_primitive::<Date32Type>().value(row).into(), out),
        DataType::Utf8 => {
            let text = array.as_string::<i32>().value(row);
            out.push(TEXT);
            append_varint(text.len() as u128, out);
            out.extend_from_slice(text.as_bytes());
        }
        other => unreachable!("a source has no column of {other}"),
    }
}

fn tagged(tag: u8, value: i128, out: &mut Vec<u8>) {
    out.push(tag);
    append_varint(((value << 1) ^ (value >> 127)) as u128, out);
}

fn append_varint(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes rows of a source. A row of fewer columns than the source declares
/// is refused, like any other mismatch.
pub(crate) fn decode_rows<'a>(
    source: &Source,
    rows: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RecordBatch, RowError> {
    let mut builders: Vec<_> = source.columns.iter().map(|c| ColumnBuilder::new(c.value_type, 16)).collect();
    let mut count = 0;
    for (row, mut bytes) in rows.into_iter().enumerate() {
        decode_row(source, &mut bytes, &mut builders).map_err(|message| RowError { row, message })?;
        count += 1;
    }
    let columns: Vec<_> = builders.iter_mut().map(ColumnBuilder::finish).collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(source.schema(), columns, &options)
        .map_err(|error| RowError { row: 0, message: error.to_string() })
}

fn decode_row(source: &Source, bytes: &mut &[u8], builders: &mut [ColumnBuilder]) -> Result<(), String> {
    let version = take_byte(bytes)?;
    if version != VERSION {
        return Err(format!("version {version}, expected {VERSION}"));
    }
    let columns = take_varint(bytes)?;
    if columns != source.columns.len() as u128 {
        return Err(format!("{columns} columns, expected {}", source.columns.len()));
    }
    for (column, builder) in source.columns.iter().zip(builders) {
        let value = take_value(bytes)?;
        if !builder.append(&value) {
            let expected = sql_type(column.value_type);
            return Err(format!("column {} is not of type {expected}", column.name));
        }
        if value.is_null() && !column.nullable {
            return Err(format!("column {} is null", column.name));
        }
    }
    if bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", bytes.len())) }
}

fn take_value(bytes: &mut &[u8]) -> Result<Value, String> {
    let out_of_range = |_| "a number out of range".to_owned();
    Ok(match take_byte(bytes)? {
        NULL => Value::Null,
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        INT => Value::Int(take_signed(bytes)?.try_into().map_err(out_of_range)?),
        DECIMAL => Value::Decimal(take_signed(bytes)?),
        TIMESTAMP => Value::Timestamp(take_signed(bytes)?.try_into().map_err(out_of_range)?),
        DATE => Value::Date(take_signed(bytes)?.try_into().map_err(out_of_range)?),
        TEXT => {
            let length = usize::try_from(take_varint(bytes)?).unwrap_or(usize::MAX);
            let (text, rest) = bytes.split_at_checked(length).ok_or("text cut short")?;
            *bytes = rest;
            Value::text(std::str::from_utf8(text).map_err(|_| "text that is not UTF-8")?)
        }
        tag => return Err(format!("unknown tag {tag}")),
    })
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, String> {
    let (&first, rest) = bytes.split_first().ok_or("cut short")?;
    *bytes = rest;
    Ok(first)
}

fn take_signed(bytes: &mut &[u8]) -> Result<i128, String> {
    let value = take_varint(bytes)?;
    Ok((value >> 1) as i128 ^ -((value & 1) as i128))
}

fn take_varint(bytes: &mut &[u8]) -> Result<u128, String> {
    let mut value = 0_u128;
    for shift in (0..128).step_by(7) {
        let byte = take_byte(bytes)?;
        let part = u128::from(byte & 0x7f);
        if shift == 126 && part > 3 {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number that is too long".into())
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
