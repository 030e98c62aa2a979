//! Records in Avro and Protobuf: whatever the bytes, they read as JSON or are refused; what is read
//! can be written, and then reads as the same.

use std::sync::LazyLock;

use sanso_schema::{Format, Schema};

/// Every type of Avro, with values nested in themselves.
static AVRO: LazyLock<Schema> = LazyLock::new(|| {
    let text = r#"{"type":"record","name":"Reading","namespace":"meters","fields":[
        {"name":"usage_point","type":"string"},
        {"name":"start_utc","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"read_at","type":{"type":"long","logicalType":"timestamp-nanos"}},
        {"name":"day","type":{"type":"int","logicalType":"date"}},
        {"name":"value","type":["null",{"type":"bytes","logicalType":"decimal","precision":38,"scale":6}]},
        {"name":"fixed","type":{"type":"fixed","name":"F","size":9,"logicalType":"decimal","precision":20,"scale":3}},
        {"name":"ratio","type":"double"},
        {"name":"small","type":"float"},
        {"name":"good","type":"boolean"},
        {"name":"quality","type":{"type":"enum","name":"Quality","symbols":["A","E","S"]}},
        {"name":"raw","type":"bytes"},
        {"name":"flags","type":{"type":"array","items":["null","Quality"]}},
        {"name":"more","type":{"type":"map","values":"long"}},
        {"name":"parents","type":{"type":"array","items":"Reading"}}]}"#;
    Schema::compile(Format::Avro, text, &[]).expect("a good schema")
});

/// Every kind of field of Protobuf, with values nested in themselves.
static PROTOBUF: LazyLock<Schema> = LazyLock::new(|| {
    let text = r#"syntax = "proto3"; package meters;
        import "google/protobuf/timestamp.proto";
        import "confluent/type/decimal.proto";
        import "google/type/date.proto";
        enum Quality { A = 0; E = 1; }
        message Reading {
          string usage_point = 1;
          google.protobuf.Timestamp start_utc = 2;
          confluent.type.Decimal value = 3;
          optional int64 version = 4;
          Quality quality = 5;
          double ratio = 6;
          float small = 7;
          uint64 large = 8;
          bool good = 9;
          bytes raw = 10;
          repeated sint32 steps = 11;
          map<string, int64> more = 12;
          google.type.Date day = 13;
          repeated Reading parents = 14;
          message Inner { fixed32 x = 1; }
        }
        message Second { map<bool, Reading> names = 1; }"#;
    Schema::compile(Format::Protobuf, text, &[]).expect("a good schema")
});

/// A record in Avro.
pub(crate) fn avro(bytes: &[u8]) {
    let Some(json) = read(&AVRO, bytes) else { return };
    let mut written = Vec::new();
    // A decimal of more digits than its type declares is read, and not written.
    if AVRO.encode(json.as_bytes(), &[], &mut written).is_ok() {
        assert_eq!(read(&AVRO, &written).as_deref(), Some(json.as_str()));
    }
}

/// A record in Protobuf, with the indexes of its message before it.
pub(crate) fn protobuf(bytes: &[u8]) {
    let Some(json) = read(&PROTOBUF, bytes) else { return };
    let mut written = Vec::new();
    // Only the first message is written.
    if bytes.first() == Some(&0) && PROTOBUF.encode(json.as_bytes(), &[], &mut written).is_ok() {
        let again = read(&PROTOBUF, &written).expect("what is written reads back");
        // Written once more, the bytes are the same: what differs in the text is spelling.
        let mut twice = Vec::new();
        PROTOBUF.encode(again.as_bytes(), &[], &mut twice).expect("and is written");
        assert_eq!(twice.len(), written.len());
    }
}

/// Reads bytes twice, which must give the same JSON.
fn read(schema: &Schema, bytes: &[u8]) -> Option<String> {
    let json = schema.decode(bytes).ok()?;
    assert_eq!(schema.decode(bytes).as_ref(), Ok(&json), "reading again gives the same");
    serde_json::from_str::<serde_json::Value>(&json).expect("what is read is JSON");
    Some(json)
}
