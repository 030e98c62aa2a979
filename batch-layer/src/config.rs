//! Configuration of the batch layer.

use std::path::PathBuf;

use sanso_lineage::SchedulerConfig;
use serde::{Deserialize, Serialize};

/// How the batch layer runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Milliseconds between two looks at the log when there was nothing to do.
    pub interval_ms: u64,
    /// Segments of one source that one version may add: bounds memory, since the segments of one log
    /// partition and some dates of the newest-version table are held at once. At least 1.
    pub segments_per_version_max: usize,
    /// Parts of a version, each of one log partition, that a node computes at the same time. At least 1.
    pub tasks_at_once: usize,
    /// Readings that a part of a job that computes new views has at most, but for those of one log partition and date: its
    /// groups are held in memory. It applies in a cluster, and where one of the views may be on disk.
    pub lift_rows_max: u64,
    /// Milliseconds after which a task that takes three times as long as others of its stage is begun at another
    /// node, too.
    pub twin_ms_min: u64,
    /// Bytes of keys and payloads in one read of the log.
    pub read_bytes_max: usize,
    /// Runs that a version waits for the speed layer to reach its cut, so that the audit can compare
    /// every segment, before it is adopted without.
    pub adoption_wait_runs: u32,
    /// Milliseconds between two runs while a version waits to be adopted.
    pub adoption_poll_ms: u64,
    /// Versions of the dataset that are kept readable. At least 2, for readers of the one before.
    pub versions_kept: usize,
    /// Complete segments to keep in the log behind the cut, where the speed layer has read them; none
    /// keeps the whole log.
    pub retain_segments: Option<u64>,
    /// Bytes of rows of the newest-version tables that are kept in memory, over all sources.
    pub blocks_memory_bytes_max: u64,
    /// Bytes of files of them in all spill directories together.
    pub blocks_disk_bytes_max: u64,
    /// Spill directories, one for each disk, for these files and for groups of views; the data folder when empty.
    pub spill_dirs: Vec<PathBuf>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            interval_ms: 5_000,
            segments_per_version_max: 8,
            tasks_at_once: 2,
            lift_rows_max: 1_000_000,
            twin_ms_min: SchedulerConfig::default().twin_ms_min,
            read_bytes_max: 8 << 20,
            adoption_wait_runs: 240,
            adoption_poll_ms: 250,
            versions_kept: 3,
            retain_segments: None,
            blocks_memory_bytes_max: 128 << 20,
            blocks_disk_bytes_max: 1 << 30,
            spill_dirs: Vec::new(),
        }
    }
}
