//! A compiled schema of either format.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::Mismatch;
use crate::avro::Avro;
use crate::protobuf::Protobuf;

/// A format of records that needs schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Avro, binary.
    Avro,
    /// Protocol Buffers.
    Protobuf,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
        })
    }
}

/// A schema that reads and writes the part of a record after the schema's id.
#[derive(Debug)]
pub struct Schema(Kind);

#[derive(Debug)]
enum Kind {
    Avro(Avro),
    Protobuf(Protobuf),
}

impl Schema {
    /// Compiles a schema. `references` are the schemas that it refers to by name, each after those
    /// that it refers to itself.
    pub fn compile(format: Format, text: &str, references: &[(String, String)]) -> Result<Self, Mismatch> {
        match format {
            Format::Avro => {
                let known: Vec<_> = references.iter().map(|(_, text)| text.clone()).collect();
                Avro::compile(text, &known).map(Kind::Avro).map(Self)
            }
            Format::Protobuf => {
                let imports: BTreeMap<_, _> = references.iter().cloned().collect();
                Protobuf::compile(text, &imports).map(Kind::Protobuf).map(Self)
            }
        }
    }

    /// Reads bytes as one JSON object: the same bytes always as the same text.
    pub fn decode(&self, bytes: &[u8]) -> Result<String, Mismatch> {
        match &self.0 {
            Kind::Avro(avro) => avro.decode(bytes),
            Kind::Protobuf(protobuf) => protobuf.decode(bytes),
        }
    }

    /// Appends the bytes of a JSON object to `out`. What is written reads back as the same values in
    /// all `columns`, or the object is refused; other members may be left out.
    pub fn encode(&self, json: &[u8], columns: &[String], out: &mut Vec<u8>) -> Result<(), Mismatch> {
        let json: Value =
            serde_json::from_slice(json).map_err(|error| Mismatch::new(format!("not JSON: {error}")))?;
        let Value::Object(members) = &json else { return Err(Mismatch::new("not one JSON object")) };
        let lost = |name: &String| members.get(name).is_some_and(|value| !value.is_null());
        let fields = self.fields();
        if let Some(column) = columns.iter().find(|name| lost(name) && !fields.contains(name)) {
            return Err(Mismatch::new(format!("the schema has no field {column}: register one that has it")));
        }
        match &self.0 {
            Kind::Avro(avro) => avro.encode(&json, out),
            Kind::Protobuf(protobuf) => protobuf.encode(members, columns, out),
        }
    }

    fn fields(&self) -> Vec<String> {
        match &self.0 {
            Kind::Avro(avro) => avro.fields().map(str::to_owned).collect(),
            Kind::Protobuf(protobuf) => protobuf.fields(),
        }
    }
}
