//! Protobuf: the registered `.proto` text compiled once, then bytes ⇄ JSON by its descriptors.
//!
//! Field names are those of the `.proto`. `google.protobuf.Timestamp` is an RFC 3339 text,
//! `confluent.type.Decimal` an exact number, `google.type.Date` a date. A field without presence
//! that is not in the bytes has its default, as Protobuf says; one with presence is null.

mod decode;
mod encode;

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, MessageDescriptor, prost::Message};
use protox::file::{File, FileResolver, GoogleFileResolver};
use serde_json::{Map, Value};

use crate::Mismatch;
use crate::frame::{put_zigzag, take_zigzag};

/// The name under which the registered text is compiled.
const FILE: &str = "registered.proto";
/// How deep a message within a file may be named.
const INDEXES_MAX: i64 = 32;
/// What Confluent's serializers bring along, so that no registry has it.
const BUNDLED: [(&str, &str); 2] = [
    (
        "confluent/type/decimal.proto",
        "syntax = \"proto3\"; package confluent.type;
         message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
    ),
    (
        "google/type/date.proto",
        "syntax = \"proto3\"; package google.type;
         message Date { int32 year = 1; int32 month = 2; int32 day = 3; }",
    ),
];

/// A compiled file.
#[derive(Debug)]
pub(crate) struct Protobuf {
    messages: Vec<MessageDescriptor>,
}

impl Protobuf {
    /// Compiles the text of a `.proto` file; `imports` are the files that it and they refer to, by name.
    pub(crate) fn compile(text: &str, imports: &BTreeMap<String, String>) -> Result<Self, Mismatch> {
        let broken = |error: protox::Error| Mismatch::new(format!("the Protobuf schema is broken: {error}"));
        let mut files = imports.clone();
        files.insert(FILE.to_owned(), text.to_owned());
        let mut compiler = protox::Compiler::with_file_resolver(Files(files));
        compiler.include_imports(true).open_file(FILE).map_err(broken)?;
        let pool = compiler.descriptor_pool();
        let file =
            pool.get_file_by_name(FILE).ok_or_else(|| Mismatch::new("the Protobuf schema is empty"))?;
        Ok(Self { messages: file.messages().collect() })
    }

    /// Reads message indexes and the message as a JSON object.
    pub(crate) fn decode(&self, mut bytes: &[u8]) -> Result<String, Mismatch> {
        let descriptor = self.message(&take_indexes(&mut bytes)?)?;
        let message = DynamicMessage::decode(descriptor, bytes)
            .map_err(|error| Mismatch::new(format!("the bytes do not match the Protobuf schema: {error}")))?;
        let mut out = String::new();
        decode::object(&message, &mut out)?;
        Ok(out)
    }

    /// Writes a JSON object as the file's first message. Members that it does not have are left out;
    /// of `columns` none may be null that would read back as a default.
    pub(crate) fn encode(
        &self,
        json: &Map<String, Value>,
        columns: &[String],
        out: &mut Vec<u8>,
    ) -> Result<(), Mismatch> {
        let message = encode::message(&self.message(&[0])?, json, columns)?;
        put_zigzag(0, out);
        out.extend(message.encode_to_vec());
        Ok(())
    }

    /// Returns the names of the first message's fields.
    pub(crate) fn fields(&self) -> Vec<String> {
        self.messages.first().map(|m| m.fields().map(|f| f.name().to_owned()).collect()).unwrap_or_default()
    }

    fn message(&self, indexes: &[usize]) -> Result<MessageDescriptor, Mismatch> {
        let unknown = || Mismatch::new(format!("the Protobuf schema has no message at {indexes:?}"));
        let (&first, nested) = indexes.split_first().ok_or_else(unknown)?;
        let message = self.messages.get(first).cloned().ok_or_else(unknown)?;
        nested
            .iter()
            .try_fold(message, |message, &index| message.child_messages().nth(index).ok_or_else(unknown))
    }
}

/// Reads which message of the file follows: a count and so many indexes, or 0 for the first.
fn take_indexes(bytes: &mut &[u8]) -> Result<Vec<usize>, Mismatch> {
    let count = take_zigzag(bytes)?;
    match count {
        0 => Ok(vec![0]),
        1..=INDEXES_MAX => (0..count)
            .map(|_| {
                let index = take_zigzag(bytes)?;
                usize::try_from(index).map_err(|_| Mismatch::new(format!("found the message index {index}")))
            })
            .collect(),
        _ => Err(Mismatch::new(format!("found {count} message indexes, expected at most {INDEXES_MAX}"))),
    }
}

/// The files of a schema, by name; then what is bundled with every compiler.
struct Files(BTreeMap<String, String>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if let Some(text) = self.0.get(name) {
            return File::from_source(name, text);
        }
        match BUNDLED.iter().find(|(bundled, _)| *bundled == name) {
            Some((_, text)) => File::from_source(name, text),
            None => GoogleFileResolver::new().open_file(name),
        }
    }
}

#[cfg(test)]
mod tests;
