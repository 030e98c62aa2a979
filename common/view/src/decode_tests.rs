use proptest::prelude::*;

use super::*;
use crate::Application;
use crate::scalar::value_at;
use sanso_state::Value;
use std::sync::Arc;

fn source() -> Arc<Source> {
    let sql = "CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, duration_s BIGINT,
            value DECIMAL(18,6), ok BOOLEAN, day DATE, source_version BIGINT, received_at TIMESTAMP)
        WITH (key = 'usage_point', identity = 'usage_point, start_utc', version = 'source_version')";
    let application = Application::parse(sql).expect("the test's SQL is valid");
    Arc::clone(&application.sources[0])
}

/// Returns the row's values, or the reason of the refusal.
fn decode_one(json: &str) -> Result<Vec<Value>, String> {
    let decoded = source().decode([json.as_bytes()]);
    match decoded.rejected.into_iter().next() {
        Some((_, why)) => Err(why),
        None => Ok(decoded.rows.columns().iter().map(|column| value_at(column, 0)).collect()),
    }
}

const HEAD: &str = r#""usage_point":"m1","start_utc":"2024-07-01T00:00:00Z""#;

#[test]
fn a_whole_record_is_a_typed_row() {
    let json = r#" {"usage_point":"mé\n","start_utc":"2024-07-01T10:00:00+10:00","duration_s":1800,
        "value":0.123456,"ok":true,"day":"2024-07-01","source_version":2,"unknown":{"a":[1,2]},
        "received_at":"2024-07-02T00:00:00.5Z"} "#;
    let row = decode_one(json).expect("a valid record");
    assert_eq!(
        row,
        [
            Value::text("mé\n"),
            Value::Timestamp(1_719_792_000_000_000),
            Value::Int(1800),
            Value::Decimal(123_456),
            Value::Bool(true),
            Value::Date(19_905),
            Value::Int(2),
            Value::Timestamp(1_719_878_400_500_000),
        ]
    );
}

#[test]
fn missing_and_null_fields_are_null() {
    let row = decode_one(&format!("{{{HEAD},\"value\":null}}")).expect("a valid record");
    assert!(row[2..].iter().all(Value::is_null));
}

#[test]
fn decimals_are_read_from_the_text_of_the_number() {
    for (json, expected) in [
        ("1e-6", 1),
        ("\"1e-6\"", 1),
        ("\"-12.5\"", -12_500_000),
        ("123456789012.345678", 123_456_789_012_345_678),
        ("0.1000000000", 100_000),
        ("-0", 0),
    ] {
        let row = decode_one(&format!("{{{HEAD},\"value\":{json}}}")).expect("a valid record");
        assert_eq!(row[3], Value::Decimal(expected), "{json}");
    }
}

#[test]
fn what_is_not_exact_is_refused_with_the_column_and_the_reason() {
    let with = |fields: &str| format!("{{{HEAD},{fields}}}");
    for (json, fragments) in [
        (with(r#""value":0.1234567"#), ["column value", "0.1234567", "6 digits after the point"]),
        (with(r#""value":1000000000000"#), ["column value", "1000000000000", "DECIMAL(18,6)"]),
        (with(r#""value":true"#), ["column value", "found true", "a number for DECIMAL(18,6)"]),
        (with(r#""value":"many""#), ["column value", "many", "expected a decimal number"]),
        (with(r#""duration_s":1.5"#), ["column duration_s", "1.5", "whole number"]),
        (
            with(r#""duration_s":9223372036854775808"#),
            ["column duration_s", "9223372036854775808", "64 bits"],
        ),
        (with(r#""duration_s":"1800""#), ["column duration_s", "1800", "whole number"]),
        (with(r#""ok":1"#), ["column ok", "found 1", "true or false"]),
        (with(r#""day":"01/07/2024""#), ["column day", "01/07/2024", "a date such as"]),
        (with(r#""received_at":"yesterday""#), ["column received_at", "yesterday", "RFC 3339"]),
        (
            with(r#""received_at":"2024-07-01T00:00:00.0000001Z""#),
            ["column received_at", "", "finer than a microsecond"],
        ),
        (with(r#""value":1,"value":2"#), ["column value", "twice", "once"]),
        (
            r#"{"usage_point":12,"start_utc":"2024-07-01T00:00:00Z"}"#.into(),
            ["column usage_point", "found 12", "a string"],
        ),
        (
            r#"{"usage_point":null,"start_utc":"2024-07-01T00:00:00Z"}"#.into(),
            ["column usage_point", "found null", "a string"],
        ),
        (r#"{"usage_point":"m1"}"#.into(), ["column start_utc", "no such field", "RFC 3339"]),
        ("[1,2]".into(), ["not one JSON object", "", ""]),
        ("".into(), ["not one JSON object", "", ""]),
        (format!("{{{HEAD}}} x"), ["not one JSON object", "trailing", ""]),
        (format!("{{{HEAD}"), ["not one JSON object", "", ""]),
        (
            r#"{"usage_point":"\ud800","start_utc":"2024-07-01T00:00:00Z"}"#.into(),
            ["column usage_point", "not Unicode", ""],
        ),
    ] {
        let why = decode_one(&json).expect_err(&json);
        for fragment in fragments {
            assert!(why.contains(fragment), "{json}: {why:?} lacks {fragment:?}");
        }
    }
}

#[test]
fn a_record_that_is_not_utf8_is_refused() {
    let decoded = source().decode([b"{\"usage_point\":\"\xff\"}".as_slice()]);
    assert_eq!(decoded.rows.num_rows(), 0);
    assert_eq!(decoded.rejected.len(), 1);
}

#[test]
fn a_row_that_fails_midway_leaves_nothing_behind() {
    let good = |id: &str| format!(r#"{{"usage_point":"{id}","start_utc":"2024-07-01T00:00:00Z","value":1}}"#);
    let bad = r#"{"usage_point":"x","start_utc":"2024-07-01T00:00:00Z","value":[]}"#;
    let payloads = [good("a"), bad.to_owned(), good("b")];
    let source = source();
    let decoded = source.decode(payloads.iter().map(|payload| payload.as_bytes()));
    assert_eq!(decoded.index, [0, 2]);
    assert_eq!(decoded.rejected.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1]);
    let keys: Vec<_> = source.keys(&decoded.rows).iter().flatten().collect();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn json_of_a_row_decodes_to_the_row() {
    let source = source();
    let json =
        format!(r#"{{{HEAD},"value":-0.000001,"duration_s":-9223372036854775808,"day":"2024-02-29"}}"#);
    let decoded = source.decode([json.as_bytes()]);
    let again = source.to_json(&decoded.rows, 0).to_string();
    assert!(again.contains("-0.000001"), "{again}");
    assert_eq!(source.decode([again.as_bytes()]).rows, decoded.rows);
}

#[test]
fn content_leaves_received_at_out_and_identity_tells_readings_apart() {
    let source = source();
    let payloads = [
        format!(r#"{{{HEAD},"value":1,"received_at":"2024-07-02T00:00:00Z"}}"#),
        format!(r#"{{{HEAD},"value":1.0,"received_at":"2024-07-03T00:00:00Z"}}"#),
        format!(r#"{{{HEAD},"value":2,"source_version":7}}"#),
    ];
    let rows = source.decode(payloads.iter().map(|p| p.as_bytes())).rows;
    let contents = source.contents(&rows);
    assert_eq!(contents[0], contents[1]);
    assert_ne!(contents[0], contents[2]);
    let identities = source.identities(&rows);
    assert_eq!(identities[0], identities[2]);
    assert_eq!(source.versions(&rows), [Some(0), Some(0), Some(7)]);
    assert_eq!(source.event_times(&rows), [1_719_792_000_000_000; 3]);
}

fn hostile_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[0-9]{1,40}(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,20})?",
        "\"[a-z0-9:TZ+\\-\\.\\\\u]{0,30}\"",
        "\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?Z\"",
        Just("[{},[],\"\"]".to_owned()),
        Just("{\"$serde_json::private::Number\":\"1\"}".to_owned()),
        Just("{\"$serde_json::private::RawValue\":\"1\"}".to_owned()),
    ];
    let field = prop_oneof![
        Just("usage_point"),
        Just("start_utc"),
        Just("duration_s"),
        Just("value"),
        Just("ok"),
        Just("day"),
        Just("received_at"),
        Just("other"),
    ];
    prop::collection::vec((field, scalar), 0..8).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

proptest! {
    #[test]
    fn no_json_makes_decoding_panic(json in hostile_json(), cut in 0_usize..200) {
        let source = source();
        let cut = json.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(json.len());
        for text in [json.as_str(), &json[..cut]] {
            let decoded = source.decode([text.as_bytes()]);
            prop_assert_eq!(decoded.rows.num_rows() + decoded.rejected.len(), 1);
            prop_assert_eq!(decoded.rows.num_rows(), decoded.index.len());
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let decoded = source().decode([bytes.as_slice()]);
        prop_assert_eq!(decoded.rows.num_rows() + decoded.rejected.len(), 1);
    }
}

#[test]
fn a_record_that_could_not_be_read_is_rejected_for_that_reason() {
    let json = r#"{"$undecodable":{"bytes":"AA==","reason":"schema 7: 2 bytes are left over"}}"#;
    assert_eq!(decode_one(json), Err("schema 7: 2 bytes are left over".into()));
    let odd = decode_one(r#"{"$undecodable":7}"#).expect_err("no record");
    assert!(odd.starts_with("column usage_point: found no such field"), "{odd}");
}
