//! Where everything is: all paths of the dataset, in one place.
//!
//! The layout is stable and meant for other tools (DuckDB, Spark, Polars):
//!
//! ```text
//!   {source}/
//!     segments/log_partition=00003/000000000042.parquet
//!         Every record of offsets [42·N, 43·N) of log partition 3 that could be decoded, in offset
//!         order: corrections, duplicates and stale versions included. Written once, never changed.
//!     newest/log_partition=00003/event_date=2026-01-31/{fingerprint}.parquet
//!         The newest version of each reading of that UTC date of event time (`event_date=all` where
//!         the identity does not hold the event time), in order of identity. Replaced, not changed.
//!     quarantine/log_partition=00003/000000000042.parquet
//!         Every record of that segment that was refused: kind, reason, payload. No file where none was.
//!     replays/00000000000000000004.json, 00000000000000000004.done.json
//!         The fourth replay of quarantined records: what it appends; and where it went, once it has.
//!     manifests/00000000000000000017.json
//!         Version 17: the cut, and the complete list of the segment, newest and quarantine files that
//!         are valid.
//!         The highest number is in force. Files it does not list are from other versions.
//!     in_force.json
//!         A version that was in force not long ago: where the search for the newest begins, so that
//!         no listing of the store has to be trusted. It may be deleted.
//!     tasks/00000000000000000018/plan.json, {fingerprint}.json, {fingerprint}.groups, {fingerprint}.piece
//!         What version 18 is to hold, and what each part of the work on it has given so far. Only while
//!         it is being made; may be deleted.
//!     views/{view}/{fingerprint}/versions/00000000000000000017.json
//!         The view's blocks at version 17.
//!     views/{view}/{fingerprint}/blocks/00002/{fingerprint}.groups
//!         View partition 2's groups (the encoding of `sanso_state::encode_groups`).
//! ```
//!
//! Parquet columns: the source's columns as declared (of the quarantine: `kind`, `reason` and the
//! record's own bytes as `payload`), then `_offset` (unsigned 64-bit: the position in the log) and
//! `_append_time` (timestamp, microseconds UTC: when the log took the record).
//! Times are timestamps in microseconds UTC, exact values decimals.
//!
//! Read the whole history, or the newest readings at the version in force, with DuckDB:
//!
//! ```sql
//! SELECT * FROM read_parquet('readings/segments/*/*.parquet');
//!
//! SET VARIABLE files = (SELECT list('readings/' || file.path) FROM (
//!   SELECT unnest(manifest.newest) AS file FROM (
//!     SELECT manifest FROM read_json('readings/manifests/*.json', filename = true)
//!     ORDER BY filename DESC LIMIT 1)));
//! SELECT * FROM read_parquet(getvariable('files'));
//! ```

use chrono::{Days, NaiveDate};
use object_store::path::Path;
use sanso_state::{Fingerprint, LogPartition, SegmentId};

/// Makes the paths of a dataset below a prefix. Source and view names are path segments; what a
/// path can't hold is percent-encoded.
#[derive(Clone, Debug)]
pub struct Layout {
    prefix: Path,
}

impl Layout {
    /// Creates the layout of a dataset whose root is `prefix`.
    pub fn new(prefix: Path) -> Self {
        Self { prefix }
    }

    /// Returns the folder of a source.
    pub fn source(&self, source: &str) -> Path {
        self.prefix.clone().join(source)
    }

    /// Returns the full path of a file listed by a path relative to its source's folder.
    pub fn listed(&self, source: &str, relative: &str) -> Path {
        join(self.source(source), relative)
    }

    /// Returns the path of a segment's file, relative to the source's folder.
    pub fn segment(segment: SegmentId) -> String {
        format!("segments/log_partition={:05}/{:012}.parquet", segment.partition.0, segment.index)
    }

    /// Returns the path of a segment's quarantine, relative to the source's folder.
    pub fn quarantine(segment: SegmentId) -> String {
        format!("quarantine/log_partition={:05}/{:012}.parquet", segment.partition.0, segment.index)
    }

    /// Returns the folder of a source's replays.
    pub fn replays(&self, source: &str) -> Path {
        self.source(source).join("replays")
    }

    /// Returns the path of one replay: what it appends, or where it went.
    pub fn replay(&self, source: &str, number: u64, done: bool) -> Path {
        let done = if done { ".done" } else { "" };
        self.replays(source).join(format!("{number:020}{done}.json"))
    }

    /// Returns the path of a claim to go on with a replay.
    pub fn replay_claim(&self, source: &str, number: u64, claim: u64) -> Path {
        self.replays(source).join(format!("{number:020}.claim-{claim:06}.json"))
    }

    /// Returns the path of a newest-version file, relative to the source's folder.
    pub fn newest(partition: LogPartition, date: Option<i32>, fingerprint: Fingerprint) -> String {
        format!(
            "newest/log_partition={:05}/event_date={}/{fingerprint}.parquet",
            partition.0,
            date_label(date)
        )
    }

    /// Returns the folder of a source's manifests.
    pub fn manifests(&self, source: &str) -> Path {
        self.source(source).join("manifests")
    }

    /// Returns the path of the pointer to the version in force.
    pub fn in_force(&self, source: &str) -> Path {
        self.source(source).join("in_force.json")
    }

    /// Returns the path of one manifest.
    pub fn manifest(&self, source: &str, version: u64) -> Path {
        self.manifests(source).join(version_file(version))
    }

    /// Returns the folder of what is known of versions that are being made.
    pub fn all_tasks(&self, source: &str) -> Path {
        self.source(source).join("tasks")
    }

    /// Returns the path of what a version is to hold.
    pub fn version_plan(&self, source: &str, version: u64) -> Path {
        self.tasks(source, version).join("plan.json")
    }

    /// Returns the path of what a task of a version gave.
    pub fn task(&self, source: &str, version: u64, task: Fingerprint) -> Path {
        self.tasks(source, version).join(format!("{task}.json"))
    }

    /// Returns the path of the groups that a task of a version gave.
    pub fn task_groups(&self, source: &str, version: u64, task: Fingerprint) -> Path {
        self.tasks(source, version).join(format!("{task}.groups"))
    }

    /// Returns the path of a piece that a task of a version gave, where no node keeps it.
    pub fn task_piece(&self, source: &str, version: u64, piece: Fingerprint) -> Path {
        self.tasks(source, version).join(format!("{piece}.piece"))
    }

    /// Returns the folder of what is known of a version that is being made.
    pub fn tasks(&self, source: &str, version: u64) -> Path {
        self.all_tasks(source).join(format!("{version:020}"))
    }

    /// Returns which version a file among the tasks belongs to.
    pub(crate) fn version_of_task(file: &Path) -> Option<u64> {
        file.as_ref().rsplit('/').nth(1)?.parse().ok()
    }

    /// Returns the folder of all view versions of a source.
    pub fn views(&self, source: &str) -> Path {
        self.source(source).join("views")
    }

    /// Returns the folder of one view version.
    pub fn view(&self, source: &str, view: &str, fingerprint: Fingerprint) -> Path {
        self.views(source).join(view).join(fingerprint.to_string())
    }

    /// Returns the folder of the published versions of one view version.
    pub fn published(&self, source: &str, view: &str, fingerprint: Fingerprint) -> Path {
        self.view(source, view, fingerprint).join("versions")
    }

    /// Returns the path of one published version.
    pub fn published_version(
        &self,
        source: &str,
        view: &str,
        fingerprint: Fingerprint,
        version: u64,
    ) -> Path {
        self.published(source, view, fingerprint).join(version_file(version))
    }

    /// Returns the path of a block, relative to the folder of its view version.
    pub fn block(index: u32, content: Fingerprint) -> String {
        format!("blocks/{index:05}/{content}.groups")
    }
}

/// Appends a relative path of several segments.
pub(crate) fn join(base: Path, relative: &str) -> Path {
    relative.split('/').fold(base, |path, segment| path.join(segment))
}

/// Returns the version that a file name of twenty digits stands for.
pub(crate) fn version_of(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}

fn version_file(version: u64) -> String {
    format!("{version:020}.json")
}

/// Writes a date given in days since 1970-01-01 as `2026-01-31`; `all` for none.
pub fn date_label(date: Option<i32>) -> String {
    let Some(days) = date else { return "all".to_owned() };
    let distance = Days::new(u64::from(days.unsigned_abs()));
    let date = if days < 0 {
        NaiveDate::default().checked_sub_days(distance)
    } else {
        NaiveDate::default().checked_add_days(distance)
    };
    // Outside of chrono's years the number itself is still a distinct name.
    date.map_or_else(|| format!("day{days}"), |date| date.format("%Y-%m-%d").to_string())
}
