use super::*;

fn fingerprint(sql: &str, network: &str) -> sanso_state::Fingerprint {
    bind_with(sql, network).last().expect("the application has a view").fingerprint
}

#[test]
fn formatting_does_not_change_the_version() {
    let expected = fingerprint(EXAMPLE, NETWORK);
    let reformatted = EXAMPLE
        .replace("SELECT n.feeder", "select -- the feeder\n   N.Feeder")
        .replace("SUM(r.value)", "sum( r.VALUE )")
        .replace("GROUP BY n.feeder, window", "group by\n1, 2")
        .replace("r.usage_point = n.usage_point", "R.usage_point=n.\"usage_point\"");
    assert_ne!(reformatted, EXAMPLE);
    assert_eq!(fingerprint(&reformatted, NETWORK), expected);
    let (head, body) = NETWORK.split_once('\n').expect("a header");
    let mut lines: Vec<_> = body.lines().collect();
    lines.reverse();
    let shuffled =
        format!("{head},note\n{}\n", lines.iter().map(|l| format!(" {l} ,x")).collect::<Vec<_>>().join("\n"));
    assert_eq!(fingerprint(EXAMPLE, &shuffled), expected);
}

#[test]
fn every_change_of_meaning_changes_the_version() {
    let expected = fingerprint(EXAMPLE, NETWORK);
    for (from, to) in [
        ("30 minutes", "15 minutes"),
        ("SUM(r.value) AS kwh", "MAX(r.value) AS kwh"),
        ("AS kwh", "AS energy"),
        ("r.start_utc < n.valid_to", "r.start_utc <= n.valid_to"),
        ("JOIN network", "LEFT JOIN network"),
        ("DECIMAL(18,6)", "DECIMAL(20,6)"),
        ("version = 'source_version'", "segment = '10', version = 'source_version'"),
        ("feeder_load AS", "feeder_load WITH (partitions = '5') AS"),
        ("VIEW feeder_load", "VIEW other_load"),
        ("GROUP BY n.feeder", "WHERE r.value > 0 GROUP BY n.feeder"),
        ("COUNT(*) AS", "COUNT(*) FILTER (WHERE r.value > 0) AS"),
    ] {
        let changed = EXAMPLE.replace(from, to);
        assert_ne!(changed, EXAMPLE, "{from}");
        assert_ne!(fingerprint(&changed, NETWORK), expected, "{from} → {to}");
    }
    assert_ne!(fingerprint(EXAMPLE, &NETWORK.replace("m2,t1,f1", "m2,t1,f2")), expected);
    assert_ne!(fingerprint(EXAMPLE, NETWORK.trim_end().rsplit_once('\n').expect("lines").0), expected);
}

#[test]
fn parentheses_that_change_the_meaning_change_the_version() {
    let left = fingerprint(&with_view("SELECT SUM((duration_s + 1) * 2) AS s FROM readings"), NETWORK);
    let right = fingerprint(&with_view("SELECT SUM(duration_s + 1 * 2) AS s FROM readings"), NETWORK);
    assert_ne!(left, right);
}
