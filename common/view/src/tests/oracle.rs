use super::*;
use crate::oracle::fold;

fn versioned(version: &str, value: &str) -> String {
    format!(
        r#"{{"usage_point":"m1","channel":"E1","start_utc":"2024-07-01T00:00:00Z","value":{value},"source_version":{version}}}"#
    )
}

fn total(view: &View, history: &[String]) -> Vec<String> {
    let records: Vec<(u64, &[u8])> =
        history.iter().enumerate().map(|(offset, json)| (offset as u64, json.as_bytes())).collect();
    let groups: Vec<_> = fold(view, &[&records]).iter().collect();
    lines(&view.finish(&groups).expect("valid groups"))
}

#[test]
fn the_highest_version_counts_and_of_equal_ones_the_lowest_offset() {
    let view = view("SELECT COUNT(*) AS c, SUM(value) AS s FROM readings");
    for (history, expected) in [
        (vec![versioned("1", "10")], "1|10.000000"),
        (vec![versioned("1", "10"), versioned("2", "20")], "1|20.000000"),
        (vec![versioned("2", "20"), versioned("1", "10")], "1|20.000000"),
        (vec![versioned("1", "10"), versioned("1", "11")], "1|10.000000"),
        (vec![versioned("1", "10"), versioned("1", "10")], "1|10.000000"),
        (vec![versioned("null", "10"), versioned("-1", "11")], "1|10.000000"),
        (vec![versioned("1", "10"), "broken".into(), versioned("2", "null")], "1|null"),
    ] {
        assert_eq!(total(&view, &history), [expected], "{history:?}");
    }
}

#[test]
fn without_versions_the_last_other_record_counts() {
    let sql = with_view("SELECT COUNT(*) AS c, SUM(value) AS s, LAST(source_version) AS v FROM readings")
        .replace(", version = 'source_version'", ", ignore = 'source_version'");
    let view = bind_with(&sql, NETWORK).remove(0);
    let history = [versioned("1", "10"), versioned("2", "20"), versioned("3", "20")];
    assert_eq!(total(&view, &history), ["1|20.000000|2"]);
}

#[test]
fn log_partitions_are_folded_together() {
    let view = bind_with(EXAMPLE, NETWORK).remove(0);
    let (a, b) = (reading("m1", "2024-07-01T00:00:00Z", "1"), reading("m2", "2024-07-01T00:10:00Z", "2"));
    let groups = fold(&view, &[&[(7, a.as_bytes())], &[], &[(0, b.as_bytes())]]);
    assert_eq!(groups.len(), 1);
    let (_, state) = groups.iter().next().expect("one group");
    assert_eq!(state.rows, 2);
}
