//! Configuration of the serving layer; every bound of it is here.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Configures the serving layer. Unknown keys are refused; absent ones take
/// their default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Largest request body in bytes; a larger one is refused with 413.
    pub body_bytes_max: usize,
    /// Largest line of an ingested body in bytes; a longer one is refused and the rest goes on.
    pub line_bytes_max: usize,
    /// Lines of an ingested body that are decoded and appended together.
    pub ingest_chunk_lines_max: usize,
    /// Bytes of an ingested body that are decoded and appended together.
    pub ingest_chunk_bytes_max: usize,
    /// Longest pause of a sender within a body, in milliseconds; then 408.
    pub body_stall_ms_max: u64,
    /// Slowest a body may come on average, in bytes a second, beyond one such pause; then 408.
    pub body_bytes_per_s_min: u64,
    /// Groups in memory, of all view partitions, at which ingestion is refused with 503.
    pub view_groups_max: u64,
    /// Bytes on disk of the groups of views that are kept there (`WITH (storage = 'disk')`), in the spill directories.
    pub views_disk_bytes_max: u64,
    /// Memory in bytes for what of them was read last.
    pub views_cache_bytes_max: usize,
    /// Groups of one view partition that are worth a file on disk; fewer stay in memory.
    pub views_run_groups_min: usize,
    /// Memory in bytes that one SQL query may take before it is refused.
    pub query_memory_bytes_max: usize,
    /// Memory in bytes that all SQL queries together may take.
    pub queries_memory_bytes_max: usize,
    /// SQL queries that run at once; further ones wait for their turn within their deadline.
    pub queries_max: usize,
    /// SQL queries that may wait for their turn; further ones are refused with 503.
    pub queries_waiting_max: usize,
    /// Reads of whole views that run at once; further ones wait for their turn within their deadline.
    pub scans_max: usize,
    /// Longest SQL in bytes.
    pub sql_bytes_max: usize,
    /// Memory in bytes of the rows of one answer.
    pub answer_bytes_max: usize,
    /// Threads that SQL queries run on.
    pub query_threads: usize,
    /// Rows of an answer when the caller gives no limit.
    pub rows_default: usize,
    /// Largest limit a caller may give, in rows.
    pub rows_max: usize,
    /// Keys one request may ask for.
    pub keys_max: usize,
    /// Connections open at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, the wait on an
    /// idle connection included, in milliseconds; then it is cut off.
    pub header_ms_max: u64,
    /// How long a client may refuse to take what is sent to it, in milliseconds; then it is cut off.
    pub write_stall_ms_max: u64,
    /// Requests answered at once; further ones are refused with 503.
    pub requests_max: usize,
    /// Live update streams open at once; further ones are refused with 503.
    pub streams_max: usize,
    /// Deadline of a request that gives none, in milliseconds.
    pub deadline_ms: u64,
    /// Longest deadline a caller may give, in milliseconds.
    pub deadline_ms_max: u64,
    /// Shortest time between two updates of one stream, in milliseconds.
    pub stream_interval_ms: u64,
    /// How long the end of the log is remembered for `staleness`, in milliseconds.
    pub staleness_memory_ms: u64,
    /// How often the end of the log is looked up, in milliseconds.
    pub log_end_interval_ms: u64,
    /// How long open requests may go on after a stop is asked for, in milliseconds.
    pub drain_ms_max: u64,
}

impl Default for ServingConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            body_bytes_max: 256 << 20,
            line_bytes_max: 1 << 20,
            ingest_chunk_lines_max: 8192,
            ingest_chunk_bytes_max: 4 << 20,
            body_stall_ms_max: 30_000,
            body_bytes_per_s_min: 1_024,
            view_groups_max: 20_000_000,
            views_disk_bytes_max: 64 << 30,
            views_cache_bytes_max: 64 << 20,
            views_run_groups_min: 4_096,
            query_memory_bytes_max: 256 << 20,
            queries_memory_bytes_max: 512 << 20,
            queries_max: 4,
            queries_waiting_max: 64,
            scans_max: 4,
            sql_bytes_max: 64 << 10,
            answer_bytes_max: 64 << 20,
            query_threads: 2,
            rows_default: 10_000,
            rows_max: 1_000_000,
            keys_max: 1_000,
            connections_max: 1_024,
            header_ms_max: 30_000,
            write_stall_ms_max: 30_000,
            requests_max: 512,
            streams_max: 256,
            deadline_ms: 5_000,
            deadline_ms_max: 60_000,
            stream_interval_ms: 100,
            staleness_memory_ms: 60_000,
            log_end_interval_ms: 250,
            drain_ms_max: 3_000,
        }
    }
}

impl ServingConfig {
    /// Returns the deadline of a request that gives none.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}
