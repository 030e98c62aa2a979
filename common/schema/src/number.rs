//! Exact decimal numbers as text, and texts of time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde_json::Value;

use crate::Mismatch;

/// A decimal number: `± digits × 10^exponent`; digits without zeros at either end, so that equal
/// numbers are equal values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exact {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Exact {
    /// Parses a JSON number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, i64::from(exponent.parse::<i32>().ok()?)),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let stripped = digits.trim_end_matches('0');
        let exponent = exponent - fraction.len() as i64 + (digits.len() - stripped.len()) as i64;
        let digits = stripped.trim_start_matches('0').to_owned();
        let is_zero = digits.is_empty();
        Some(Self { negative: negative && !is_zero, digits, exponent: if is_zero { 0 } else { exponent } })
    }

    /// Returns the number times `10^scale`, if that is whole and fits 128 bits.
    pub(crate) fn unscaled(&self, scale: u32) -> Option<i128> {
        if self.digits.is_empty() {
            return Some(0);
        }
        let zeros = u32::try_from(self.exponent.checked_add(i64::from(scale))?).ok()?;
        let digits: i128 = self.digits.parse().ok()?;
        let value = digits.checked_mul(10_i128.checked_pow(zeros)?)?;
        Some(if self.negative { -value } else { value })
    }
}

/// Writes `unscaled × 10^-scale` in full.
pub(crate) fn decimal_text(unscaled: i128, scale: u32) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

/// Returns the text of a JSON number, or of a string that holds one.
pub(crate) fn number_text(json: &Value) -> Option<String> {
    match json {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Exact::parse(text).map(|_| text.clone()),
        _ => None,
    }
}

/// Returns a whole number, however it is written.
pub(crate) fn whole(json: &Value) -> Option<i128> {
    let Value::Number(number) = json else { return None };
    Exact::parse(&number.to_string())?.unscaled(0)
}

/// Returns the double whose shortest text is the number; none if a double can't hold all its digits.
pub(crate) fn double(json: &Value) -> Option<f64> {
    let text = number_text(json)?;
    let value: f64 = text.parse().ok()?;
    let back = double_text(value)?;
    (Exact::parse(&back) == Exact::parse(&text)).then_some(value)
}

/// Returns the float whose shortest text is the number; none if a float can't hold all its digits.
pub(crate) fn float(json: &Value) -> Option<f32> {
    let text = number_text(json)?;
    let value: f32 = text.parse().ok()?;
    let back = float_text(value)?;
    (Exact::parse(&back) == Exact::parse(&text)).then_some(value)
}

/// Returns the shortest text that reads back as the same double; none for what is no number.
pub(crate) fn double_text(value: f64) -> Option<String> {
    value.is_finite().then(|| format!("{value:?}"))
}

/// Returns the shortest text that reads back as the same float; none for what is no number.
pub(crate) fn float_text(value: f32) -> Option<String> {
    value.is_finite().then(|| format!("{value:?}"))
}

/// Writes an instant, given as a count of `per_second` ticks since 1970, in RFC 3339.
pub(crate) fn instant_text(ticks: i64, per_second: i64) -> Result<String, Mismatch> {
    let nanos = ticks.rem_euclid(per_second) * (1_000_000_000 / per_second);
    DateTime::<Utc>::from_timestamp(ticks.div_euclid(per_second), nanos as u32)
        .map(|instant| instant.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        .ok_or_else(|| Mismatch::new(format!("{ticks} ticks of 1/{per_second} s since 1970 is no time")))
}

/// Reads an instant in RFC 3339 as a count of ticks; refuses what lies between two.
pub(crate) fn instant_ticks(json: &Value, per_second: i64) -> Option<i64> {
    let instant = DateTime::parse_from_rfc3339(json.as_str()?).ok()?;
    let tick = 1_000_000_000 / per_second;
    let nanos = i64::from(instant.timestamp_subsec_nanos());
    if nanos >= 1_000_000_000 || nanos % tick != 0 {
        return None;
    }
    instant.timestamp().checked_mul(per_second)?.checked_add(nanos / tick)
}

const UNIX_DAY: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("the first day of Unix time");

/// Writes a date, given as days since 1970.
pub(crate) fn date_text(days: i32) -> Result<String, Mismatch> {
    let date = UNIX_DAY.checked_add_signed(chrono::Duration::days(i64::from(days)));
    date.map(|date| date.to_string())
        .ok_or_else(|| Mismatch::new(format!("{days} days since 1970 is no date")))
}

/// Reads a date as days since 1970.
pub(crate) fn date_days(json: &Value) -> Option<i32> {
    let date: NaiveDate = json.as_str()?.parse().ok()?;
    i32::try_from(date.signed_duration_since(UNIX_DAY).num_days()).ok()
}

/// Writes bytes as text.
pub(crate) fn bytes_text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads bytes from text.
pub(crate) fn text_bytes(json: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(json.as_str()?).ok()
}

/// Writes two's complement, big-endian, in as few bytes as hold it.
pub(crate) fn twos_complement(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let spare = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) < 0x80).count();
    bytes[spare..].to_vec()
}

/// Reads two's complement, big-endian; none if it is empty or does not fit 128 bits.
pub(crate) fn from_twos_complement(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    let spare = bytes.len().saturating_sub(16);
    let (front, back) = bytes.split_at(spare);
    wide[16 - back.len()..].copy_from_slice(back);
    let value = i128::from_be_bytes(wide);
    let extends = front.iter().all(|byte| *byte == sign) && (value < 0) == (sign == 0xff);
    extends.then_some(value)
}

/// Longest text that a record may read as. Fields without bytes (null, an empty record, a default)
/// cost text but no input, so the input's length bounds nothing.
const TEXT_BYTES_MAX: usize = 32 << 20;

/// Refuses a text that grew beyond what a record may read as. To be asked at every value.
pub(crate) fn bounded(text: &str) -> Result<(), Mismatch> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Mismatch::new(format!("the record reads as more than {TEXT_BYTES_MAX} bytes of text")))
}

/// Shows JSON, shortened.
pub(crate) fn shown(json: &Value) -> String {
    let text = json.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        for text in ["900", "9e2", "900.00", "0.09E4", "9000e-1"] {
            assert_eq!(Exact::parse(text), Exact::parse("900"), "{text}");
        }
        assert_eq!(Exact::parse("0.125").and_then(|n| n.unscaled(3)), Some(125));
        assert_eq!(Exact::parse("0.125").and_then(|n| n.unscaled(2)), None);
        assert_eq!(Exact::parse("1e999999").and_then(|n| n.unscaled(0)), None);
        assert_eq!(Exact::parse("-0.0"), Exact::parse("0"));
    }

    #[test]
    fn a_double_takes_only_what_it_holds() {
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(double(&json("0.1")), Some(0.1));
        assert_eq!(double(&json("0.1000000000000000055")), None);
        assert_eq!(float(&json("16777217")), None);
    }

    #[test]
    fn an_instant_between_two_ticks_is_refused() {
        let json = Value::from("2024-07-01T00:30:00.0005+10:00");
        assert_eq!(instant_ticks(&json, 1_000), None);
        assert_eq!(instant_ticks(&json, 1_000_000), Some(1_719_757_800_000_500));
    }

    proptest! {
        #[test]
        fn decimals_come_back(value: i128, scale in 0_u32..38, front in 0_usize..4) {
            let mut bytes = vec![if value < 0 { 0xff } else { 0 }; front];
            bytes.extend(twos_complement(value));
            prop_assert_eq!(from_twos_complement(&bytes), Some(value));
            let text = decimal_text(value, scale);
            prop_assert_eq!(Exact::parse(&text).and_then(|number| number.unscaled(scale)), Some(value));
        }
    }
}
