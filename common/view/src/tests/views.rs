use proptest::prelude::*;

use super::*;
use crate::PlanDescription;

const DAY: &str = "2024-07-01T";

fn at(time: &str) -> String {
    format!("{DAY}{time}Z")
}

#[test]
fn the_designs_example_sums_each_feeder_by_half_hours() {
    let view = bind_with(EXAMPLE, NETWORK).remove(0);
    let records = [
        reading("m1", &at("11:30:00"), "1.25"),
        reading("m1", &at("12:00:00"), "2"),
        reading("m2", &at("11:45:00"), "0.000001"),
        reading("m3", &at("11:45:00"), "100"),
    ];
    assert_eq!(
        finished(&view, &records),
        [
            "f1|2024-07-01T11:30:00Z|1.250001|2|2024-07-01T12:00:00Z",
            "f2|2024-07-01T12:00:00Z|2.000000|1|2024-07-01T12:30:00Z",
        ]
    );
    let names: Vec<_> = view.output_schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["feeder", "window", "kwh", "readings", "window_end"]);
    assert_eq!(view.key_columns[0].0, "feeder");
    assert_eq!(view.warnings, [""; 0]);
}

#[test]
fn a_left_join_keeps_readings_without_a_row() {
    let view = view(
        "SELECT n.feeder, COUNT(*) AS c FROM readings r LEFT JOIN network n
         ON n.usage_point = r.usage_point AND n.valid_from <= r.start_utc AND r.start_utc < n.valid_to
         GROUP BY n.feeder",
    );
    let records = [
        reading("m9", &at("00:00:00"), "1"),
        reading("m1", "2023-01-01T00:00:00Z", "1"),
        reading("m1", &at("00:00:00"), "1"),
    ];
    assert_eq!(finished(&view, &records), ["null|2", "f1|1"]);
}

#[test]
fn an_open_validity_is_a_null_bound_and_overlaps_are_told() {
    let network = "usage_point,transformer,feeder,substation,valid_from,valid_to\n\
                   m1,t1,f1,s1,2024-01-01,\nm1,t1,f2,s1,2024-06-01,\nm2,t1,f2,s1,,\n";
    let select = "SELECT n.feeder, COUNT(*) AS c FROM readings r JOIN network n
         ON r.usage_point = n.usage_point AND r.start_utc >= n.valid_from
         AND (n.valid_to IS NULL OR r.start_utc < n.valid_to) GROUP BY 1";
    let view = bind_with(&with_view(select), network).remove(0);
    // A reading that matches several rows counts for each.
    let records = [reading("m1", &at("00:00:00"), "1"), reading("m1", "2024-02-01T00:00:00Z", "1")];
    assert_eq!(finished(&view, &records), ["f1|2", "f2|1"]);

    let overlapping = bind_with(EXAMPLE, network).remove(0);
    assert_eq!(overlapping.warnings.len(), 1, "{:?}", overlapping.warnings);
    assert!(overlapping.warnings[0].contains("network: m1 has more than one row from 2024-06-01"));
    assert_eq!(finished(&overlapping, &records[..1]).len(), 2);
}

#[test]
fn joins_chain_and_compare_expressions() {
    let sql = format!(
        "{}CREATE TABLE depots (feeder TEXT, depot TEXT) WITH (path = 'network.csv');
        CREATE VIEW v AS SELECT d.depot, MAX(r.value) AS most FROM readings r
        JOIN network n ON UPPER(n.usage_point) = r.usage_point AND lower(r.usage_point) = n.usage_point
        JOIN depots d ON d.feeder = n.feeder GROUP BY d.depot",
        EXAMPLE.split("CREATE VIEW").next().expect("the example has a view")
    );
    let csv = "usage_point,transformer,feeder,substation,valid_from,valid_to,depot\nm1,t,f1,s,,,north\n";
    let view = bind_with(&sql, csv).remove(0);
    let records = [reading("M1", &at("00:00:00"), "3"), reading("m1", &at("00:00:00"), "9")];
    assert_eq!(finished(&view, &records), ["north|3.000000"]);
}

#[test]
fn every_aggregate_is_finished_from_its_readings() {
    let view = view(
        "SELECT COUNT(*) AS a, COUNT(value) AS b, COUNT(DISTINCT value) AS c, SUM(value) AS d,
            MIN(value) AS e, MAX(value) AS f, AVG(value) AS g, VAR_POP(value) AS h,
            STDDEV_POP(value) AS i, FIRST(value) AS j, LAST_VALUE(value) AS k,
            COUNT(*) FILTER (WHERE value > 1.5) AS l, SUM(value) FILTER (WHERE quality = 'no') AS m,
            MIN(unit) AS n, LAST(start_utc) AS o, SUM(duration_s) AS p
         FROM readings",
    );
    let records = [
        reading("m1", &at("01:00:00"), "3"),
        reading("m2", &at("00:00:00"), "1"),
        reading("m3", &at("02:00:00"), "1"),
        reading("m4", &at("00:30:00"), "null"),
    ];
    let rows = finished(&view, &records);
    assert_eq!(rows.len(), 1);
    let cells: Vec<_> = rows[0].split('|').collect();
    assert_eq!(&cells[..6], ["4", "3", "2", "5.000000", "1.000000", "3.000000"]);
    assert!(cells[6].starts_with("1.6666"), "{}", cells[6]);
    let variance: f64 = cells[7].parse().expect("a number");
    assert!((variance - 8.0 / 9.0).abs() < 1e-12, "{variance}");
    let deviation: f64 = cells[8].parse().expect("a number");
    assert!((deviation - (8.0_f64 / 9.0).sqrt()).abs() < 1e-12, "{deviation}");
    assert_eq!(&cells[9..], ["1.000000", "1.000000", "1", "null", "kWh", "2024-07-01T02:00:00Z", "7200"]);
}

#[test]
fn quantiles_are_approximate_to_one_percent() {
    let view =
        view("SELECT APPROX_PERCENTILE_CONT(value, 0.5) AS q, approx_median(value) AS m FROM readings");
    let records: Vec<_> =
        (1..=99).map(|v| reading(&format!("m{v}"), &at("00:00:00"), &v.to_string())).collect();
    let row = finished(&view, &records).remove(0);
    let cells: Vec<f64> = row.split('|').map(|cell| cell.parse().expect("a number")).collect();
    assert!((cells[0] - 50.0).abs() <= 0.5, "{row}");
    assert_eq!(cells[0], cells[1]);
}

#[test]
fn outputs_may_compute_with_keys_and_aggregates() {
    let view = view(
        "SELECT upper(r.channel) || '!' AS name, SUM(r.value) / NULLIF(COUNT(r.value), 0) AS mean,
            date_part('hour', TUMBLE(r.start_utc, INTERVAL '1 hour')) AS hour, SUM(value * 2) AS twice
         FROM readings r WHERE r.unit = 'kWh' AND r.value IS NOT NULL
         GROUP BY UPPER(R.Channel), tumble(start_utc, INTERVAL '1 hour'), (r.channel)",
    );
    let records = [reading("m1", &at("05:10:00"), "1"), reading("m2", &at("05:50:00"), "2")];
    let row = finished(&view, &records).remove(0);
    let cells: Vec<_> = row.split('|').collect();
    assert_eq!(cells[0], "E1!", "{row}");
    assert!(cells[1].starts_with("1.5000"), "{row}");
    assert_eq!(&cells[2..], ["5", "6.000000", "2024-07-01T05:00:00Z", "2024-07-01T06:00:00Z"], "{row}");
}

#[test]
fn windows_are_matched_by_name_ordinal_or_expression() {
    let expected = ["2024-07-01T00:00:00Z|1.500000|2024-07-01T01:00:00Z"];
    for group in ["w", "1", "TUMBLE(r.start_utc, INTERVAL '1 hour')", "tumble(start_utc, interval '1 hour')"]
    {
        let view = view(&format!(
            "SELECT TUMBLE(r.start_utc, INTERVAL '1 hour') AS w, SUM(r.value) AS s FROM readings r GROUP BY {group}"
        ));
        let records = [reading("m1", &at("00:10:00"), "1"), reading("m2", &at("00:50:00"), "0.5")];
        assert_eq!(finished(&view, &records), expected, "GROUP BY {group}");
        assert!(view.key_columns.is_empty());
    }
}

#[test]
fn a_window_left_out_of_the_select_list_is_added() {
    let view = view("SELECT COUNT(*) AS c FROM readings GROUP BY TUMBLE(start_utc, INTERVAL '1' HOUR)");
    assert_eq!(
        finished(&view, &[reading("m1", &at("00:10:00"), "1")]),
        ["1|2024-07-01T00:00:00Z|2024-07-01T01:00:00Z"]
    );
    assert_eq!(view.output_schema().field(1).name(), "window");
}

#[test]
fn sliding_windows_combine_their_panes() {
    let view = view(
        "SELECT HOP(start_utc, INTERVAL '30 minutes', INTERVAL '1 hour') AS window, SUM(value) AS s
         FROM readings GROUP BY window",
    );
    let records = [reading("m1", &at("10:10:00"), "1"), reading("m1", &at("10:40:00"), "2")];
    let groups = fold(&view, &records);
    assert_eq!(groups.len(), 2);
    assert_eq!(
        finished(&view, &records),
        [
            "2024-07-01T09:30:00Z|1.000000|2024-07-01T10:30:00Z",
            "2024-07-01T10:00:00Z|3.000000|2024-07-01T11:00:00Z",
            "2024-07-01T10:30:00Z|2.000000|2024-07-01T11:30:00Z",
        ]
    );
    let (from, to) = (us(&at("10:00:00")), us(&at("10:30:00")));
    let (first, last) = view.pane_range(from, to);
    let needed: Vec<_> =
        groups.into_iter().filter(|(id, _)| first <= id.window_start && id.window_start < last).collect();
    let range = view.finish_range(&needed, from, to).expect("valid groups");
    assert_eq!(lines(&range), ["2024-07-01T10:00:00Z|3.000000|2024-07-01T11:00:00Z"]);
}

#[test]
fn local_days_follow_the_clocks_of_their_zone() {
    let view = view(
        "SELECT TUMBLE(start_utc, INTERVAL '1 day', 'Europe/Berlin') AS day, COUNT(*) AS c
         FROM readings GROUP BY day",
    );
    let quarter = |hour: i64| {
        let start = us("2024-10-26T22:00:00Z") + hour * 3_600_000_000;
        reading("m1", &crate::scalar::format_timestamp(start), "1")
    };
    let records: Vec<_> = (-1..26).map(quarter).collect();
    assert_eq!(
        finished(&view, &records),
        [
            "2024-10-25T22:00:00Z|1|2024-10-26T22:00:00Z",
            "2024-10-26T22:00:00Z|25|2024-10-27T23:00:00Z",
            "2024-10-27T23:00:00Z|1|2024-10-28T23:00:00Z",
        ]
    );
}

#[test]
fn rows_in_order_of_time_are_in_the_windows_that_each_is_in_alone() {
    // Samoa left out the 30th of December 2011.
    let windows = [
        "TUMBLE(start_utc, INTERVAL '1 day', 'Pacific/Apia')",
        "TUMBLE(start_utc, INTERVAL '1 hour')",
        "HOP(start_utc, INTERVAL '20 minutes', INTERVAL '2 hours')",
    ];
    for window in windows {
        let view = view(&format!("SELECT {window} AS w, COUNT(*) AS c FROM readings GROUP BY w"));
        let hour =
            |hour: i64| crate::scalar::format_timestamp(us("2011-12-28T00:30:00Z") + hour * 3_600_000_000);
        let records: Vec<_> = (0..120).map(|at| reading("m1", &hour(at), "1")).collect();
        let lifted = |records: &[String]| view.lift(&rows(&view, records)).grouped.windows;
        let alone: Vec<i64> =
            records.iter().flat_map(|record| lifted(std::slice::from_ref(record))).collect();
        assert_eq!(lifted(&records), alone, "{window}");
    }
}

#[test]
fn a_failing_row_contributes_nothing_and_is_reported() {
    let view = view("SELECT channel, SUM(10 / value) AS s, COUNT(*) AS c FROM readings GROUP BY channel");
    let batch = rows(
        &view,
        &[
            reading("m1", &at("00:00:00"), "2"),
            reading("m2", &at("00:00:00"), "0"),
            reading("m3", &at("00:00:00"), "5"),
        ],
    );
    let lifted = view.lift(&batch);
    assert_eq!(lifted.rows().map(|lifted| lifted.row).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(lifted.errors.len(), 1);
    assert_eq!(lifted.errors[0].0, 1);
    assert!(lifted.errors[0].1.to_lowercase().contains("divide by zero"), "{}", lifted.errors[0].1);
}

#[test]
fn a_filter_keeps_rows_away_that_would_fail() {
    let view = view(
        "SELECT SUM(10 / value) FILTER (WHERE value <> 0) AS s, LAST(value) FILTER (WHERE value < 5) AS l FROM readings",
    );
    let records = [
        reading("m1", &at("00:00:00"), "0"),
        reading("m2", &at("00:10:00"), "4"),
        reading("m3", &at("00:20:00"), "5"),
    ];
    let row = finished(&view, &records).remove(0);
    assert!(row.starts_with("4.5000") && row.ends_with("|4.000000"), "{row}");
}

#[test]
fn scalar_functions_of_time_may_be_keys_and_conditions() {
    let view = view(
        "SELECT date_trunc('hour', start_utc) AS h, EXTRACT(dow FROM start_utc) AS d,
            date_trunc('day', start_utc AT TIME ZONE 'Australia/Sydney') AS local, COUNT(*) AS c
         FROM readings
         WHERE start_utc >= '2024-07-01' AND start_utc < TIMESTAMP '2024-07-02 00:00:00'
            AND start_utc + INTERVAL '1 hour' > '2024-07-01T01:00:00Z' AND channel LIKE 'E%'
            AND unit IN ('kWh', 'Wh') AND COALESCE(value, 0) BETWEEN -1 AND 1000
         GROUP BY 1, 2, 3",
    );
    let records = [
        reading("m1", "2024-06-30T23:59:59Z", "1"),
        reading("m1", &at("00:00:00"), "1"),
        reading("m1", &at("05:10:00"), "1"),
        reading("m2", &at("05:50:00"), "null"),
        reading("m1", "2024-07-02T00:00:00Z", "1"),
    ];
    assert_eq!(finished(&view, &records), ["2024-07-01T05:00:00Z|1|2024-06-30T14:00:00Z|2"]);
}

#[test]
fn a_view_without_aggregates_keeps_the_keys_that_have_readings() {
    let view = view("SELECT usage_point FROM readings GROUP BY usage_point");
    let records = [
        reading("m2", &at("00:00:00"), "1"),
        reading("m1", &at("00:00:00"), "1"),
        reading("m2", &at("01:00:00"), "1"),
    ];
    assert_eq!(finished(&view, &records), ["m1", "m2"]);
}

#[test]
fn each_column_of_the_result_tells_where_it_comes_from() {
    use crate::ColumnOrigin as Origin;
    let view = view(
        "SELECT COUNT(*) AS c, channel, upper(channel) AS u, TUMBLE(start_utc, INTERVAL '1 hour') AS w
         FROM readings GROUP BY channel, w",
    );
    let expected =
        [Origin::Computed, Origin::Key(0), Origin::Computed, Origin::WindowStart, Origin::WindowEnd];
    assert_eq!(view.column_origins(), expected);
}

#[test]
fn rows_come_one_by_one_where_a_group_is_a_row() {
    let by_row = view(
        "SELECT usage_point, SUM(value) AS s, TUMBLE(start_utc, INTERVAL '1 hour') AS hour FROM readings GROUP BY usage_point, hour",
    );
    let records: Vec<_> = (0..48)
        .map(|half| {
            reading(["m1", "m2"][half % 2], &at(&format!("{:02}:{:02}:00", half / 2, half % 2 * 30)), "1.5")
        })
        .collect();
    let groups = fold(&by_row, &records);
    for (from, to, expected) in
        [("01:00:00", "03:00:00", 4), ("05:00:00", "05:00:00", 0), ("00:00:00", "23:59:00", groups.len())]
    {
        let range = (us(&at(from)), us(&at(to)));
        let columns = by_row.finish_range(&groups, range.0, range.1).expect("valid groups");
        assert_eq!(columns.num_rows(), expected);
        assert!(by_row.row_finisher(range.0, range.1).is_some());
        assert_rows(&by_row, &groups, range, &columns);
    }
    let foreign = GroupId { key: Value::encode_key(&[Value::Int(1)]), ..groups[0].0.clone() };
    let mut finisher = by_row.row_finisher(i64::MIN, i64::MAX).expect("a group is a row");
    assert!(finisher.finish(&foreign, &groups[0].1).is_err());
    for select in [
        "SELECT SUM(value) / 2 AS half FROM readings",
        "SELECT HOP(start_utc, INTERVAL '30 minutes', INTERVAL '1 hour') AS window, SUM(value) AS s FROM readings GROUP BY window",
    ] {
        assert!(view(select).row_finisher(i64::MIN, i64::MAX).is_none(), "{select}");
    }
}

#[test]
fn no_beginning_of_an_application_makes_parsing_panic() {
    let sql = with_view(
        "SELECT n.feeder, HOP(r.start_utc, INTERVAL '5' MINUTE, INTERVAL '1' HOUR) AS w, SUM(r.value) FILTER (WHERE r.value > 0)
         / NULLIF(COUNT(*), 0) FROM readings r LEFT JOIN network n ON (r.usage_point = n.usage_point) GROUP BY 1, w",
    );
    for (at, _) in sql.char_indices() {
        let _ = Application::parse(&sql[..at]);
    }
    Application::parse(&sql).expect("the whole of it is valid");
}

#[test]
fn whole_numbers_overflow_loudly() {
    let view = view("SELECT SUM(duration_s * 9223372036854775807) AS s FROM readings");
    let lifted = view.lift(&rows(&view, &[reading("m1", &at("00:00:00"), "2")]));
    assert_eq!(lifted.rows().count(), 0);
    assert!(lifted.errors[0].1.to_lowercase().contains("overflow"), "{}", lifted.errors[0].1);
}

#[test]
fn number_literals_are_exact() {
    let view = view("SELECT SUM(value * 0.1) AS s, COUNT(*) FILTER (WHERE value = 0.3) AS c FROM readings");
    let records: Vec<_> = (0..10).map(|m| reading(&format!("m{m}"), &at("00:00:00"), "0.3")).collect();
    let row = finished(&view, &records).remove(0);
    assert!(row.starts_with("0.3000000") && row.ends_with("|10"), "{row}");
}

#[test]
fn a_key_given_as_text_is_the_groups_key() {
    let view = view(
        "SELECT channel, duration_s, CAST(start_utc AS DATE) AS d, COUNT(*) AS c FROM readings GROUP BY 1, 2, 3",
    );
    let groups = fold(&view, &[reading("m1", &at("00:00:00"), "1")]);
    let key = view.encode_key(&["E1", "1800", "2024-07-01"]).expect("a valid key");
    assert_eq!(groups[0].0.key, key);
    assert!(view.partition_of(&key) < view.partitions);
    let error = view.encode_key(&["E1"]).expect_err("too few parts").to_string();
    assert!(error.contains("1 parts") && error.contains("channel, duration_s, d"), "{error}");
    let error = view.encode_key(&["E1", "x", "2024-07-01"]).expect_err("no number").to_string();
    assert!(error.contains("duration_s") && error.contains("\"x\""), "{error}");
}

#[test]
fn groups_of_another_view_are_refused() {
    let by_text = view("SELECT channel, COUNT(*) AS c FROM readings GROUP BY channel");
    let by_number = view("SELECT duration_s, COUNT(*) AS c FROM readings GROUP BY duration_s");
    let groups = fold(&by_text, &[reading("m1", &at("00:00:00"), "1")]);
    assert!(by_number.finish(&groups).is_err());
}

#[test]
fn a_group_whose_rows_are_all_retracted_is_left_out() {
    let view = view("SELECT channel, SUM(value) AS s FROM readings GROUP BY channel");
    let mut groups = fold(&view, &[reading("m1", &at("00:00:00"), "1")]);
    groups[0].1.rows = 0;
    assert_eq!(view.finish(&groups).expect("valid groups").num_rows(), 0);
}

#[test]
fn the_plan_names_what_each_layer_does() {
    let description = PlanDescription::of(&bind_with(EXAMPLE, NETWORK)).remove(0);
    assert!(!description.to_string().contains("rolled up"), "there is no other view");
    let text = description.to_string();
    for fragment in [
        "view feeder_load",
        "source     readings",
        "JOIN network ON r.usage_point = n.usage_point",
        "tumbling, 30 minutes over r.start_utc",
        "group      feeder TEXT",
        "sum(r.value) → DECIMAL",
        "exact sum",
        "speed ",
        "batch ",
        "serving ",
    ] {
        assert!(text.contains(fragment), "{fragment:?} is not in\n{text}");
    }
    assert_eq!(description.columns[0], "feeder TEXT");
}

#[test]
fn an_output_topic_is_declared_and_a_key_as_json_is_the_key() {
    let plain = bind_with(EXAMPLE, NETWORK).remove(0);
    assert_eq!(plain.output_topic, None);
    let sql =
        EXAMPLE.replace("feeder_load AS", "feeder_load WITH (output_topic = 'loads', partitions = 2) AS");
    let emitting = bind_with(&sql, NETWORK).remove(0);
    assert_eq!((emitting.partitions, emitting.output_topic.as_deref()), (2, Some("loads")));
    let key = |json: serde_json::Value| {
        let columns = json.as_object().expect("an object").clone();
        emitting.key_of_json(&columns.into_iter().collect())
    };
    assert_eq!(key(serde_json::json!({"feeder": "F1"})), emitting.encode_key(&["F1"]).ok());
    assert_eq!(key(serde_json::json!({"feeder": null})), Some(Value::encode_key(&[Value::Null])));
    for other in [
        serde_json::json!({}),
        serde_json::json!({"feeder": 1}),
        serde_json::json!({"substation": "F1"}),
        serde_json::json!({"feeder": "F1", "substation": "S1"}),
    ] {
        assert_eq!(key(other.clone()), None, "{other}");
    }
}

/// Views whose rows may fail, match several times, or be filtered out.
const LAW: [&str; 4] = [
    "SELECT n.feeder, SUM(r.value / (r.duration_s - 1800)) AS s, LAST(r.value) AS l FROM readings r
     LEFT JOIN network n ON n.usage_point = r.usage_point GROUP BY 1",
    "SELECT r.channel, TUMBLE(r.start_utc, INTERVAL '1 day', 'Australia/Sydney') AS w, COUNT(*) AS c
     FROM readings r JOIN network n ON r.usage_point = n.usage_point AND 10 / r.duration_s >= 0
     WHERE r.value <> 0 AND 1 / r.value < 100 GROUP BY 1, 2",
    "SELECT CASE WHEN value > 0 THEN 10 / value ELSE 0 END AS k, COUNT(*) FILTER (WHERE 1 / duration_s = 0) AS c
     FROM readings GROUP BY 1",
    "SELECT quality, COUNT(DISTINCT duration_s % value) AS c FROM readings
     WHERE value > 0 OR 1 / value < 0 GROUP BY quality",
];

pub(super) fn any_reading() -> impl Strategy<Value = String> {
    let value = prop_oneof![Just("null"), Just("0"), Just("1"), Just("-2.5"), Just("999999999999.999999")];
    (1_u8..5, value, prop_oneof![Just(0_i64), Just(1800), Just(900)], 0_i64..100).prop_map(
        |(meter, value, duration, hour)| {
            let start = crate::scalar::format_timestamp(us("2024-04-05T00:00:00Z") + hour * 3_600_000_000);
            format!(
                r#"{{"usage_point":"m{meter}","channel":"E1","start_utc":"{start}","duration_s":{duration},"value":{value}}}"#
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn lifting_a_batch_is_lifting_its_rows_one_by_one(records in prop::collection::vec(any_reading(), 0..30)) {
        for select in LAW {
            let view = view(select);
            let batch = rows(&view, &records);
            let whole = view.lift(&batch);
            let (mut rows, mut errors) = (Vec::new(), Vec::new());
            for row in 0..batch.num_rows() {
                let one = view.lift(&batch.slice(row, 1));
                rows.extend(one.rows().map(|lifted| (row, one.grouped.row(lifted.at as usize))));
                errors.extend(one.errors.into_iter().map(|(at, why)| (at + row, why)));
            }
            let found: Vec<_> =
                whole.rows().map(|lifted| (lifted.row, whole.grouped.row(lifted.at as usize))).collect();
            prop_assert_eq!(&found, &rows, "{}", select);
            prop_assert_eq!(&whole.errors, &errors, "{}", select);
        }
    }
}
