//! Scalar values: grouping keys, aggregate inputs and results.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The type of a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ValueType {
    /// True or false.
    Bool,
    /// A 64-bit integer.
    Int,
    /// A scaled integer: `mantissa / 10^scale`, at most `precision` digits.
    Decimal {
        /// The number of significant digits, at most 38.
        precision: u8,
        /// The number of digits after the point.
        scale: i8,
    },
    /// A 64-bit float. Only results may be floats; no state holds one.
    Float,
    /// UTF-8 text.
    Text,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// Days since 1970-01-01.
    Date,
}

/// One scalar. Its type (and a decimal's scale) is known from the column.
///
/// Totally ordered as its encoding is: null first, then by type, then by value.
#[derive(Clone, Debug)]
pub enum Value {
    /// No value; distinct from zero.
    Null,
    /// See [`ValueType::Bool`].
    Bool(bool),
    /// See [`ValueType::Int`].
    Int(i64),
    /// The mantissa of a [`ValueType::Decimal`].
    Decimal(i128),
    /// See [`ValueType::Float`].
    Float(f64),
    /// See [`ValueType::Text`].
    Text(Arc<str>),
    /// See [`ValueType::Timestamp`].
    Timestamp(i64),
    /// See [`ValueType::Date`].
    Date(i32),
    /// A value at its event time in microseconds: what first and last choose
    /// from. Never nested.
    At(i64, Box<Value>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Date(a), Value::Date(b)) => a.cmp(b),
            (Value::At(a, x), Value::At(b, y)) => a.cmp(b).then_with(|| x.cmp(y)),
            _ => self.tag().cmp(&other.tag()),
        }
    }
}

impl Value {
    /// Says whether this is [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Creates a text value.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Value::Text(text.into())
    }

    /// Returns a number as its integer: an integer itself, or the mantissa of
    /// a decimal; none for null.
    ///
    /// # Panics
    /// On what is not a number: arithmetic is typed before it runs.
    pub(crate) fn mantissa(&self) -> Option<i128> {
        match self {
            Value::Null => None,
            Value::Int(v) => Some(i128::from(*v)),
            Value::Decimal(v) => Some(*v),
            other => panic!("{other:?} in an aggregate over numbers"),
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Value::Null => NULL,
            Value::Bool(_) => BOOL,
            Value::Int(_) => INT,
            Value::Decimal(_) => DECIMAL,
            Value::Float(_) => FLOAT,
            Value::Text(_) => TEXT,
            Value::Timestamp(_) => TIMESTAMP,
            Value::Date(_) => DATE,
            Value::At(..) => AT,
        }
    }
}

/// A broken ordered encoding.
#[derive(Debug, thiserror::Error)]
#[error("broken key encoding at byte {at}")]
pub struct KeyDecodeError {
    /// Where in the key the encoding breaks.
    pub at: usize,
}

const NULL: u8 = 0x00;
const BOOL: u8 = 0x01;
const INT: u8 = 0x02;
const DECIMAL: u8 = 0x03;
const FLOAT: u8 = 0x04;
const TEXT: u8 = 0x05;
const TIMESTAMP: u8 = 0x06;
const DATE: u8 = 0x07;
const AT: u8 = 0x08;

impl Value {
    /// Appends an encoding whose byte order is the order of the values
    /// (null first), so that encoded keys can be scanned in ranges.
    ///
    /// # Panics
    /// On a float: floats are results, never keys.
    pub fn encode_ordered(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Value::Null => {}
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::Int(v) | Value::Timestamp(v) => out.extend(ordered_64(*v)),
            Value::Decimal(v) => out.extend((*v as u128 ^ (1 << 127)).to_be_bytes()),
            Value::Float(_) => panic!("a float is never part of a key"),
            Value::Text(text) => {
                for &byte in text.as_bytes() {
                    out.push(byte);
                    if byte == 0 {
                        out.push(0xff);
                    }
                }
                out.extend([0, 0]);
            }
            Value::Date(v) => out.extend((*v as u32 ^ (1 << 31)).to_be_bytes()),
            Value::At(time, value) => {
                out.extend(ordered_64(*time));
                value.encode_ordered(out);
            }
        }
    }

    /// Reads one value written by [`Value::encode_ordered`] from the front of
    /// `bytes` and advances it.
    pub fn decode_ordered(bytes: &mut &[u8]) -> Result<Value, KeyDecodeError> {
        let [tag] = take(bytes)?;
        if tag != AT {
            return decode_plain(tag, bytes);
        }
        let time = take_64(bytes)?;
        let [tag] = take(bytes)?;
        Ok(Value::At(time, Box::new(decode_plain(tag, bytes)?)))
    }

    /// Encodes a tuple of values as one ordered key.
    pub fn encode_key(values: &[Value]) -> Box<[u8]> {
        let mut out = Vec::with_capacity(16 * values.len());
        values.iter().for_each(|v| v.encode_ordered(&mut out));
        out.into_boxed_slice()
    }

    /// Decodes a key written by [`Value::encode_key`].
    pub fn decode_key(mut bytes: &[u8]) -> Result<Vec<Value>, KeyDecodeError> {
        let length = bytes.len();
        let mut values = Vec::new();
        while !bytes.is_empty() {
            let at = length - bytes.len();
            values.push(Value::decode_ordered(&mut bytes).map_err(|_| KeyDecodeError { at })?);
        }
        Ok(values)
    }
}

/// Decodes what follows a tag; no [`Value::At`], so hostile bytes cannot nest.
fn decode_plain(tag: u8, bytes: &mut &[u8]) -> Result<Value, KeyDecodeError> {
    Ok(match tag {
        NULL => Value::Null,
        BOOL => match take(bytes)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return Err(KeyDecodeError { at: 0 }),
        },
        INT => Value::Int(take_64(bytes)?),
        DECIMAL => Value::Decimal((u128::from_be_bytes(take(bytes)?) ^ (1 << 127)) as i128),
        TEXT => Value::text(take_text(bytes)?),
        TIMESTAMP => Value::Timestamp(take_64(bytes)?),
        DATE => Value::Date((u32::from_be_bytes(take(bytes)?) ^ (1 << 31)) as i32),
        _ => return Err(KeyDecodeError { at: 0 }),
    })
}

fn ordered_64(value: i64) -> [u8; 8] {
    (value as u64 ^ (1 << 63)).to_be_bytes()
}

fn take_64(bytes: &mut &[u8]) -> Result<i64, KeyDecodeError> {
    Ok((u64::from_be_bytes(take(bytes)?) ^ (1 << 63)) as i64)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], KeyDecodeError> {
    let (head, tail) = bytes.split_first_chunk::<N>().ok_or(KeyDecodeError { at: 0 })?;
    *bytes = tail;
    Ok(*head)
}

fn take_text(bytes: &mut &[u8]) -> Result<String, KeyDecodeError> {
    let mut text = Vec::new();
    loop {
        match take::<1>(bytes)?[0] {
            0 => match take::<1>(bytes)?[0] {
                0 => break,
                0xff => text.push(0),
                _ => return Err(KeyDecodeError { at: 0 }),
            },
            byte => text.push(byte),
        }
    }
    String::from_utf8(text).map_err(|_| KeyDecodeError { at: 0 })
}

impl fmt::Display for ValueType {
    /// Writes the name in SQL, in lower case; part of what a source is compared by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Bool => f.write_str("boolean"),
            ValueType::Int => f.write_str("bigint"),
            ValueType::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            ValueType::Float => f.write_str("double"),
            ValueType::Text => f.write_str("text"),
            ValueType::Timestamp => f.write_str("timestamp"),
            ValueType::Date => f.write_str("date"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(v) => v.fmt(f),
            Value::Int(v) | Value::Timestamp(v) => v.fmt(f),
            Value::Decimal(v) => v.fmt(f),
            Value::Float(v) => v.fmt(f),
            Value::Text(v) => v.fmt(f),
            Value::Date(v) => v.fmt(f),
            Value::At(time, value) => write!(f, "{value} at {time}"),
        }
    }
}
