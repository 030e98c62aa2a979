//! Metrics of the batch layer: names, units and help.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use sanso_block::Counts;

use crate::report::SourceReport;

const AUDIT_SEGMENTS: &str = "sanso_audit_segments_total";
const QUARANTINE_AUDIT: &str = "sanso_audit_quarantine_segments_total";
const SEGMENTS_ARCHIVED: &str = "sanso_batch_segments_archived_total";
const ROWS_ARCHIVED: &str = "sanso_batch_rows_archived_total";
const NEWEST_FILES: &str = "sanso_batch_newest_files_total";
const VERSION_SECONDS: &str = "sanso_batch_version_seconds";
const TASKS: &str = "sanso_batch_tasks_total";
const TASK_SECONDS: &str = "sanso_batch_task_seconds";
const TASKS_MOVED: &str = "sanso_batch_tasks_moved_total";
const RUN_ERRORS: &str = "sanso_batch_run_errors_total";

const BLOCKS_GOT: &str = "sanso_blocks_got_total";
const BLOCKS_LEFT: &str = "sanso_blocks_left_total";
const BLOCKS_REFUSED: &str = "sanso_blocks_refused_total";
const BLOCKS_DAMAGED: &str = "sanso_blocks_damaged_total";

/// Describes all metrics to the recorder installed.
pub(crate) fn describe() {
    describe_counter!(
        AUDIT_SEGMENTS,
        "(segment, view partition) pairs by result of the audit: equal, differing, skipped"
    );
    describe_counter!(
        QUARANTINE_AUDIT,
        "segments by whether both layers refused equally much of them: equal, differing, skipped"
    );
    describe_counter!(SEGMENTS_ARCHIVED, "segments of the log written to the master dataset");
    describe_counter!(ROWS_ARCHIVED, "records written to the master dataset");
    describe_counter!(NEWEST_FILES, "files of the newest-version table by result: rewritten, carried");
    describe_histogram!(VERSION_SECONDS, Unit::Seconds, "duration of the runs that made a version");
    describe_counter!(
        TASKS,
        "tasks that this node was given, by outcome: computed, found (done before), failed"
    );
    describe_histogram!(TASK_SECONDS, Unit::Seconds, "duration of the tasks that this node computed");
    describe_counter!(
        TASKS_MOVED,
        "runs of tasks that this node, driving, began anew, by reason: lost, failed (also refused), slow (a twin), \
         missing (what it gave)"
    );
    describe_counter!(RUN_ERRORS, "runs that failed");
    describe_counter!(BLOCKS_GOT, "blocks asked for, by where they were: memory, disk, shared, nowhere");
    describe_counter!(BLOCKS_LEFT, "blocks that made room for others, by where they went: disk, nowhere");
    describe_counter!(BLOCKS_REFUSED, "blocks not kept, by who refused them: memory, disk");
    describe_counter!(BLOCKS_DAMAGED, "files of blocks that were not what was written");
}

/// Records what a run did.
pub(crate) fn record(source: &str, report: &SourceReport, run_ms: u64) {
    let source = || source.to_owned();
    for (name, audit) in [(AUDIT_SEGMENTS, report.audit), (QUARANTINE_AUDIT, report.quarantine_audit)] {
        for (result, count) in [
            ("equal", audit.compared - audit.differing),
            ("differing", audit.differing),
            ("skipped", audit.skipped),
        ] {
            counter!(name, "source" => source(), "result" => result).increment(count);
        }
    }
    if report.version.is_none() {
        return;
    }
    counter!(SEGMENTS_ARCHIVED, "source" => source()).increment(report.segments.len() as u64);
    counter!(ROWS_ARCHIVED, "source" => source()).increment(report.rows_archived);
    let rewritten = report.newest_rewritten.len() as u64;
    counter!(NEWEST_FILES, "source" => source(), "result" => "rewritten").increment(rewritten);
    counter!(NEWEST_FILES, "source" => source(), "result" => "carried").increment(report.newest_carried);
    histogram!(VERSION_SECONDS, "source" => source()).record(run_ms as f64 / 1e3);
}

/// Records what became of a task at this worker.
pub(crate) fn record_task(source: &str, outcome: &'static str, took_ms: u64) {
    counter!(TASKS, "source" => source.to_owned(), "outcome" => outcome).increment(1);
    if outcome == "computed" {
        histogram!(TASK_SECONDS, "source" => source.to_owned()).record(took_ms as f64 / 1e3);
    }
}

/// Counts a run that begins elsewhere than the one before it.
pub(crate) fn record_moved(source: &str, reason: &'static str) {
    counter!(TASKS_MOVED, "source" => source.to_owned(), "reason" => reason).increment(1);
}

/// Counts a failed run.
pub(crate) fn record_error(source: &str) {
    counter!(RUN_ERRORS, "source" => source.to_owned()).increment(1);
}

/// Records what happened to this node's blocks since it started.
pub(crate) fn record_blocks(counts: &Counts) {
    let named = |name, label, values: &[(&'static str, u64)]| {
        values.iter().for_each(|(value, count)| counter!(name, label => *value).absolute(*count));
    };
    let (memory, disk) = (counts.from_memory, counts.from_disk);
    let got = [("memory", memory), ("disk", disk), ("shared", counts.shared), ("nowhere", counts.missed)];
    named(BLOCKS_GOT, "from", &got);
    let gone = counts.evicted + counts.deleted;
    named(BLOCKS_LEFT, "to", &[("disk", counts.evicted_to_disk), ("nowhere", gone)]);
    named(BLOCKS_REFUSED, "by", &[("memory", counts.refused_by_memory), ("disk", counts.refused_by_disk)]);
    counter!(BLOCKS_DAMAGED).absolute(counts.damaged);
}
