//! The MSCONS file against the reference totals.
//!
//! The sample was anonymised by search and replace, which left intervals of 14,
//! 16 and other minutes. They are refused here; their quantities are added back
//! for the comparison, from what the refusals quote.

mod common;

use std::collections::BTreeMap;

use sanso_reading::{Quality, ReadOptions};
use serde_json::Value;

/// Returns the quantity and the UTC day of the start that a refusal quotes.
fn quoted(record: &str) -> (String, i128) {
    let value = record.strip_prefix("QTY+220:").and_then(|rest| rest.split('\'').next()).expect("a quantity");
    let start = record.split("DTM+163:").nth(1).expect("a start");
    let local = chrono::NaiveDateTime::parse_from_str(&start[..12], "%Y%m%d%H%M").expect("a time");
    assert_eq!(&start[12..16], "?+01");
    let utc = local - chrono::TimeDelta::hours(1);
    (utc.format("%Y-%m-%d").to_string(), common::expected_micro(&value.replace(',', "."), 0))
}

#[test]
fn the_month_gives_the_reference_totals_per_day() {
    let Some(data) = common::shared_data() else { return };
    let outcome = common::read_sound(&data.join("mscons/MSCONS_TL_SAMPLE01.txt"));
    let json = std::fs::read_to_string(data.join("expected/mscons_expected.json")).expect("expected totals");
    let expected: Value = serde_json::from_str(&json).expect("JSON");
    let irregular = expected["irregular_intervals"].as_array().expect("an array");
    assert_eq!(outcome.refused.len(), irregular.len());
    let total = expected["n_qty"].as_u64().expect("a count") as usize;
    assert_eq!(outcome.readings.len() + outcome.refused.len(), total);

    let mut found: BTreeMap<String, (usize, i128)> = BTreeMap::new();
    let readings =
        outcome.readings.iter().map(|r| (r.start_utc.format("%Y-%m-%d").to_string(), common::micro(r)));
    for (day, value) in readings.chain(outcome.refused.iter().map(|refused| quoted(&refused.record))) {
        let total = found.entry(day).or_default();
        *total = (total.0 + 1, total.1 + value);
    }
    let totals =
        std::fs::read_to_string(data.join("expected/mscons_expected_daily_utc.csv")).expect("totals");
    let expected: BTreeMap<String, (usize, i128)> = common::csv_rows(&totals)[1..]
        .iter()
        .map(|row| (row[2].to_owned(), (row[3].parse().expect("a count"), common::expected_micro(row[4], 0))))
        .collect();
    assert_eq!(found, expected);

    let first = &outcome.readings[0];
    assert_eq!(first.usage_point, "US0001062600000001000000022345671");
    assert_eq!((first.channel.as_str(), first.unit.as_str()), ("1-1:1.10.0", "kWh"));
    assert_eq!((first.quality, first.source_quality.as_deref()), (Quality::Actual, Some("220")));
    assert_eq!(first.start_utc.to_rfc3339(), "2015-11-30T23:00:00+00:00");
    assert_eq!(first.source_version, 20_160_112_134_700);
    assert!(outcome.readings.iter().all(|reading| reading.duration_s == 900));
}

#[test]
fn an_interchange_cut_anywhere_gives_no_reading() {
    let Some(data) = common::shared_data() else { return };
    let bytes = std::fs::read(data.join("mscons/MSCONS_TL_SAMPLE01.txt")).expect("a file");
    for cut in (20..bytes.len() - 2).step_by(9973) {
        let mut readings = 0;
        let result = sanso_reading::read_bytes("cut", &bytes[..cut], &ReadOptions::default(), |_| {
            readings += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert!(result.is_err(), "cut at {cut}: {result:?}");
        assert_eq!(readings, 0);
    }
}
