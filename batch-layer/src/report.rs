//! What a run did, so that tests and people can see that nothing was computed twice.

use std::collections::BTreeMap;

use sanso_catalog::AuditCounts;
use sanso_state::{LogPartition, RefusalCounts, SegmentId};

/// What one run did, by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// The sources that were looked at.
    pub sources: BTreeMap<String, SourceReport>,
}

impl RunReport {
    /// Says whether another run can do more at once, without new records.
    pub fn has_backlog(&self) -> bool {
        self.sources.values().any(|report| report.backlog)
    }

    /// Says whether a version waits for the speed layer before it is adopted.
    pub fn is_waiting(&self) -> bool {
        self.sources.values().any(|report| report.waiting > 0)
    }
}

/// What one run did for one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// The version made by this run; none when there was no new segment.
    pub version: Option<u64>,
    /// The segments archived.
    pub segments: Vec<SegmentId>,
    /// Rows written to segments.
    pub rows_archived: u64,
    /// Records written to the quarantine, by kind.
    pub refused: RefusalCounts,
    /// The files of the newest-version table that were made anew, by log partition and date.
    pub newest_rewritten: Vec<(LogPartition, Option<i32>)>,
    /// The files of the newest-version table that were carried by reference.
    pub newest_carried: u64,
    /// Contributions computed: (view, segment) pairs.
    pub contributions: u64,
    /// Blocks of view partitions written, and carried by reference.
    pub blocks: (u64, u64),
    /// Views that were computed from the whole newest-version table.
    pub recomputed: Vec<String>,
    /// View partitions that adopted a version in this run.
    pub adopted: u64,
    /// View partitions whose adoption waits for the speed layer.
    pub waiting: u64,
    /// What the audit compared in this run.
    pub audit: AuditCounts,
    /// What of the quarantine was compared in this run, by segment.
    pub quarantine_audit: AuditCounts,
    /// Whether more complete segments wait.
    pub backlog: bool,
}
