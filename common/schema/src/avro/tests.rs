//! JSON → bytes → JSON; the library as the second opinion; hostile bytes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SCHEMA: &str = r#"{"type":"record","name":"Reading","namespace":"meters","fields":[
  {"name":"usage_point","type":"string"},
  {"name":"start_utc","type":{"type":"long","logicalType":"timestamp-micros"}},
  {"name":"read_at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"day","type":{"type":"int","logicalType":"date"}},
  {"name":"value","type":["null",{"type":"bytes","logicalType":"decimal","precision":38,"scale":6}]},
  {"name":"fixed","type":{"type":"fixed","name":"F","size":9,"logicalType":"decimal","precision":20,"scale":3}},
  {"name":"ratio","type":"double"},
  {"name":"small","type":"float"},
  {"name":"version","type":"long"},
  {"name":"count","type":["int","string"],"default":7},
  {"name":"good","type":"boolean"},
  {"name":"quality","type":{"type":"enum","name":"Quality","symbols":["A","E","S"]}},
  {"name":"raw","type":"bytes"},
  {"name":"flags","type":{"type":"array","items":["null","Quality"]}},
  {"name":"more","type":{"type":"map","values":"long"}},
  {"name":"parent","type":["null","Reading"]}]}"#;

fn schema() -> Avro {
    Avro::compile(SCHEMA, &[]).expect("a good schema")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn encoded(schema: &Avro, json: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    schema.encode(json, &mut bytes).expect("a value of the schema");
    bytes
}

prop_compose! {
    fn reading()(
        usage_point in ".{0,12}", micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999,
        days in -700_000_i32..2_900_000, value: Option<i64>, fixed: i64, ratio: f64, small: f32,
        version: i64, count: Result<i32, String>, good: bool, quality in 0_usize..3,
        raw: Vec<u8>, flags in prop::collection::vec(prop::option::of(0_usize..3), 0..4),
        more in prop::collection::btree_map(".{0,3}", any::<i64>(), 0..4),
    ) -> Value {
        use crate::number::{bytes_text, date_text, decimal_text, double_text, float_text, instant_text};
        let symbol = |index: usize| ["A", "E", "S"][index];
        let number = |text: Option<String>| parsed(&text.unwrap_or("0.0".into()));
        let count = match count {
            Ok(count) => json!(count),
            Err(text) => json!(text),
        };
        json!({
            "usage_point": usage_point,
            "start_utc": instant_text(micros, 1_000_000).expect("in range"),
            "read_at": instant_text(micros / 1_000, 1_000).expect("in range"),
            "day": date_text(days).expect("in range"),
            "value": value.map(|value| parsed(&decimal_text(value.into(), 6))),
            "fixed": parsed(&decimal_text(fixed.into(), 3)),
            "ratio": number(double_text(ratio)), "small": number(float_text(small)),
            "version": version, "count": count, "good": good, "quality": symbol(quality),
            "raw": bytes_text(&raw),
            "flags": flags.into_iter().map(|flag| flag.map(symbol)).collect::<Vec<_>>(),
            "more": more, "parent": null,
        })
    }
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_went_in(mut child in reading(), parent in reading()) {
        child["parent"] = parent;
        let schema = schema();
        let bytes = encoded(&schema, &child);
        prop_assert_eq!(parsed(&schema.decode(&bytes).expect("our own bytes")), child);
    }

    #[test]
    fn the_library_reads_what_we_write(mut reading in reading(), key in ".{0,3}", value: i64) {
        // One entry: the library writes a map in no order.
        reading["more"] = json!({ key: value });
        let bytes = encoded(&schema(), &reading);
        let theirs = apache_avro::Schema::parse_str(SCHEMA).expect("a good schema");
        let mut rest = &bytes[..];
        let value = apache_avro::from_avro_datum(&theirs, &mut rest, None).expect("the library reads it");
        prop_assert!(rest.is_empty());
        prop_assert_eq!(apache_avro::to_avro_datum(&theirs, value).expect("and writes it"), bytes);
    }

    #[test]
    fn hostile_bytes_never_panic(
        reading in reading(), cut: prop::sample::Index, at: prop::sample::Index, byte: u8, junk: Vec<u8>,
    ) {
        let schema = schema();
        let mut bytes = encoded(&schema, &reading);
        let cut = cut.index(bytes.len());
        prop_assert!(schema.decode(&bytes[..cut]).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        for hostile in [&bytes, &junk] {
            if let Ok(json) = schema.decode(hostile) {
                parsed(&json);
            }
        }
    }
}

#[test]
fn a_length_that_the_bytes_do_not_have_is_refused() {
    let lengths = |of: &str| {
        let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{of}}}]}}"#);
        let mut bytes = Vec::new();
        crate::frame::put_zigzag(1 << 60, &mut bytes);
        Avro::compile(&text, &[]).expect("a good schema").decode(&bytes).expect_err("too long").to_string()
    };
    assert!(lengths(r#""string""#).contains("1152921504606846976 bytes are claimed, 0 are left"));
    assert!(lengths(r#"{"type":"array","items":"null"}"#).contains("claims 1152921504606846976 items"));
    assert!(lengths(r#"{"type":"map","values":"null"}"#).contains("claims 1152921504606846976 items"));
}

#[test]
fn many_blocks_of_nothing_are_refused_before_they_fill_memory() {
    let text =
        r#"{"type":"record","name":"R","fields":[{"name":"x","type":{"type":"array","items":"null"}}]}"#;
    let mut bytes = Vec::new();
    for block in 0..5_000 {
        // As many items as bytes are left at most; without a bound, together 60 MB of nulls.
        crate::frame::put_zigzag(12_000 - 2 * block, &mut bytes);
    }
    bytes.extend([0; 3_000]);
    let error = Avro::compile(text, &[]).expect("a good schema").decode(&bytes).expect_err("too much");
    assert!(error.to_string().contains("more than 33554432 bytes of text"), "{error}");
}

#[test]
fn endless_nesting_is_refused() {
    let text = r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#;
    let error = Avro::compile(text, &[]).expect("a good schema").decode(&[2; 100_000]).expect_err("too deep");
    assert!(error.to_string().contains("nested deeper than 64"), "{error}");
}

#[test]
fn what_does_not_fit_names_the_field_and_the_type() {
    let check = |field: &str, value: Value, expected: &str| {
        let mut reading = json!({
            "usage_point": "M1", "start_utc": "2024-07-01T00:00:00Z", "read_at": "2024-07-01T00:00:00Z",
            "day": "2024-07-01", "fixed": 1, "ratio": 1, "small": 1, "version": 1, "good": true,
            "quality": "A", "raw": "", "flags": [], "more": {},
        });
        let mut bytes = Vec::new();
        schema().encode(&reading, &mut bytes).expect("defaults and nulls fill the rest");
        reading[field] = value;
        let error = schema().encode(&reading, &mut bytes).expect_err("no such value").to_string();
        assert!(error.starts_with(&format!("field {field}: ")) && error.contains(expected), "{error}");
    };
    check("usage_point", Value::Null, "expected a string");
    check("value", json!(0.000_000_1), "decimal(38, 6)");
    check("version", json!(1.5), "a whole number of 64 bits");
    check("ratio", parsed("0.10000000000000000001"), "a double holds");
    check("read_at", json!("2024-07-01T00:00:00.0001Z"), "steps of 1/1000 s");
    check("quality", json!("Z"), "one of A, E, S");
}

#[test]
fn a_decimal_keeps_all_its_digits() {
    let mut reading = parsed(&schema().decode(&encoded(&schema(), &sample())).expect("our own bytes"));
    assert_eq!(reading["value"].to_string(), "12345678901234567890123456789012.345600");
    reading["value"] = Value::Null;
    assert_eq!(parsed(&schema().decode(&encoded(&schema(), &reading)).expect("our own bytes")), reading);
}

fn sample() -> Value {
    parsed(
        r#"{"usage_point":"M1","start_utc":"2024-07-01T00:00:00+10:00","read_at":"2024-07-01T00:00:00Z",
            "day":"2024-07-01","value":12345678901234567890123456789012.3456,"fixed":"1.5","ratio":1e300,
            "small":0.1,"version":9e2,"good":true,"quality":"A","raw":"","flags":[null,"A"],"more":{}}"#,
    )
}

#[test]
fn a_schema_finds_what_it_refers_to() {
    let quality = r#"{"type":"enum","name":"Quality","namespace":"q","symbols":["A","E"]}"#;
    let text = r#"{"type":"record","name":"R","fields":[{"name":"x","type":"q.Quality"}]}"#;
    let schema = Avro::compile(text, &[quality.to_owned()]).expect("a good schema");
    assert_eq!(schema.decode(&[2]).expect("a symbol"), r#"{"x":"E"}"#);
    assert!(Avro::compile(text, &[]).is_err());
}
