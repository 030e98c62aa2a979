//! The application that is drilled: one source, and the views that its readings are asked for by.

use chrono::DateTime;
use clap::ValueEnum;

use crate::fault::{PRELOADED_METERS, Views};
use crate::history::Key;
use crate::oracle::value_micro;

/// Half hours from 2020 on: always in the past, so no view waits for a window to come.
const FIRST_S: i64 = 1_577_836_800;
const HALF_HOUR_S: i64 = 1_800;

/// Readings that are archived together.
pub(super) const SEGMENT: u64 = 65_536;

/// Where the groups of views are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    /// In memory.
    #[default]
    Memory,
    /// On local disks, but for what is newer than the newest batch version.
    Disk,
}

impl Storage {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// Writes the application with so many log partitions.
pub(super) fn sql(partitions: u32, storage: Storage) -> String {
    let storage = storage.name();
    format!(
        "CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc', version = 'source_version',
        partitions = '{partitions}', segment = '{SEGMENT}');
CREATE VIEW meter WITH (storage = '{storage}') AS SELECT usage_point, SUM(value) AS kwh, COUNT(*) AS readings FROM readings GROUP BY usage_point;
CREATE VIEW half_hour WITH (storage = '{storage}') AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '30 minutes') AS half_hour, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, half_hour;
"
    )
}

/// Returns a meter's name.
pub(super) fn usage_point(key: Key) -> String {
    format!("M{key:05}")
}

/// What the names of meters that nobody asks for begin with; it comes after those of [`usage_point`].
pub(super) const PRELOADED: &str = "P";

/// Returns the name of one of those meters.
pub(super) fn preloaded_meter(number: u32) -> String {
    format!("{PRELOADED}{number:07}")
}

/// What each of their readings has, in millionths of a kWh.
pub(super) const PRELOADED_MICRO: u64 = 125_000;

/// Writes readings, by their numbers, of meters that nobody asks for: a half hour of all of them after the other.
pub(super) fn preloaded(numbers: std::ops::Range<u32>) -> Vec<String> {
    let meter = |number: u32| preloaded_meter(number % PRELOADED_METERS);
    numbers.map(|number| line(&meter(number), number / PRELOADED_METERS, PRELOADED_MICRO)).collect()
}

/// The name of the view that is declared first.
pub(super) const DAILY: &str = "daily";

/// Returns the names and the statements of views that are declared while the cluster runs.
pub(super) fn declared(views: Views) -> &'static [(&'static str, &'static str)] {
    const BOTH: [(&str, &str); 2] = [
        (
            DAILY,
            "
CREATE VIEW daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, day;
",
        ),
        (
            "hourly",
            "
CREATE VIEW hourly AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, hour;
",
        ),
    ];
    match views {
        Views::Daily => &BOTH[..1],
        Views::DailyAndHourly => &BOTH,
    }
}

/// Writes a reading as a line of JSON.
pub(super) fn reading(key: Key, sequence: u32) -> String {
    line(&usage_point(key), sequence, value_micro(key, sequence))
}

fn line(usage_point: &str, sequence: u32, micro: u64) -> String {
    let start = DateTime::from_timestamp(FIRST_S + HALF_HOUR_S * i64::from(sequence), 0)
        .expect("so many half hours are few years");
    format!(
        "{{\"usage_point\":\"{}\",\"start_utc\":\"{}\",\"value\":{}.{:06},\"source_version\":1}}\n",
        usage_point,
        start.format("%Y-%m-%dT%H:%M:%SZ"),
        micro / 1_000_000,
        micro % 1_000_000
    )
}

/// Returns which of a meter's readings begins at a time.
pub(super) fn sequence(start: &str) -> Option<u32> {
    let start = DateTime::parse_from_rfc3339(start).ok()?.timestamp();
    u32::try_from((start - FIRST_S) / HALF_HOUR_S).ok()
}

/// Reads an energy in kWh, as JSON has it, in millionths.
pub(super) fn micro(kwh: &str) -> Option<u64> {
    let (whole, fraction) = kwh.split_once('.').unwrap_or((kwh, ""));
    let fraction = format!("{fraction:0<6}");
    if fraction.len() > 6 {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 1_000_000 + fraction.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_says_its_sequence_and_value() {
        for (key, number) in [(0, 0), (7, 1), (3, 20_000)] {
            let document: serde_json::Value = serde_json::from_str(&reading(key, number)).expect("JSON");
            assert_eq!(sequence(document["start_utc"].as_str().expect("text")), Some(number));
            assert_eq!(micro(&document["value"].to_string()), Some(value_micro(key, number)));
        }
        assert_eq!(
            (micro("1.25"), micro("3"), micro("0.0000001"), micro("x")),
            (Some(1_250_000), Some(3_000_000), None, None)
        );
    }

    #[test]
    fn preloaded_readings_differ_and_come_after_those_that_are_asked_for() {
        let lines: std::collections::BTreeSet<String> = preloaded(990..2_090).into_iter().collect();
        assert_eq!(lines.len(), 1_100);
        assert!(lines.iter().all(|line| line.contains(r#""usage_point":"P0000"#)));
        assert!(usage_point(Key::MAX).as_str() < PRELOADED);
    }
}
