//! JSON → bytes → JSON, and hostile bytes.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SCHEMA: &str = r#"syntax = "proto3"; package meters;
import "google/protobuf/timestamp.proto";
import "confluent/type/decimal.proto";
import "google/type/date.proto";
import "common/quality.proto";
message Reading {
  string usage_point = 1;
  google.protobuf.Timestamp start_utc = 2;
  confluent.type.Decimal value = 3;
  optional int64 version = 4;
  common.Quality quality = 5;
  double ratio = 6;
  float small = 7;
  uint64 large = 8;
  bool good = 9;
  bytes raw = 10;
  repeated sint32 steps = 11;
  map<string, int64> more = 12;
  google.type.Date day = 13;
  Reading parent = 14;
  message Inner { int32 x = 1; message Most { int32 y = 1; } }
}
message Second { string name = 1; }"#;
const QUALITY: &str = r#"syntax = "proto3"; package common; enum Quality { A = 0; E = 1; }"#;

fn schema() -> Protobuf {
    let imports = BTreeMap::from([("common/quality.proto".to_owned(), QUALITY.to_owned())]);
    Protobuf::compile(SCHEMA, &imports).expect("a good schema")
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn encoded(schema: &Protobuf, json: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    schema.encode(json.as_object().expect("an object"), &[], &mut bytes).expect("a value of the schema");
    bytes
}

prop_compose! {
    fn reading()(
        usage_point in ".{0,12}", nanos: i64, value: Option<(i64, u32)>, version: Option<i64>, quality: bool,
        ratio: f64, small: f32, large: u64, good: bool, raw: Vec<u8>, steps: Vec<i32>,
        more in prop::collection::btree_map(".{0,3}", any::<i64>(), 0..4), days in -700_000_i32..2_900_000,
    ) -> Value {
        use crate::number::{bytes_text, date_text, decimal_text, double_text, float_text, instant_text};
        // Adding zero makes of −0 the zero that Protobuf leaves out.
        // A decimal carries its own scale: the shortest that holds it is canonical.
        let canonical = |(digits, scale): (i64, u32)| parsed(&decimal_text(i128::from(digits) * 10 + 1, scale % 18));
        let number = |text: Option<String>| parsed(&text.unwrap_or("0.0".into()));
        json!({
            "usage_point": usage_point, "start_utc": instant_text(nanos, 1_000_000_000).expect("in range"),
            "value": value.map(canonical), "version": version, "quality": if quality { "E" } else { "A" },
            "ratio": number(double_text(ratio + 0.0)), "small": number(float_text(small + 0.0)), "large": large,
            "good": good, "raw": bytes_text(&raw), "steps": steps, "more": more,
            "day": date_text(days).expect("in range"), "parent": null,
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
    fn hostile_bytes_never_panic(reading in reading(), at: prop::sample::Index, byte: u8, junk: Vec<u8>) {
        let schema = schema();
        let mut bytes = encoded(&schema, &reading);
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
fn message_indexes_name_the_message() {
    let schema = schema();
    assert_eq!(schema.decode(&[2, 2, 10, 1, b'x']).expect("the second message"), r#"{"name":"x"}"#);
    // Two levels below the first; its map's entry is no declared message but stands among them.
    let error = schema.decode(&[2, 18]).expect_err("no tenth message").to_string();
    assert!(error.contains("no message at [9]"), "{error}");
    let error = schema.decode(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]).expect_err("too many");
    assert!(error.to_string().contains("message indexes, expected at most 32"), "{error}");
}

#[test]
fn a_length_that_the_bytes_do_not_have_is_refused() {
    let bytes = [0, 10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert!(schema().decode(&bytes).is_err());
}

#[test]
fn what_is_absent_reads_as_protobuf_says() {
    let read = parsed(&schema().decode(&[0]).expect("an empty message"));
    assert_eq!(
        (&read["version"], &read["start_utc"], &read["large"]),
        (&Value::Null, &Value::Null, &json!(0))
    );
}

#[test]
fn a_null_column_is_refused_where_it_would_read_back_as_zero() {
    let columns = ["large".to_owned(), "version".to_owned()];
    let json = json!({ "usage_point": "M1" });
    let error = schema().encode(json.as_object().expect("an object"), &columns, &mut Vec::new());
    assert!(error.expect_err("null").to_string().starts_with("field large: null would read back"));
}

#[test]
fn a_broken_schema_says_where() {
    let error = Protobuf::compile("syntax = \"proto3\"; message {", &BTreeMap::new()).expect_err("broken");
    assert!(error.to_string().starts_with("the Protobuf schema is broken: "), "{error}");
}
