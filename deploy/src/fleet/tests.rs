//! What a fleet promises: the same lines for the same seed, exact totals,
//! a believable day.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Timelike};
use chrono_tz::Australia::Sydney;
use serde_json::Value;

use super::model::{Channel, Model};
use super::oracle::{Kwh, Totals};
use super::{Fleet, FleetConfig};
use crate::ingest::exact;

fn config(meters: usize) -> FleetConfig {
    FleetConfig { meters, history_days: 4, ..FleetConfig::default() }
}

fn lines(config: &FleetConfig, intervals: usize) -> Vec<String> {
    let mut fleet = Fleet::new(config.clone());
    (0..intervals).flat_map(|_| fleet.next_batch().lines).collect()
}

#[test]
fn the_same_seed_gives_the_same_lines() {
    let config = config(40);
    let first = lines(&config, 100);
    assert_eq!(first, lines(&config, 100));
    assert_ne!(first, lines(&FleetConfig { seed: 4, ..config }, 100));
}

#[test]
fn history_ends_after_its_days() {
    let mut fleet = Fleet::new(config(2));
    let live: Vec<bool> = (0..5 * 48).map(|_| fleet.next_batch().live).collect();
    assert!(live[..4 * 48].iter().all(|live| !live));
    assert!(live[4 * 48..].iter().all(|live| *live));
}

#[test]
fn a_fleet_that_starts_again_hurries_to_where_it_stopped() {
    let mut fleet = Fleet::new(config(2));
    let stopped = fleet.now() + TimeDelta::minutes(30 * 48 * 6);
    fleet.hurry_beyond(stopped);
    while !fleet.next_batch().live {}
    assert_eq!(fleet.now(), stopped + TimeDelta::minutes(60));
}

/// Applies the newest rule to the lines, from their JSON alone.
#[test]
fn the_oracle_is_a_fold_over_the_lines() {
    let config = config(90);
    let mut fleet = Fleet::new(config.clone());
    let mut newest: BTreeMap<(String, String, String), (i64, String)> = BTreeMap::new();
    let mut decoded = 0;
    for _ in 0..250 {
        for line in fleet.next_batch().lines {
            let record: Value = serde_json::from_str(&line).expect("every line is JSON");
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            let value = record["value"].to_string();
            let broken = value.starts_with('"')
                || record["duration_s"].as_i64().is_none()
                || text("start_utc").starts_with("approx");
            if broken {
                continue;
            }
            decoded += 1;
            let version = record["source_version"].as_i64().expect("a version");
            let identity = (text("usage_point"), text("channel"), text("start_utc"));
            let known = newest.get(&identity);
            if known.is_none_or(|(known, _)| version > *known) {
                newest.insert(identity, (version, value));
            }
        }
    }
    let network = network_of(&fleet);
    let mut sums: BTreeMap<String, Totals> = BTreeMap::new();
    for ((usage_point, channel, start), (_, value)) in &newest {
        let totals = sums.entry(substation(&network, usage_point, start)).or_default();
        let milli = exact::scaled(value, 3).unwrap_or(0) as i64;
        totals.readings += 1;
        if channel == "E1" {
            totals.import_milli += milli;
        } else {
            totals.export_milli += milli;
        }
    }
    assert!(decoded > newest.len(), "some readings come more than once");
    assert_eq!(fleet.oracle().by_substation(), sums);
    assert_eq!(fleet.oracle().compare(&sums), []);
    let counts = fleet.counts();
    assert!(
        counts.late > 0 && counts.duplicates > 0 && counts.corrections > 0 && counts.broken > 0,
        "{counts:?}"
    );
}

type NetworkRow = (String, String, String, String);

fn network_of(fleet: &Fleet) -> Vec<NetworkRow> {
    let csv = fleet.network_csv();
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("usage_point,transformer,feeder,substation,valid_from,valid_to"));
    rows.map(|row| {
        let fields: Vec<&str> = row.split(',').collect();
        (fields[0].into(), fields[3].into(), fields[4].into(), fields[5].into())
    })
    .collect()
}

fn substation(network: &[NetworkRow], usage_point: &str, start: &str) -> String {
    // RFC 3339 in UTC sorts as text.
    let holds = |row: &&NetworkRow| row.0 == usage_point && row.2.as_str() <= start && start < row.3.as_str();
    let rows: Vec<_> = network.iter().filter(holds).collect();
    assert_eq!(rows.len(), 1, "{usage_point} at {start}");
    rows[0].1.clone()
}

#[test]
fn some_meters_are_moved() {
    let fleet = Fleet::new(config(300));
    assert_eq!(network_of(&fleet).len(), 305);
}

#[test]
fn a_difference_is_found_either_way() {
    let mut fleet = Fleet::new(config(90));
    fleet.next_batch();
    let mut found = fleet.oracle().by_substation();
    let totals = found.values_mut().next().expect("a substation");
    totals.import_milli += 1;
    found.insert("Nowhere".into(), Totals { readings: 1, ..Totals::default() });
    assert_eq!(fleet.oracle().compare(&found).len(), 2);
    found.clear();
    assert_eq!(fleet.oracle().compare(&found).len(), 3);
}

#[test]
fn evenings_peak_and_solar_is_exported_by_day_only() {
    let model = Model::new(&config(300));
    let sum = |channel: Channel, interval: u64| -> i64 {
        (0..300).map(|meter| model.measured(meter, channel, interval)).sum()
    };
    let at = |hour: u64| 2 * 48 + hour * 2;
    assert_eq!(model.start_of(at(19)).with_timezone(&Sydney).hour(), 19);
    let (night, morning, noon, evening) = (
        sum(Channel::Import, at(3)),
        sum(Channel::Import, at(7)),
        sum(Channel::Import, at(12)),
        sum(Channel::Import, at(19)),
    );
    assert!(evening > morning && morning > noon && evening > 3 * night, "{night} {morning} {noon} {evening}");
    assert_eq!(sum(Channel::Export, at(2)), 0);
    assert!(sum(Channel::Export, at(12)) > 10_000);
    assert_eq!(model.start_of(1) - model.start_of(0), TimeDelta::minutes(30));
}

#[test]
fn energies_are_written_exactly() {
    for (milli, text) in [(0, "0.000"), (5, "0.005"), (12_345, "12.345"), (-50, "-0.050")] {
        assert_eq!(Kwh(milli).to_string(), text);
    }
}

#[test]
fn the_shipped_network_is_the_default_fleets() {
    let shipped = include_str!("../../apps/demo/network.csv");
    assert_eq!(shipped, Fleet::new(FleetConfig::default()).network_csv());
}
