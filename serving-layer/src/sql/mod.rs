//! SQL over views and the master dataset, by DataFusion; read-only and bounded.
//!
//! ```text
//!   <view>            what GET /v1/views/<view> answers: batch ⊕ speed
//!   <source>          newest versions of its readings, up to the batch cut
//!   <source>_history  every archived reading, all versions
//! ```
//!
//! Each table of a statement is read once where it stands in the plan, so a
//! view named twice may be read at two progresses; freshness says the least.

mod condition;
mod dataset_table;
mod failure;
mod memory;
mod rehearsal;
mod shape;
mod statement;
mod threads;
mod view_table;

pub(crate) use memory::Budget;
pub(crate) use rehearsal::rehearse;
pub(crate) use statement::{answer_too_large, run, size_of};
pub(crate) use threads::QueryThreads;
