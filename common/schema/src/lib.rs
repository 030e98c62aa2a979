//! Schemas of records: Avro and Protobuf in, canonical JSON out, and back.
//!
//! ```text
//!   topic of the log                                       layers (speed, batch, serving)
//!   0 │ id │ Avro              ──read──▶  [`TranscodingLog`]  ──▶  {"usage_point":"M1", …}
//!   0 │ id │ indexes │ Protobuf ◀─append──       │            ◀──  {"usage_point":"M1", …}
//!                                               ▼ id ─▶ schema, immutable
//!                                          [`Registry`]  (HTTP, Confluent-compatible)
//! ```
//!
//! The layers know JSON only. What a record reads as depends on its bytes and on the schema of its
//! id, and a registry never gives an id another schema, so that reading again gives the same.
//!
//! Promised: numbers are exact (decimals in full; floats as the shortest text that reads back as the
//! same), hostile bytes are refused within bounded memory and depth, a registry out of reach holds
//! readers and skips nothing.
//!
//! Not promised: that undeclared fields of a JSON line that the schema does not have are kept.

mod avro;
mod error;
mod frame;
mod number;
mod protobuf;
mod registry;
mod schema;
mod transcoding;

pub use error::{Mismatch, RegistryError};
pub use registry::{Registry, RegistryConfig};
pub use schema::{Format, Schema};
pub use transcoding::{TopicFormat, TranscodingLog};
