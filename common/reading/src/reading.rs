//! The canonical reading: what every meter format is turned into.

use std::io::Write;

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::decimal::Decimal;
use crate::quality::Quality;

/// One value of one channel of one usage point over one interval.
///
/// The identity of a reading is (`usage_point`, `channel`, `start_utc`); of two
/// readings with one identity the higher `source_version` replaces the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Where energy is delivered: NMI, market location, `UsagePoint` href, customer.
    pub usage_point: String,
    /// What is measured there. Energy to and from the customer are different channels.
    pub channel: String,
    /// Start of the interval.
    pub start_utc: DateTime<Utc>,
    /// Length of the interval in seconds.
    pub duration_s: u32,
    /// The value in `unit`, fitting `DECIMAL(18,6)`. `None` is null, not zero.
    pub value: Option<Decimal>,
    /// The base unit (`kWh`, `kvarh`, `V`, …), or as in the file if unknown there.
    pub unit: String,
    /// The cross-format quality.
    pub quality: Quality,
    /// The quality as the file states it.
    pub source_quality: Option<String>,
    /// The reason as the file states it.
    pub reason: Option<String>,
    /// Grows with every restatement by the source; 0 where the source states none.
    pub source_version: i64,
    /// The meter's serial number.
    pub meter: Option<String>,
    /// When the platform received it.
    pub received_at: Option<DateTime<Utc>>,
}

impl Reading {
    /// Creates a reading that says nothing yet; parsers fill one and reuse it.
    pub(crate) fn blank(received_at: Option<DateTime<Utc>>) -> Self {
        Self {
            usage_point: String::new(),
            channel: String::new(),
            start_utc: DateTime::UNIX_EPOCH,
            duration_s: 0,
            value: None,
            unit: String::new(),
            quality: Quality::Unqualified,
            source_quality: None,
            reason: None,
            source_version: 0,
            meter: None,
            received_at,
        }
    }

    /// Sets value and quality together, so that `missing` and null go together.
    pub(crate) fn set_value(&mut self, value: Option<Decimal>, quality: Quality) {
        let missing = quality == Quality::Missing || value.is_none();
        self.value = if missing { None } else { value };
        self.quality = if missing { Quality::Missing } else { quality };
    }

    /// Appends the reading as one JSON object without a line break; the same
    /// document as through serde, several times as fast.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"usage_point\":");
        write_text(out, &self.usage_point);
        out.extend_from_slice(b",\"channel\":");
        write_text(out, &self.channel);
        out.extend_from_slice(b",\"start_utc\":");
        write_time(out, Some(self.start_utc));
        // Writing to a vector can't fail.
        let _ = write!(out, ",\"duration_s\":{},\"value\":", self.duration_s);
        match self.value {
            Some(value) => {
                let _ = write!(out, "{value}");
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"unit\":");
        write_text(out, &self.unit);
        let _ = write!(out, ",\"quality\":\"{}\",\"source_quality\":", self.quality.as_str());
        write_option(out, self.source_quality.as_deref());
        out.extend_from_slice(b",\"reason\":");
        write_option(out, self.reason.as_deref());
        let _ = write!(out, ",\"source_version\":{},\"meter\":", self.source_version);
        write_option(out, self.meter.as_deref());
        out.extend_from_slice(b",\"received_at\":");
        write_time(out, self.received_at);
        out.push(b'}');
    }
}

fn write_option(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a string always is JSON, and a vector takes every write");
    }
}

fn write_time(out: &mut Vec<u8>, time: Option<DateTime<Utc>>) {
    let Some(time) = time else {
        out.extend_from_slice(b"null");
        return;
    };
    if !(0..=9999).contains(&time.year()) || time.nanosecond() != 0 {
        serde_json::to_writer(out, &time).expect("a time always is JSON, and a vector takes every write");
        return;
    }
    let (date, clock) = (time.date_naive(), time.time());
    let mut text = *b"\"0000-00-00T00:00:00Z\"";
    for (at, width, number) in [
        (1, 4, date.year().unsigned_abs()),
        (6, 2, date.month()),
        (9, 2, date.day()),
        (12, 2, clock.hour()),
        (15, 2, clock.minute()),
        (18, 2, clock.second()),
    ] {
        let mut rest = number;
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
            rest /= 10;
        }
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn example() -> Reading {
        Reading {
            usage_point: "NMI1234567".into(),
            channel: "E1".into(),
            start_utc: Utc.with_ymd_and_hms(2023, 2, 28, 14, 0, 0).single().expect("a time"),
            duration_s: 300,
            value: Some(Decimal::parse("0.125").expect("a number")),
            unit: "kWh".into(),
            quality: Quality::Actual,
            source_quality: Some("A".into()),
            reason: None,
            source_version: 20_230_301_000_000,
            meter: Some("SERNO1234".into()),
            received_at: None,
        }
    }

    #[test]
    fn canonical_json_has_the_agreed_names_and_forms() {
        let mut out = Vec::new();
        example().write_json(&mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            r#"{"usage_point":"NMI1234567","channel":"E1","start_utc":"2023-02-28T14:00:00Z","duration_s":300,"value":0.125,"unit":"kWh","quality":"actual","source_quality":"A","reason":null,"source_version":20230301000000,"meter":"SERNO1234","received_at":null}"#
        );
    }

    #[test]
    fn fast_json_equals_serde_json() {
        let mut strange = example();
        strange.usage_point = "a\"b\\c\nü\u{1}".into();
        strange.start_utc += chrono::Duration::milliseconds(5);
        strange.received_at = Some(strange.start_utc);
        strange.reason = Some("94 ESTIMATED".into());
        strange.set_value(None, Quality::Actual);
        for reading in [example(), strange] {
            let mut out = Vec::new();
            reading.write_json(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), serde_json::to_string(&reading).expect("serialise"));
            let back: Reading = serde_json::from_slice(&out).expect("parse");
            assert_eq!(back, reading);
        }
    }

    #[test]
    fn null_values_are_missing_and_never_zero() {
        let mut reading = example();
        reading.set_value(Some(Decimal::ZERO), Quality::Missing);
        assert_eq!((reading.value, reading.quality), (None, Quality::Missing));
        reading.set_value(None, Quality::Actual);
        assert_eq!((reading.value, reading.quality), (None, Quality::Missing));
    }
}
