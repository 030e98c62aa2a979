//! Times as files write them, turned into UTC.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};

/// Parses digits at a place of a text.
fn number(text: &str, at: usize, width: usize) -> Option<u32> {
    let digits = text.get(at..at + width)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Parses `CCYYMMDD`.
pub(crate) fn date8(text: &str) -> Option<NaiveDate> {
    if text.len() != 8 {
        return None;
    }
    let year = i32::try_from(number(text, 0, 4)?).ok()?;
    NaiveDate::from_ymd_opt(year, number(text, 4, 2)?, number(text, 6, 2)?)
}

/// Parses `CCYYMMDDhhmm` or `CCYYMMDDhhmmss`.
pub(crate) fn date_time(text: &str) -> Option<NaiveDateTime> {
    let second = match text.len() {
        12 => 0,
        14 => number(text, 12, 2)?,
        _ => return None,
    };
    let date = date8(text.get(..8)?)?;
    date.and_hms_opt(number(text, 8, 2)?, number(text, 10, 2)?, second)
}

/// Returns a time as the number `CCYYMMDDhhmmss`, which grows with time and
/// can be read by people; used as source version.
pub(crate) fn version_of(time: NaiveDateTime) -> i64 {
    let two = |number: i64, next: u32| number * 100 + i64::from(next);
    let date = two(two(i64::from(time.year()), time.month()), time.day());
    two(two(two(date, time.hour()), time.minute()), time.second())
}

/// Parses `CCYYMMDDhhmm[ss]` into a source version; `None` for anything else,
/// such as the `2.01811E+13` that a spreadsheet leaves.
pub(crate) fn version(text: &str) -> Option<i64> {
    date_time(text).map(version_of)
}

/// Turns a local time into UTC by an offset in seconds east of Greenwich.
pub(crate) fn utc(local: NaiveDateTime, east_s: i32) -> Option<DateTime<Utc>> {
    let time = local.checked_sub_signed(TimeDelta::seconds(i64::from(east_s)))?;
    plausible(time.and_utc())
}

/// Keeps a time in which a meter can have been read; also keeps later
/// arithmetic in range.
pub(crate) fn plausible(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (1900..2200).contains(&time.year()).then_some(time)
}

/// The first second of 1900, and of 2200.
const PLAUSIBLE_S: std::ops::Range<i64> = -2_208_988_800..7_258_118_400;

/// Parses seconds since 1970 into a plausible time.
pub(crate) fn seconds(text: &[u8]) -> Option<DateTime<Utc>> {
    let seconds = whole(text).filter(|seconds| PLAUSIBLE_S.contains(seconds))?;
    DateTime::from_timestamp(seconds, 0)
}

/// Parses a whole number, with or without a sign.
pub(crate) fn whole(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] | digits => (1, digits),
    };
    let append = |number: i64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    let number = digits.iter().try_fold(0, append)?;
    (!digits.is_empty()).then_some(sign * number)
}

/// Parses `2012-10-12 00:30:00`, also with `T` and with a fraction; much
/// faster than a general format.
pub(crate) fn iso(text: &str) -> Option<NaiveDateTime> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':')];
    if bytes.len() < 16 || marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    if !matches!(bytes[10], b' ' | b'T') {
        return None;
    }
    let year = i32::try_from(number(text, 0, 4)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, number(text, 5, 2)?, number(text, 8, 2)?)?;
    let (hour, minute) = (number(text, 11, 2)?, number(text, 14, 2)?);
    if bytes.len() == 16 {
        return date.and_hms_opt(hour, minute, 0);
    }
    if bytes[16] != b':' {
        return None;
    }
    let time = NaiveTime::from_hms_opt(hour, minute, number(text, 17, 2)?)?;
    let nanos = match text.get(19..)? {
        "" => 0,
        fraction => nanos(fraction.strip_prefix('.')?)?,
    };
    Some(date.and_time(time.with_nanosecond(nanos)?))
}

fn nanos(digits: &str) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let power = u32::try_from(9 - digits.len()).ok()?;
    Some(number(digits, 0, digits.len())? * 10_u32.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_times_are_versions() {
        assert_eq!(version("20040330095000"), Some(20_040_330_095_000));
        assert_eq!(version("200405011135"), Some(20_040_501_113_500));
        for text in ["", "2.01811E+13", "20041330095000", "2004033009500", "ééééééé", "+0040330095000"]
        {
            assert_eq!(version(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_are_plausible_from_1900_until_2200() {
        for (text, time) in [
            ("0", Some("1970-01-01T00:00:00+00:00")),
            ("+900", Some("1970-01-01T00:15:00+00:00")),
            ("-2208988800", Some("1900-01-01T00:00:00+00:00")),
            ("-2208988801", None),
            ("7258118399", Some("2199-12-31T23:59:59+00:00")),
            ("7258118400", None),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("1.5", None),
        ] {
            let found = seconds(text.as_bytes());
            assert_eq!(found.map(|time| time.to_rfc3339()).as_deref(), time, "{text}");
            let general = text.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
            assert_eq!(found, general.and_then(plausible), "{text}");
        }
    }

    #[test]
    fn iso_times_are_read_with_and_without_seconds_and_fractions() {
        let expected = NaiveDate::from_ymd_opt(2012, 10, 12).and_then(|date| date.and_hms_opt(0, 30, 0));
        for text in ["2012-10-12 00:30", "2012-10-12T00:30:00", "2012-10-12 00:30:00.0000000"] {
            assert_eq!(iso(text), expected, "{text}");
        }
        for text in
            ["", "12/10/2012 00:30", "2012-10-12 00:30:00.", "2012-10-12 24:30:00", "2012-13-12 00:30"]
        {
            assert_eq!(iso(text), None, "{text}");
        }
    }
}
