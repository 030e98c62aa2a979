//! The master dataset: every reading ever archived, as plain files in an object store.
//!
//! ```text
//!   archiver ──Parquet──▶ segments/…          every record, by (log partition, segment)
//!   advance ───Parquet──▶ newest/…            newest version of each reading, by (log partition, date)
//!            ──JSON─────▶ manifests/…         version k: cut, watermarks, list of all files above
//!           ───Parquet──▶ quarantine/…        every record refused, by (log partition, segment)
//!   publish ───blocks───▶ views/…             version k of a view: one block per view partition
//!   workers ────────────▶ tasks/…             what is done of a version that is being made
//! ```
//!
//! A version exists when its manifest exists, and a manifest is written last, in
//! one step that fails if the number is taken. So a crash between any two writes
//! leaves the version before it in force; what was written for nothing is written
//! again by the next version, or deleted by [`Dataset::remove_unreferenced`].
//! What an object store lists may lag behind what it holds, so nothing that must be
//! right is decided by a listing: it only finds what may be deleted.
//!
//! Promised: the layout ([`Layout`]) is stable, and any Parquet reader can read it;
//! a file that is not what was written is refused with its name, never half-read;
//! on a local directory a file is on disk (fsync) before the call returns.
//!
//! A handle may keep what it writes and reads of the newest-version tables at hand, as blocks of this
//! node ([`Dataset::with_blocks`]).
//!
//! Not promised: two processes writing one source (the second gets
//! [`DatasetError::VersionTaken`]); protection of a read through another tool,
//! which does not check fingerprints, only what Parquet itself checks.

mod blocks;
mod dataset;
mod error;
mod in_force;
mod kept;
mod layout;
mod manifest;
mod newest;
mod open;
mod parquet_file;
mod pieces;
mod quarantine;
mod replays;
mod schema;
mod segment;
mod tasks;

pub use blocks::{BlockFile, PublishedBlock, PublishedView, ViewId};
pub use dataset::Dataset;
pub use error::{DatasetError, Result};
pub use layout::{Layout, date_label};
pub use manifest::{Manifest, NewestFile, SegmentFile};
pub use newest::{NewestBase, NewestColumns};
pub use open::{Credentials, DatasetConfig};
pub use pieces::{Piece, PieceId, Sought};
pub use quarantine::QuarantineFile;
pub use replays::{ReplayClaim, ReplayDone, ReplayPlan, ReplayRecord};
pub use schema::{
    APPEND_TIME_COLUMN, OFFSET_COLUMN, append_times, archived_schema, offsets, source_columns,
    with_log_columns,
};
pub use tasks::{TaskGroups, TaskRecord, VersionPlan};

#[cfg(test)]
mod quarantine_tests;
#[cfg(test)]
mod tests;
