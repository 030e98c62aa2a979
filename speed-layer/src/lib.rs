//! The speed layer: keeps every live view up to the second.
//!
//! ```text
//!                       ┌──────────── speed layer ────────────┐
//!   log partition 0 ───▶│ worker 0 ─┐   deltas                │
//!   log partition 1 ───▶│ worker 1 ─┼──────────▶ view partitions (core)
//!   log partition … ───▶│ worker …  ┘   late merge            │   │ closed windows
//!                       │   │ newest versions (RocksDB)       │   ▼
//!                       │   └▶ quarantine            emitter ─┼─▶ output topics
//!                       └─────────────────────────────────────┘
//! ```
//!
//! Promised: every offset counts once in every view partition, whatever is
//! killed, replayed or sent twice; a correction retracts on replay what it
//! retracted the first time; the newest content of a closed window is the last
//! and highest in its output topic; nothing is dropped silently.
//!
//! Not promised: misplaced records are quarantined, not yet appended again
//! where they belong; records refused are kept for ever.

mod config;
mod emission;
mod emit;
mod emitted;
mod emitted_record;
mod error;
mod judge;
mod late_merge;
mod limits;
mod metrics;
mod newest;
mod open_index;
mod quarantine;
mod rocks;
mod service;
mod session;
mod task;
mod turn;
mod worker;

pub use config::SpeedConfig;
pub use emit::EmitterHandle;
pub use emitted::EmittedWindow;
pub use error::{Error, Remedy, Result};
pub use late_merge::{Answer, Target};
pub use newest::{Accepted, Commit, MemoryIndex, NewestIndex, Version};
pub use quarantine::{Quarantine, SourceQuarantine};
pub use rocks::{RocksBuild, RocksIndex, RocksShare};
pub use service::{SpeedHandle, SpeedLayer};
pub use turn::Turn;
pub use worker::{Chunk, QuarantineSink, TargetStart, Worker};

#[cfg(test)]
mod tests;
