//! Writes scalars as JSON, exactly; pure.
//!
//! - Decimals are numbers with all digits of their scale: `0.125000`. They never pass a float.
//! - Timestamps are RFC 3339 in UTC, with a fraction of 3 or 6 digits only where there is one.
//! - Dates are ISO 8601. Text is text. What JSON can't say (NaN, infinity) is null.

use arrow::datatypes::{Decimal128Type, DecimalType};
use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat};
use sanso_state::{Value, ValueType};
use serde::Serialize;

/// Writes a value of a type as the cell of a column of that type is written.
pub(crate) fn push_value(value: &Value, value_type: ValueType, out: &mut Vec<u8>) {
    match (value, value_type) {
        (Value::Bool(value), _) => push_json(value, out),
        (Value::Int(value), _) => push_json(value, out),
        (Value::Decimal(mantissa), ValueType::Decimal { scale, .. }) => push_decimal(*mantissa, scale, out),
        (Value::Float(value), _) => push_float(*value, out),
        (Value::Text(text), _) => push_text(text, out),
        (Value::Timestamp(us), _) => push_time(*us, out),
        (Value::Date(days), _) => push_shown(NaiveDate::from_epoch_days(*days), out),
        (Value::Null | Value::Decimal(_) | Value::At(..), _) => push_null(out),
    }
}

/// Writes an instant as RFC 3339 in UTC; null beyond the years that can be written.
pub(crate) fn time_text(us: i64) -> Option<String> {
    if let Some(text) = plain_time(us) {
        return Some(str::from_utf8(&text).expect("digits are ASCII").to_owned());
    }
    let time = DateTime::from_timestamp_micros(us)?;
    Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

pub(crate) fn push_null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

pub(crate) fn push_json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("memory takes a scalar");
}

pub(crate) fn push_text(text: &str, out: &mut Vec<u8>) {
    push_json(text, out);
}

pub(crate) fn push_shown(value: Option<impl std::fmt::Display>, out: &mut Vec<u8>) {
    match value {
        Some(value) => push_text(&value.to_string(), out),
        None => push_null(out),
    }
}

pub(crate) fn push_float(value: f64, out: &mut Vec<u8>) {
    match serde_json::Number::from_f64(value) {
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None => push_null(out),
    }
}

/// Writes a decimal with all digits of its scale.
pub(crate) fn push_decimal(mantissa: i128, scale: i8, out: &mut Vec<u8>) {
    let magnitude = u64::try_from(mantissa.unsigned_abs());
    let unit = usize::try_from(scale).ok().and_then(|scale| UNITS.get(scale));
    let (Ok(magnitude), Some(unit)) = (magnitude, unit) else {
        return out.extend_from_slice(Decimal128Type::format_decimal(mantissa, 38, scale).as_bytes());
    };
    // From the last digit to the first.
    let (mut text, mut at) = ([0; DECIMAL_BYTES], DECIMAL_BYTES);
    let (mut whole, mut fraction) = (magnitude / unit, magnitude % unit);
    for _ in 0..scale {
        at -= 1;
        text[at] = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    if scale > 0 {
        at -= 1;
        text[at] = b'.';
    }
    loop {
        at -= 1;
        text[at] = b'0' + (whole % 10) as u8;
        whole /= 10;
        if whole == 0 {
            break;
        }
    }
    if mantissa < 0 {
        at -= 1;
        text[at] = b'-';
    }
    out.extend_from_slice(&text[at..]);
}

/// What a decimal of a scale counts its ones in.
const UNITS: [u64; 20] = {
    let mut units = [1; 20];
    let mut scale = 1;
    while scale < units.len() {
        units[scale] = units[scale - 1] * 10;
        scale += 1;
    }
    units
};

/// A sign, a point, and all digits of 64 bits, one of them before the point.
const DECIMAL_BYTES: usize = 2 + 20;

/// Writes an instant as [`time_text`] does.
pub(crate) fn push_time(us: i64, out: &mut Vec<u8>) {
    if let Some(text) = plain_time(us) {
        out.push(b'"');
        out.extend_from_slice(&text);
        return out.push(b'"');
    }
    match time_text(us) {
        Some(text) => push_text(&text, out),
        None => push_null(out),
    }
}

/// Writes an instant in its common form: a whole second of the years 0 to 9999.
fn plain_time(us: i64) -> Option<[u8; 20]> {
    let (seconds, rest) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let date = NaiveDate::from_epoch_days(i32::try_from(seconds.div_euclid(86_400)).ok()?)?;
    let year = u32::try_from(date.year()).ok().filter(|year| rest == 0 && *year <= 9_999)?;
    let second = seconds.rem_euclid(86_400) as u32;
    let [y, e] = two(year / 100);
    let [a, r] = two(year % 100);
    let ([m, o], [d, x]) = (two(date.month()), two(date.day()));
    let ([h, i], [n, u], [s, t]) = (two(second / 3_600), two(second / 60 % 60), two(second % 60));
    Some([y, e, a, r, b'-', m, o, b'-', d, x, b'T', h, i, b':', n, u, b':', s, t, b'Z'])
}

fn two(number: u32) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_decimals_are_written_as_by_the_long_way() {
        let written = |push: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            push(&mut out);
            String::from_utf8(out).expect("text")
        };
        let last = 253_402_300_799_000_000_i64;
        for seconds in [
            0,
            1,
            -1,
            951_782_399,
            951_782_400,
            1_709_164_800,
            -62_135_596_800,
            -62_162_035_200,
            -62_162_035_201,
            4_102_444_799,
        ] {
            for us in
                [seconds * 1_000_000, seconds * 1_000_000 + 1, last, last + 1_000_000, i64::MIN, i64::MAX]
            {
                let long = DateTime::from_timestamp_micros(us);
                let long = long.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
                assert_eq!(time_text(us), long, "{us}");
                let expected = serde_json::to_string(&long).expect("text");
                assert_eq!(written(&|out| push_time(us, out)), expected, "{us}");
            }
        }
        let mantissas = [
            0,
            1,
            -1,
            999_999,
            -1_000_000,
            i128::from(u64::MAX),
            i128::from(u64::MAX) + 1,
            -i128::from(u64::MAX),
        ];
        for mantissa in mantissas {
            for scale in [-2, 0, 1, 6, 18, 19, 20, 37, 38] {
                let expected = Decimal128Type::format_decimal(mantissa, 38, scale);
                assert_eq!(
                    written(&|out| push_decimal(mantissa, scale, out)),
                    expected,
                    "{mantissa} {scale}"
                );
            }
        }
    }
}
