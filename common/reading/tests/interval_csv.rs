//! The SGSC and LCL sets through the shipped mappings.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use chrono::{NaiveDate, TimeDelta};
use sanso_reading::{Mapping, Quality, ReadOptions};
use serde_json::Value;

#[test]
fn london_meter_gives_the_reference_totals_per_day() {
    let Some(data) = common::shared_data() else { return };
    let outcome = common::read_sound(&data.join("interval/lcl/MAC000002.csv"));
    assert_eq!(outcome.summary.expect("read").mapping.as_deref(), Some("lcl"));
    let json = std::fs::read_to_string(data.join("expected/lcl_expected.json")).expect("expected totals");
    let expected: Value = serde_json::from_str(&json).expect("JSON");
    // One row is off the half-hour grid and holds no value.
    assert_eq!(outcome.refused.len(), 1);
    assert!(outcome.refused[0].reason.contains("off the grid"), "{}", outcome.refused[0]);
    let rows = expected["rows"].as_u64().expect("a count") as usize;
    assert_eq!(outcome.readings.len(), rows - 1);
    let sum: i128 = outcome.readings.iter().map(common::micro).sum();
    assert_eq!(sum, common::expected_micro(&expected["sum_all_rows"].to_string(), 0));

    // The reference counts the 17 repeated rows once.
    let unique: BTreeMap<_, _> = outcome.readings.iter().map(|r| (r.start_utc, common::micro(r))).collect();
    assert_eq!(
        unique.values().sum::<i128>(),
        common::expected_micro(&expected["sum_after_dedup"].to_string(), 0)
    );
    let mut found: BTreeMap<String, (usize, i128)> = BTreeMap::new();
    for (start, value) in unique {
        let label = start + TimeDelta::minutes(30);
        let total = found.entry(label.format("%Y-%m-%d").to_string()).or_default();
        *total = (total.0 + 1, total.1 + value);
    }
    let totals =
        std::fs::read_to_string(data.join("expected/lcl_expected_daily_by_label_date.csv")).expect("totals");
    let expected: BTreeMap<String, (usize, i128)> = common::csv_rows(&totals)[1..]
        .iter()
        .map(|row| (row[0].to_owned(), (row[1].parse().expect("a count"), common::expected_micro(row[2], 0))))
        .collect();
    assert_eq!(found, expected);
}

/// Returns the expected totals of the SGSC set by customer and day of the label.
fn sgsc_daily(data: &std::path::Path) -> BTreeMap<(String, NaiveDate), (usize, i128)> {
    let file =
        std::fs::File::open(data.join("expected/sgsc/dev_daily_by_label_date.csv.gz")).expect("totals");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("totals");
    let rows = common::csv_rows(&text);
    let column = |name: &str| rows[0].iter().position(|header| *header == name).expect(name);
    let (customer, date) = (column("customer_id"), column("date"));
    let (count, sum) = (column("n"), column("general_supply_kwh"));
    rows[1..]
        .iter()
        .map(|row| {
            let key = (row[customer].to_owned(), row[date].parse().expect("a date"));
            (key, (row[count].parse().expect("a count"), common::expected_micro(row[sum], 0)))
        })
        .collect()
}

#[test]
fn sydney_households_give_the_reference_totals_per_day() {
    let Some(data) = common::shared_data() else { return };
    let outcome = common::read_sound(&data.join("interval/sgsc/sgsc_20_customers_2012-10.csv"));
    assert_eq!(outcome.refused, []);
    assert_eq!(outcome.summary.expect("read").mapping.as_deref(), Some("sgsc"));
    let mut found: BTreeMap<(String, NaiveDate), (usize, i128)> = BTreeMap::new();
    for reading in outcome.readings.iter().filter(|reading| reading.channel == "general_supply") {
        assert_eq!((reading.quality, reading.unit.as_str()), (Quality::Unqualified, "kWh"));
        let label = reading.start_utc + TimeDelta::hours(10) + TimeDelta::minutes(30);
        let total = found.entry((reading.usage_point.clone(), label.date_naive())).or_default();
        *total = (total.0 + 1, total.1 + common::micro(reading));
    }
    let expected = sgsc_daily(&data);
    let mut compared = 0;
    for (key, total) in &found {
        if let Some(wanted) = expected.get(key) {
            assert_eq!(total, wanted, "{key:?}");
            compared += 1;
        }
    }
    assert!(compared >= 500, "only {compared} of {} days were compared", found.len());
    let channels = outcome.readings.len() / outcome.readings.iter().filter(|r| r.channel == "other").count();
    assert_eq!(channels, 5);
}

#[test]
fn the_repaired_time_of_sgsc_is_preferred_and_gzip_is_read() {
    let mapping = Mapping::shipped_by_name("sgsc").expect("a shipped mapping");
    let text = "customer_id,reading_datetime,reading_datetime_fixed,general_supply_kwh,controlled_load_kwh\n\
                10006414,2012-10-07 01:00:00,2012-10-07 02:00:00,0.304,\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("compress");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no-telling-name.bin");
    std::fs::write(&path, gzip.finish().expect("compress")).expect("write");
    for options in [ReadOptions::default(), ReadOptions { mapping: Some(mapping), ..ReadOptions::default() }]
    {
        let outcome = common::read(&path, &options);
        assert_eq!(outcome.refused, []);
        assert_eq!(outcome.readings.len(), 2);
        let first = &outcome.readings[0];
        assert_eq!(first.start_utc.to_rfc3339(), "2012-10-06T15:30:00+00:00");
        assert_eq!(first.value.expect("a value").to_string(), "0.304");
        assert_eq!((outcome.readings[1].value, outcome.readings[1].quality), (None, Quality::Missing));
    }
    let cut = std::fs::read(&path).expect("a file");
    let result = sanso_reading::read_bytes("cut.gz", &cut[..cut.len() - 12], &ReadOptions::default(), |_| {
        panic!("a cut file gives nothing")
    });
    assert!(result.is_err());
}
