//! The speed layer's configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Configures the speed layer. [`SpeedConfig::new`] gives the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeedConfig {
    /// The directory of the indexes, the quarantine and the record of emissions;
    /// not a setting, but where the node keeps its data.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The least time between two flushes of one worker, in milliseconds. A
    /// record that comes after a pause this long is flushed at once.
    pub flush_ms: u64,
    /// The number of offsets after which a worker flushes whatever the time.
    pub flush_rows: u64,
    /// How long a log partition must be quiet before it no longer holds
    /// watermarks back, in milliseconds.
    pub idle_after_ms: u64,
    /// How often an idle pair exchanges an empty delta, in milliseconds.
    pub heartbeat_ms: u64,
    /// The largest number of records read at once.
    pub chunk_records_max: usize,
    /// The largest number of bytes read at once.
    pub chunk_bytes_max: usize,
    /// The largest number of closed deltas waiting for one view partition; it
    /// then falls behind and is caught up by reading again.
    pub queue_max: usize,
    /// The memory of the block cache that all indexes share, in bytes.
    pub index_cache_bytes_max: usize,
    /// The memory of what is written to the indexes and not yet flushed to disk,
    /// of all of them together, in bytes; beyond it the oldest is flushed.
    pub index_write_bytes_max: usize,
    /// How often superseded versions below the floor are removed from the
    /// index, in milliseconds.
    pub collapse_every_ms: u64,
    /// How long a worker waits before it tries a failed call again, in milliseconds.
    pub retry_ms: u64,
}

impl SpeedConfig {
    /// Creates a configuration with the default timings.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            flush_ms: 50,
            flush_rows: 65_536,
            idle_after_ms: 10_000,
            heartbeat_ms: 1_000,
            chunk_records_max: 8_192,
            chunk_bytes_max: 4 << 20,
            queue_max: 8,
            index_cache_bytes_max: 64 << 20,
            index_write_bytes_max: 64 << 20,
            collapse_every_ms: 600_000,
            retry_ms: 500,
        }
    }
}

impl Default for SpeedConfig {
    fn default() -> Self {
        Self::new("")
    }
}
