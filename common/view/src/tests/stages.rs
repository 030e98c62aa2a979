//! Views over the closed windows of views.

use super::*;
use crate::{RecordFormat, oracle};

/// Daily peaks of what a view has by the hour.
const STAGES: &str = "\
CREATE SOURCE readings (usage_point TEXT, feeder TEXT, start_utc TIMESTAMP, value DECIMAL(18,6))
  WITH (key = 'usage_point', identity = 'usage_point, start_utc', lateness = '2 hours', segment = '8');
CREATE VIEW hourly WITH (output_topic = 'hourly_closed', partitions = '3') AS
  SELECT feeder AS line, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh, COUNT(*) AS view,
         STDDEV_POP(value) AS spread
  FROM readings GROUP BY line, hour;
CREATE SOURCE hours FROM VIEW hourly WITH (segment = '4');
CREATE VIEW peaks AS
  SELECT h.line, TUMBLE(h.hour, INTERVAL '1 day') AS day, MAX(h.kwh) AS peak, SUM(h.view) AS readings, COUNT(*) AS hours
  FROM hours h WHERE h.kwh >= 0 GROUP BY h.line, day;
";

fn stages() -> Vec<Arc<View>> {
    bind_in(STAGES, Path::new("."))
}

fn record(line: &str, hour: u32, revision: u64, values: &str) -> String {
    let present = values != "null";
    format!(
        r#"{{"id":"{{\"line\":\"{line}\"}} {hour}","view":"hourly","version":"00","partition":0,"key":{{"line":"{line}"}},
            "window_start":"2026-01-01T{hour:02}:00:00Z","window_end":"2026-01-01T{:02}:00:00Z","revision":{revision},
            "late":false,"values":{values},"present":{present},"applied":[7]}}"#,
        hour + 1
    )
}

#[test]
fn a_source_of_closed_windows_has_the_views_columns_and_order() {
    let views = stages();
    let source = &views[1].source;
    let columns: Vec<&str> = source.columns.iter().map(|column| column.name.as_str()).collect();
    // What is not exact is left out.
    let expected = ["window_id", "hour", "window_end", "revision", "present", "line", "kwh", "view"];
    assert_eq!(columns, expected);
    assert_eq!(source.format, RecordFormat::Windows { view: "hourly".into() });
    assert_eq!((source.topic.as_str(), source.partitions, source.segment_size), ("hourly_closed", 3, 4));
    assert_eq!((source.identity_columns.as_slice(), source.version_column), ([0].as_slice(), Some(3)));
    assert_eq!((source.event_time_column, source.lateness_us), (1, 2 * 3_600_000_000));
}

#[test]
fn an_amended_window_is_a_correction_and_one_without_readings_counts_for_nothing() {
    let views = stages();
    let records = [
        record("a", 1, 10, r#"{"hour":"2026-01-01T01:00:00Z","kwh":1.5,"view":3,"spread":0.1}"#),
        record("a", 2, 11, r#"{"hour":"2026-01-01T02:00:00Z","kwh":9.000001,"view":3,"spread":0.1}"#),
        record("b", 2, 11, r#"{"hour":"2026-01-01T02:00:00Z","kwh":4,"view":1,"spread":0}"#),
        record("a", 2, 14, r#"{"hour":"2026-01-01T02:00:00Z","kwh":2.25,"view":2,"spread":0.1}"#),
        // An older content that came late, and the same once more.
        record("a", 1, 9, r#"{"hour":"2026-01-01T01:00:00Z","kwh":77,"view":3,"spread":0.1}"#),
        record("a", 2, 14, r#"{"hour":"2026-01-01T02:00:00Z","kwh":2.25,"view":2,"spread":0.1}"#),
        record("b", 2, 15, "null"),
    ];
    let decoded = views[1].source.decode(records.iter().map(|record| record.as_bytes()));
    assert_eq!(decoded.rejected, []);
    let history: Vec<(u64, &[u8])> = (0..).zip(records.iter().map(|record| record.as_bytes())).collect();
    let groups: Vec<_> = oracle::fold(&views[1], &[&history]).iter().collect();
    let rows = views[1].finish(&groups).expect("it finishes");
    assert_eq!(rows.num_rows(), 1, "{rows:?}");
    let cell = |name: &str| value_at(rows.column_by_name(name).expect("a column"), 0);
    assert_eq!(cell("line"), Value::text("a"));
    assert_eq!(cell("peak"), Value::Decimal(2_250_000));
    assert_eq!((cell("hours"), cell("readings")), (Value::Int(2), Value::Decimal(5)));
}

#[test]
fn what_is_no_closed_window_is_refused_by_its_column() {
    let source = &stages()[1].source;
    for (broken, reason) in [
        (record("a", 1, 1, r#"{"kwh":true}"#), "column kwh"),
        (record("a", 1, 1, "null").replace("\"revision\":1,", ""), "column revision"),
        ("{}".to_owned(), "column id"),
    ] {
        let rejected = source.decode([broken.as_bytes()]).rejected;
        assert!(rejected[0].1.starts_with(reason), "{rejected:?}");
    }
}

#[test]
fn what_can_not_be_read_as_closed_windows_is_refused_with_its_place() {
    let cases = [
        ("FROM VIEW hourly", "FROM VIEW nothing", "no view nothing is declared", "views: hourly"),
        ("FROM VIEW hourly", "FROM hourly", "expected VIEW", ""),
        (
            "WITH (output_topic = 'hourly_closed', partitions = '3')",
            "",
            "writes its closed windows nowhere",
            "output_topic",
        ),
        ("'hourly_closed'", "'readings'", "holds the readings of source readings", "a topic of their own"),
        ("AS kwh", "AS revision", "column revision would be there twice", "in view hourly"),
        ("FROM hours h", "FROM hourly h", "hourly is a view", "CREATE SOURCE … FROM VIEW hourly"),
        (
            "VIEW peaks AS",
            "VIEW peaks WITH (output_topic = 'hourly_closed') AS",
            "view hourly writes",
            "FROM VIEW hourly",
        ),
        ("(segment = '4')", "(partitions = '4')", "unknown option partitions", "segment, lateness, ahead"),
        ("MAX(h.kwh)", "MAX(h.spread)", "spread", ""),
    ];
    for (part, by, why, hint) in cases {
        let sql = STAGES.replace(part, by);
        assert_ne!(sql, STAGES);
        let error = Application::parse(&sql).err().unwrap_or_else(|| panic!("{by} is taken"));
        let text = error.to_string();
        assert!(text.contains(why) && text.contains(hint), "{text}");
        assert!(error.place().line >= 3, "{text}");
    }
    let plain = format!(
        "{STAGES}CREATE SOURCE again (a TEXT, t TIMESTAMP) WITH (topic = 'hourly_closed', key = 'a', identity = 'a, t');"
    );
    let error = Application::parse(&plain).expect_err("it is the view's");
    assert!(error.to_string().contains("CREATE SOURCE … FROM VIEW hourly"), "{error}");
}
