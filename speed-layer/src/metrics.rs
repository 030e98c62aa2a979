//! The speed layer's metrics.

use metrics::{
    Counter, Gauge, Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use sanso_catalog::RecordCounts;
use sanso_state::LogPartition;

/// Records judged, by source, log partition and verdict.
pub(crate) const RECORDS: &str = "sanso_speed_records_total";
/// The first offset not yet judged, by source and log partition.
pub(crate) const POSITION: &str = "sanso_speed_position";
/// Offsets in the log not yet judged, by source and log partition.
pub(crate) const LAG: &str = "sanso_speed_lag";
/// Deltas accepted, by source and log partition.
pub(crate) const DELTAS: &str = "sanso_speed_deltas_total";
/// Deltas refused, by source and log partition.
pub(crate) const REFUSED: &str = "sanso_speed_deltas_refused_total";
/// Offsets read again after a refusal, by source and log partition.
pub(crate) const REWOUND: &str = "sanso_speed_rewound_offsets_total";
/// Seconds from reading a chunk to its deltas' acknowledgement.
pub(crate) const FLUSH_SECONDS: &str = "sanso_speed_flush_seconds";
/// Closed windows written to output topics, by view.
pub(crate) const EMITTED: &str = "sanso_speed_windows_emitted_total";
/// Times an index of newest versions was rebuilt, by source and log partition.
pub(crate) const REBUILT: &str = "sanso_speed_index_rebuilt_total";

/// Describes the metrics to the recorder in use.
pub(crate) fn describe() {
    describe_counter!(RECORDS, Unit::Count, "Records judged, by source, log partition and verdict.");
    describe_gauge!(POSITION, Unit::Count, "First offset not yet judged, by source and log partition.");
    describe_gauge!(LAG, Unit::Count, "Offsets in the log not yet judged, by source and log partition.");
    describe_counter!(DELTAS, Unit::Count, "Deltas that view partitions accepted.");
    describe_counter!(REFUSED, Unit::Count, "Deltas that view partitions refused.");
    describe_counter!(REWOUND, Unit::Count, "Offsets read again after a refusal.");
    describe_histogram!(FLUSH_SECONDS, Unit::Seconds, "From reading a chunk to its acknowledgement.");
    describe_counter!(EMITTED, Unit::Count, "Closed windows written to output topics, by view.");
    describe_counter!(REBUILT, Unit::Count, "Times an index of newest versions was rebuilt.");
}

/// The metrics of one worker.
pub(crate) struct WorkerMetrics {
    labels: Vec<Label>,
    pub(crate) position: Gauge,
    pub(crate) lag: Gauge,
    pub(crate) deltas: Counter,
    pub(crate) refused: Counter,
    pub(crate) rewound: Counter,
    pub(crate) rebuilt: Counter,
    pub(crate) flush_seconds: Histogram,
    counted: RecordCounts,
}

impl WorkerMetrics {
    /// Creates the metrics of a worker whose index has counted this much already.
    pub(crate) fn new(source: &str, partition: LogPartition, counted: RecordCounts) -> Self {
        let labels =
            vec![Label::new("source", source.to_owned()), Label::new("partition", partition.to_string())];
        Self {
            position: gauge!(POSITION, labels.clone()),
            lag: gauge!(LAG, labels.clone()),
            deltas: counter!(DELTAS, labels.clone()),
            refused: counter!(REFUSED, labels.clone()),
            rewound: counter!(REWOUND, labels.clone()),
            rebuilt: counter!(REBUILT, labels.clone()),
            flush_seconds: histogram!(FLUSH_SECONDS, labels.clone()),
            labels,
            counted,
        }
    }

    /// Counts what was judged since the last call.
    pub(crate) fn count(&mut self, counts: &RecordCounts) {
        let before = std::mem::replace(&mut self.counted, *counts);
        let verdicts = [
            ("new", counts.new - before.new),
            ("correction", counts.corrections - before.corrections),
            ("duplicate", counts.duplicates - before.duplicates),
            ("conflict", counts.conflicts - before.conflicts),
            ("stale", counts.stale - before.stale),
            ("undecodable", counts.undecodable - before.undecodable),
            ("misplaced", counts.misplaced - before.misplaced),
            ("late", counts.late - before.late),
        ];
        for (verdict, count) in verdicts.into_iter().filter(|(_, count)| *count > 0) {
            let mut labels = self.labels.clone();
            labels.push(Label::new("verdict", verdict));
            counter!(RECORDS, labels).increment(count);
        }
    }
}
