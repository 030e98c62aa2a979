//! Every Green Button feed against the reference totals.

mod common;

use std::collections::BTreeMap;

use sanso_reading::{Quality, ReadOptions};
use serde_json::Value;

#[test]
fn all_feeds_give_the_reference_totals_per_day() {
    let Some(data) = common::shared_data() else { return };
    let totals =
        std::fs::read_to_string(data.join("expected/espi_expected_daily_utc.csv")).expect("expected totals");
    let rows = common::csv_rows(&totals);
    let json = std::fs::read_to_string(data.join("expected/espi_expected.json")).expect("expected totals");
    let feeds: BTreeMap<String, Value> = serde_json::from_str(&json).expect("JSON");
    assert_eq!(feeds.len(), 8);
    for (file, feed) in &feeds {
        let outcome = common::read_sound(&data.join("espi").join(file));
        assert_eq!(outcome.refused, [], "{file}");
        let mut found: BTreeMap<String, (usize, i128)> = BTreeMap::new();
        for reading in &outcome.readings {
            let total = found.entry(reading.start_utc.format("%Y-%m-%d").to_string()).or_default();
            *total = (total.0 + 1, total.1 + common::micro(reading));
        }
        // Wh become kWh; the gas feed's multiplier is -3 as well.
        let expected: BTreeMap<String, (usize, i128)> = rows
            .iter()
            .filter(|row| row[0] == file)
            .map(|row| {
                (row[1].to_owned(), (row[2].parse().expect("a count"), common::expected_micro(row[3], -3)))
            })
            .collect();
        assert_eq!(found, expected, "{file}");
        let sum: i128 = outcome.readings.iter().map(common::micro).sum();
        assert_eq!(sum, common::expected_micro(&feed["plain"]["sum_raw_value"].to_string(), -3), "{file}");
        let durations: BTreeMap<String, u64> =
            outcome.readings.iter().fold(BTreeMap::new(), |mut counts, reading| {
                *counts.entry(reading.duration_s.to_string()).or_default() += 1;
                counts
            });
        let expected: BTreeMap<String, u64> =
            serde_json::from_value(feed["plain"]["durations"].clone()).expect("durations");
        assert_eq!(durations, expected, "{file}");
    }
}

#[test]
fn channels_units_qualities_and_versions_follow_the_feed() {
    let Some(data) = common::shared_data() else { return };
    let electric = common::read_sound(&data.join("espi/electricity/test_usage_data_01.xml"));
    let first = &electric.readings[0];
    assert_eq!(first.usage_point, "/espi/1_1/resource/RetailCustomer/9B6C7066/UsagePoint/5446AF3F");
    assert_eq!((first.channel.as_str(), first.unit.as_str()), ("electricity_delivered", "kWh"));
    assert_eq!(first.value.expect("a value").to_string(), "0.282");
    assert_eq!((first.quality, first.source_quality.as_deref()), (Quality::Estimated, Some("8")));
    assert_eq!(electric.readings[1].quality, Quality::Substituted);
    assert_eq!(electric.readings[2].quality, Quality::Unqualified);

    let gas = common::read_sound(&data.join("espi/gas/gas_direct.xml"));
    let first = &gas.readings[0];
    assert_eq!((first.channel.as_str(), first.unit.as_str()), ("gas", "therm"));
    assert_eq!(first.value.expect("a value").to_string(), "37");
    // Its interval blocks state no time, the feed does.
    assert_eq!(first.source_version, 20_240_621_000_000);
}

#[test]
fn a_feed_cut_anywhere_gives_no_reading() {
    let Some(data) = common::shared_data() else { return };
    let bytes = std::fs::read(data.join("espi/gas/gas_direct.xml")).expect("a file");
    for cut in (200..bytes.len() - 8).step_by(37) {
        let mut readings = 0;
        let result = sanso_reading::read_bytes("cut", &bytes[..cut], &ReadOptions::default(), |_| {
            readings += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert!(result.is_err(), "cut at {cut}: {result:?}");
        assert_eq!(readings, 0);
    }
}
