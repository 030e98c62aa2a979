//! Scalars between SQL, Arrow and [`Value`].

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate};
use sanso_state::{Value, ValueType};

/// Microseconds at 0001-01-01T00:00:00Z, the first instant admitted.
const FIRST_US: i64 = -62_135_596_800_000_000;
/// Microseconds just after 9999-12-31T23:59:59.999999Z.
const LAST_US: i64 = 253_402_300_800_000_000;

/// Returns the Arrow type that holds values of a type.
pub(crate) fn arrow_type(value_type: ValueType) -> DataType {
    match value_type {
        ValueType::Bool => DataType::Boolean,
        ValueType::Int => DataType::Int64,
        ValueType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
        ValueType::Float => DataType::Float64,
        ValueType::Text => DataType::Utf8,
        ValueType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ValueType::Date => DataType::Date32,
    }
}

/// Returns the type that an expression's Arrow type is kept as, if there is an
/// exact one.
pub(crate) fn value_type(data_type: &DataType) -> Option<ValueType> {
    Some(match data_type {
        DataType::Boolean => ValueType::Bool,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => ValueType::Int,
        DataType::Decimal128(precision, scale) => ValueType::Decimal { precision: *precision, scale: *scale },
        DataType::Float16 | DataType::Float32 | DataType::Float64 => ValueType::Float,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ValueType::Text,
        DataType::Timestamp(_, _) => ValueType::Timestamp,
        DataType::Date32 => ValueType::Date,
        _ => return None,
    })
}

/// Names a type as SQL does.
pub(crate) fn sql_type(value_type: ValueType) -> String {
    match value_type {
        ValueType::Bool => "BOOLEAN".into(),
        ValueType::Int => "BIGINT".into(),
        ValueType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        ValueType::Float => "DOUBLE".into(),
        ValueType::Text => "TEXT".into(),
        ValueType::Timestamp => "TIMESTAMP".into(),
        ValueType::Date => "DATE".into(),
    }
}

/// Reads one value of an array of a canonical type (see [`arrow_type`]).
pub(crate) fn value_at(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Decimal128(_, _) => Value::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Value::text(array.as_string::<i32>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        other => unreachable!("arrays are cast to a canonical type first, not {other}"),
    }
}

/// Says whether a value is null, or of a type.
pub(crate) fn is_of_type(value: &Value, value_type: ValueType) -> bool {
    matches!(
        (value, value_type),
        (Value::Null, _)
            | (Value::Bool(_), ValueType::Bool)
            | (Value::Int(_), ValueType::Int)
            | (Value::Decimal(_), ValueType::Decimal { .. })
            | (Value::Float(_), ValueType::Float)
            | (Value::Text(_), ValueType::Text)
            | (Value::Timestamp(_), ValueType::Timestamp)
            | (Value::Date(_), ValueType::Date)
    )
}

/// Builds one column of a canonical type.
pub(crate) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Decimal(Decimal128Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl ColumnBuilder {
    /// Creates a builder for a type, with room for `capacity` rows.
    pub(crate) fn new(value_type: ValueType, capacity: usize) -> Self {
        match value_type {
            ValueType::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            ValueType::Int => Self::Int(Int64Builder::with_capacity(capacity)),
            ValueType::Decimal { .. } => Self::Decimal(
                Decimal128Builder::with_capacity(capacity).with_data_type(arrow_type(value_type)),
            ),
            ValueType::Float => Self::Float(Float64Builder::with_capacity(capacity)),
            ValueType::Text => Self::Text(StringBuilder::with_capacity(capacity, capacity * 12)),
            ValueType::Timestamp => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity).with_data_type(arrow_type(value_type)),
            ),
            ValueType::Date => Self::Date(Date32Builder::with_capacity(capacity)),
        }
    }

    /// Appends a value; one of another type becomes null, and false is returned.
    pub(crate) fn append(&mut self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(b), Value::Bool(v)) => b.append_value(*v),
            (Self::Int(b), Value::Int(v)) => b.append_value(*v),
            (Self::Decimal(b), Value::Decimal(v)) => b.append_value(*v),
            (Self::Float(b), Value::Float(v)) => b.append_value(*v),
            (Self::Text(b), Value::Text(v)) => b.append_value(v),
            (Self::Timestamp(b), Value::Timestamp(v)) => b.append_value(*v),
            (Self::Date(b), Value::Date(v)) => b.append_value(*v),
            (this, value) => {
                this.append_null();
                return value.is_null();
            }
        }
        true
    }

    /// Appends a null.
    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int(b) => b.append_null(),
            Self::Decimal(b) => b.append_null(),
            Self::Float(b) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
        }
    }

    /// Finishes the column.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
        }
    }
}

/// Parses a decimal number exactly into a mantissa of the given scale.
///
/// Exponents are admitted, as in JSON. More digits than the scale or the
/// precision holds are refused, never rounded.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, String> {
    let fail = |why: &str| Err(format!("found {}, {why}", quote(text)));
    let Some((negative, digits, exponent)) = split_number(text) else {
        return fail("expected a decimal number");
    };
    let mut mantissa: i128 = 0;
    let mut significant = 0_u32;
    let mut zeros = 0_u32;
    // Trailing zeros wait until another digit follows, so that 1.500 fits scale 1.
    for byte in digits.bytes().filter(u8::is_ascii_digit) {
        if byte == b'0' {
            zeros = zeros.saturating_add(1);
            continue;
        }
        if mantissa == 0 {
            zeros = 0;
        }
        significant = significant.saturating_add(zeros).saturating_add(1);
        if significant > 38 {
            return fail(&format!("which has more than {precision} digits"));
        }
        mantissa = mantissa * 10_i128.pow(zeros + 1) + i128::from(byte - b'0');
        zeros = 0;
    }
    if mantissa == 0 {
        return Ok(0);
    }
    // value = mantissa · 10^zeros · 10^exponent, and the result is value · 10^scale.
    let shift = i64::from(zeros).saturating_add(exponent).saturating_add(i64::from(scale));
    if shift < 0 {
        return fail(&format!("which has more than {scale} digits after the point"));
    }
    let scaled = u32::try_from(shift)
        .ok()
        .filter(|shift| *shift <= 38)
        .and_then(|shift| mantissa.checked_mul(10_i128.checked_pow(shift)?))
        .filter(|scaled| *scaled < 10_i128.pow(u32::from(precision)));
    match scaled {
        Some(scaled) => Ok(if negative { -scaled } else { scaled }),
        None => fail(&format!("which does not fit DECIMAL({precision},{scale})")),
    }
}

/// Splits a number into its sign, its digits (with the point) and the exponent
/// that applies when the point is taken out of the digits.
fn split_number(text: &str) -> Option<(bool, &str, i64)> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, exponent) = match rest.find(['e', 'E']) {
        Some(at) => {
            let text = &rest[at + 1..];
            let body = text.strip_prefix(['+', '-']).unwrap_or(text);
            if body.is_empty() || !body.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // An exponent beyond 64 bits moves any digit out of range.
            let magnitude = body.parse::<i64>().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
            (&rest[..at], if text.starts_with('-') { -magnitude } else { magnitude })
        }
        None => (rest, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let exponent = exponent.saturating_sub(i64::try_from(fraction.len()).ok()?);
    Some((negative, digits, exponent))
}

/// Parses an RFC 3339 instant into microseconds UTC. Finer than a microsecond,
/// or outside the years 1 to 9999, is refused.
pub(crate) fn parse_timestamp(text: &str) -> Result<i64, String> {
    if let Some(micros) = plain_timestamp(text.as_bytes()) {
        return Ok(micros);
    }
    let expected = "expected an RFC 3339 timestamp such as 2024-07-01T00:30:00Z";
    let Ok(instant) = DateTime::parse_from_rfc3339(text) else {
        return Err(format!("found {}, {expected}", quote(text)));
    };
    if instant.timestamp_subsec_nanos() % 1_000 != 0 {
        return Err(format!("found {}, which is finer than a microsecond", quote(text)));
    }
    if instant.timestamp_subsec_nanos() >= 1_000_000_000 {
        return Err(format!("found {}, a leap second, which has no place in UTC microseconds", quote(text)));
    }
    let micros = instant.timestamp_micros();
    if !timestamp_admitted(micros) {
        return Err(format!("found {}, which is outside the years 1 to 9999", quote(text)));
    }
    Ok(micros)
}

/// Parses the common form `2024-07-01T00:30:00Z` without the detours of the
/// general one. Anything else, valid or not, is `None`.
fn plain_timestamp(text: &[u8]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1, b'Z'] = text
    else {
        return None;
    };
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_u32, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))
    };
    let year = number(&[*y0, *y1, *y2, *y3])?;
    let date =
        NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, number(&[*m0, *m1])?, number(&[*d0, *d1])?)?;
    let (hour, minute, second) = (number(&[*h0, *h1])?, number(&[*n0, *n1])?, number(&[*s0, *s1])?);
    if year == 0 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(date.to_epoch_days()) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some(seconds * 1_000_000)
}

/// Says whether an instant lies in the years 1 to 9999.
pub(crate) fn timestamp_admitted(micros: i64) -> bool {
    (FIRST_US..LAST_US).contains(&micros)
}

/// Parses a calendar date into days since 1970-01-01.
pub(crate) fn parse_date(text: &str) -> Result<i32, String> {
    let fail = || format!("found {}, expected a date such as 2024-07-01", quote(text));
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
    if !shaped {
        return Err(fail());
    }
    let date = NaiveDate::from_str(text).map_err(|_| fail())?;
    Ok(date.to_epoch_days())
}

/// Formats an instant as RFC 3339 in UTC, with as many digits as it needs.
pub(crate) fn format_timestamp(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(instant) => instant.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        None => micros.to_string(),
    }
}

/// Formats a date.
pub(crate) fn format_date(days: i32) -> String {
    match NaiveDate::from_epoch_days(days) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        None => days.to_string(),
    }
}

/// Formats a decimal with all digits of its scale.
pub(crate) fn format_decimal(mantissa: i128, scale: i8) -> String {
    let digits = mantissa.unsigned_abs().to_string();
    let sign = if mantissa < 0 { "-" } else { "" };
    let Ok(scale) = usize::try_from(scale) else {
        let zeros = if mantissa == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Parses text (of a file or a URL) as a value of a type.
pub(crate) fn parse_text(text: &str, value_type: ValueType) -> Result<Value, String> {
    match value_type {
        ValueType::Text => Ok(Value::text(text)),
        ValueType::Int => text
            .parse()
            .map(Value::Int)
            .map_err(|_| format!("found {}, expected a whole number of 64 bits", quote(text))),
        ValueType::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("found {}, expected true or false", quote(text))),
        },
        ValueType::Decimal { precision, scale } => parse_decimal(text, precision, scale).map(Value::Decimal),
        ValueType::Timestamp => parse_timestamp(text).map(Value::Timestamp),
        ValueType::Date => parse_date(text).map(Value::Date),
        ValueType::Float => Err("a float is never part of a key".into()),
    }
}

/// Quotes text found in input, shortened so that a message stays readable.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head:?}…")
}

#[cfg(test)]
#[path = "scalar_tests.rs"]
mod tests;
