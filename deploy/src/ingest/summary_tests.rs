//! What a summary says, for people and for programs.

use sanso_reading::{Event, Place, Reading};
use sanso_reading::{ReadOptions, read_bytes};
use std::ops::ControlFlow;

use super::*;

fn reading(usage_point: &str, channel: &str, start: &str, value: Option<&str>) -> Reading {
    let text = format!(
        r#"{{"usage_point":"{usage_point}","channel":"{channel}","start_utc":"{start}","duration_s":1800,
            "value":{},"unit":"kWh","quality":"actual","source_quality":null,"reason":null,
            "source_version":0,"meter":null,"received_at":null}}"#,
        value.unwrap_or("null")
    );
    serde_json::from_str(&text).expect("a canonical reading")
}

fn summary() -> Summary {
    let mut summary = Summary::new("readings", None).expect("no file is created");
    summary.settled = true;
    summary.tally.add(&reading("A", "E1", "2024-01-01T00:00:00Z", Some("0.125")));
    summary.tally.add(&reading("A", "E1", "2024-01-01T00:30:00Z", None));
    summary.tally.add(&reading("B", "B1", "2024-01-01T01:00:00Z", Some("1000000000.000001")));
    summary
}

#[test]
fn energies_are_exact_and_spans_end_with_the_last_interval() {
    let json = summary().json();
    assert_eq!(json["readings"], 3);
    assert_eq!(json["meters"], 2);
    assert_eq!(json["first"], "2024-01-01T00:00:00Z");
    assert_eq!(json["last"], "2024-01-01T01:30:00Z");
    assert_eq!(json["energy"][0]["sum"].to_string(), "1000000000.000001");
    assert_eq!(json["energy"][1]["sum"].to_string(), "0.125000");
    assert_eq!(json["energy"][1]["missing"], 1);
}

#[test]
fn people_get_an_aligned_table() {
    let text = summary().text();
    assert!(text.starts_with("3 readings acknowledged from 0 files of 2 meters.\n"), "{text}");
    let table = "  channel  unit  readings  missing                sum\n\
                 \u{20} B1       kWh          1        0  1000000000.000001\n\
                 \u{20} E1       kWh          2        1           0.125000\n";
    assert!(text.contains(table), "{text}");
}

#[test]
fn a_reading_taken_out_again_leaves_no_trace_in_the_sums() {
    let mut summary = summary();
    let before = summary.tally.clone();
    let other = reading("A", "E2", "2024-01-01T00:00:00Z", Some("7"));
    summary.tally.add(&other);
    summary.tally.remove(&other);
    assert_eq!(summary.tally, before);
}

#[test]
fn refusals_name_file_place_and_remedy_and_are_bounded() {
    let mut summary = summary();
    assert!(summary.is_clean());
    let refused = Refused {
        file: "a.csv".into(),
        place: Place::Line(7),
        record: "x".into(),
        reason: "no number".into(),
        remedy: "mend it".into(),
    };
    for _ in 0..25 {
        summary.refuse(RefusedRecord::of_file(&refused));
    }
    summary.refuse(RefusedRecord::of_node("b.csv", b"{\"value\":\x1b}", "column value: no number"));
    assert!(!summary.is_clean());
    let text = summary.text();
    assert!(text.contains("26 records refused:\n  a.csv: line 7: no number; mend it\n"), "{text}");
    assert!(text.contains("and 6 more; --refused FILE"), "{text}");
    assert_eq!(summary.json()["refused"].as_array().map(Vec::len), Some(26));
    assert!(!text.contains('\x1b'));
}

#[test]
fn every_refused_record_is_written_to_the_file_asked_for() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("refused.jsonl");
    let mut summary = Summary::new("readings", Some(&path)).expect("create the file");
    for _ in 0..1200 {
        summary.refuse(RefusedRecord::of_node("b.csv", b"{}", "no"));
    }
    drop(summary);
    assert_eq!(std::fs::read_to_string(&path).expect("read the file").lines().count(), 1200);
}

#[test]
fn counters_are_differences() {
    let before = json!({ "new": 10, "duplicates": 5 });
    let after = json!({ "new": 12, "duplicates": 5, "conflicts": 1 });
    let expected = Changes { new: 2, conflicts: 1, ..Changes::default() };
    assert_eq!(Changes::between(&before, &after), expected);
}

#[test]
fn a_broken_file_is_not_clean() {
    let mut summary = summary();
    let read = read_bytes("empty", b"", &ReadOptions::default(), |_: Event<'_>| ControlFlow::Continue(()));
    summary.file_ended(read);
    assert!(!summary.is_clean());
    assert!(summary.text().contains("1 left out, no meter files:\n  empty"), "{}", summary.text());
}

#[test]
fn quarantined_records_are_named_by_their_identity() {
    let mut summary = summary();
    summary.quarantined.push(Quarantined {
        file: Some("a.csv".into()),
        kind: "conflict".into(),
        reason: "version 1 came before".into(),
        payload: r#"{"usage_point":"A","channel":"E1","start_utc":"2024-01-01T00:00:00Z","value":1.50}"#
            .into(),
    });
    let text = summary.text();
    assert!(
        text.contains("  a.csv: conflict A E1 2024-01-01T00:00:00Z = 1.50: version 1 came before\n"),
        "{text}"
    );
}
