//! Mergeable state: what both layers compute, and the view partition that merges it.
//!
//! ```text
//!   speed worker ──Delta──▶ ┌───────────────────────────┐
//!                           │ ViewPartition             │──▶ base ⊕ speed, finished
//!   batch layer ──Block───▶ │ base │ segments │ applied │
//!                           └───────────────────────────┘
//! ```
//!
//! Everything here is a pure function of its inputs: no clock, no I/O, no
//! randomness. Values are scaled integers, so the law of the project (batch
//! before the cut ⊕ speed after it = a fold over everything) is an equality.

pub mod aggregate;
mod codec;
mod entry;
mod fingerprint;
mod group;
mod groups;
mod keys;
mod line;
mod partition;
mod position;
mod quarantine;
mod rows;
mod run;
mod series;
mod storage;
mod storage_level;
mod value;
mod watermark;

pub use aggregate::{AggregateFunction, AggregateKind, AggregateState, Takes};
pub use codec::{DecodeError, decode_groups, decode_states, encode_groups, encode_some, encode_states};
pub use entry::{Block, Delta, Difference, Emission, Entry, Extension, Outcome, Windows};
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use group::{GroupId, GroupState, partition_of};
pub use groups::{Coarser, Groups, Parts};
pub use partition::{Moving, Reading, Snapshot, ViewPartition, ViewPartitionConfig, compare};
pub use position::{Cut, LogPartition, Offset, SegmentId, Segments};
pub use quarantine::{Division, Quarantined, Refusal, RefusalCounts, conflict_reason, misplaced_reason};
pub use rows::{GroupedRows, Inputs, KeyColumn, Numbers};
pub use run::{MemoryRuns, Part, RunError, RunGroups, RunStore, SortedRun};
pub use storage::{ParseReplicasError, Replicas, Storage};
pub use storage_level::{ParseStorageLevelError, StorageLevel};
pub use value::{Value, ValueType};
pub use watermark::Watermark;
