//! The log: where every reading goes first, and what both layers read.
//!
//! ```text
//!   ingest, files ──append──▶ ┌────────────── log ──────────────┐ ──read──▶ speed worker
//!   closed windows ─append──▶ │ topic ─▶ partition 0, 1, … P-1  │ ──read──▶ archiver
//!                             └─────────────────────────────────┘
//!
//!   one partition     start                                   end
//!                       │ r │ r │   │ r │ r │ r │   │ r │ r │  │
//!   offsets      trimmed│100│101│hole│103│104│ …             committed, durable
//! ```
//!
//! [`Log`] is the one interface. [`MemoryLog`] is for simulation and tests, [`EmbeddedLog`] keeps
//! topics durably on local disk, [`KafkaLog`] talks to an Apache Kafka cluster. All three pass the
//! suite in [`contract`]. [`open`] picks one from an address.
//!
//! Promised: records of a partition are totally ordered by offset; an acknowledged append is
//! durable as the implementation says; a read never shows what isn't committed; a reader that fell
//! behind what is kept is told so, never moved silently; what fails its checksum is refused.
//!
//! Not promised: order across partitions, deduplication of an append repeated by its caller after
//! an error, offsets without holes.

mod blocking;
pub mod contract;
mod embedded;
mod error;
mod kafka;
mod log;
mod memory;
mod open;
mod partitioner;
mod record;
mod take;

#[doc(hidden)]
pub use embedded::inspect;
pub use embedded::{Durability, EmbeddedConfig, EmbeddedLog, EmbeddedStats};
pub use error::{LogError, Result, Retry};
pub use kafka::{KafkaLog, without_secrets};
pub use log::Log;
pub use memory::MemoryLog;
pub use open::{open, open_with};
pub use partitioner::{murmur2, partition_for_key};
pub use record::{Append, Batch, LogUse, Record, TopicSpec};
