//! Archiving: complete segments of the log become files of the master dataset.

mod plan;
mod writer;

pub(crate) use plan::{ArchivePlan, plan};
pub use writer::archived_rows;
pub(crate) use writer::{archive, blocking, fetch_conflicts};
