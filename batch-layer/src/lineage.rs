//! Lineage: which parts of the newest-version table depend on which segments. Pure.
//!
//! ```text
//!   segments of log partition l      newest files of l
//!     l/7 ──────┬──────────────────▶ 2026-01-30   rewritten
//!     l/8 ──────┘      └───────────▶ 2026-01-31   rewritten
//!                                    2025-12-01   carried
//! ```
//!
//! A file's fingerprint covers the file before it, the segments applied to it, and the rules by
//! which they are applied. Equal fingerprint means equal content.

use std::collections::BTreeMap;

use sanso_dataset::{Manifest, NewestFile};
use sanso_state::{Fingerprint, FingerprintBuilder, LogPartition, SegmentId};
use sanso_view::Source;

/// Raised when the newest rule or the table's order changes, so that no old file is taken for new.
const TABLE_VERSION: &str = "newest 1";
/// Microseconds in a day.
const DAY_US: i64 = 86_400_000_000;

/// How a source's newest-version table is made: everything but the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRules {
    /// The columns as `name type`.
    pub(crate) columns: Vec<String>,
    /// Partitioning, identity and version, in words.
    pub(crate) rules: String,
    /// Whether a reading never moves to another date, so that the table can be divided by date.
    dated: bool,
}

impl TableRules {
    /// Returns the rules of a source.
    pub(crate) fn of(source: &Source) -> Self {
        let names = |indexes: &[usize]| {
            let names: Vec<_> = indexes.iter().map(|&index| source.columns[index].name.as_str()).collect();
            names.join(", ")
        };
        let columns = source.columns.iter().map(|column| {
            let null = if column.nullable { "" } else { " not null" };
            format!("{} {}{null}", column.name, column.value_type)
        });
        let version = source.version_column.map_or_else(|| "offset".to_owned(), |column| names(&[column]));
        let rules = format!(
            "partitions {}; segment {}; key {}; identity {}; version {version}; event time {}; ignored {}",
            source.partitions,
            source.segment_size,
            names(&[source.key_column]),
            names(&source.identity_columns),
            names(&[source.event_time_column]),
            names(&source.ignored_columns),
        );
        Self {
            columns: columns.collect(),
            rules,
            dated: source.identity_columns.contains(&source.event_time_column),
        }
    }

    /// Returns the UTC date, in days since 1970-01-01, under which a row with this event time is kept;
    /// none for all rows where the identity does not hold the event time.
    pub(crate) fn date_of(&self, event_us: i64) -> Option<i32> {
        self.dated.then(|| event_us.div_euclid(DAY_US) as i32)
    }

    /// Describes the rules in one line, for comparison and for people.
    pub(crate) fn describe(columns: &[String], rules: &str) -> String {
        format!("{}; {rules}", columns.join(", "))
    }
}

/// The segments that touch a date, with the fingerprints of their files.
pub(crate) type Touched = BTreeMap<Option<i32>, Vec<(SegmentId, Fingerprint)>>;

/// What becomes of one log partition's part of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TablePlan {
    /// The files to make anew.
    pub(crate) tasks: Vec<TableTask>,
    /// The files that no new segment touches.
    pub(crate) carried: Vec<NewestFile>,
}

/// One file to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableTask {
    /// The date.
    pub(crate) date: Option<i32>,
    /// The file before, if the date has one.
    pub(crate) previous: Option<NewestFile>,
    /// The segments to apply, in order.
    pub(crate) segments: Vec<SegmentId>,
    /// The fingerprint of all of it.
    pub(crate) fingerprint: Fingerprint,
}

/// Plans one log partition's part of the table. `files`: the version before.
pub(crate) fn plan_table(
    rules: &TableRules,
    partition: LogPartition,
    files: &[NewestFile],
    touched: &Touched,
) -> TablePlan {
    let mine = files.iter().filter(|file| file.partition == partition);
    let (stale, carried): (Vec<_>, Vec<_>) = mine.cloned().partition(|file| touched.contains_key(&file.date));
    let mut stale: BTreeMap<_, _> = stale.into_iter().map(|file| (file.date, file)).collect();
    let tasks = touched.iter().map(|(&date, segments)| {
        let previous = stale.remove(&date);
        TableTask {
            date,
            fingerprint: fingerprint(rules, partition, date, previous.as_ref(), segments),
            previous,
            segments: segments.iter().map(|(segment, _)| *segment).collect(),
        }
    });
    TablePlan { tasks: tasks.collect(), carried }
}

fn fingerprint(
    rules: &TableRules,
    partition: LogPartition,
    date: Option<i32>,
    previous: Option<&NewestFile>,
    segments: &[(SegmentId, Fingerprint)],
) -> Fingerprint {
    let mut builder = Fingerprint::builder()
        .part(TABLE_VERSION)
        .part(TableRules::describe(&rules.columns, &rules.rules))
        .part(partition.0.to_le_bytes())
        .part(sanso_dataset::date_label(date))
        .part(previous.map_or_else(Vec::new, |file| file.fingerprint.as_bytes().to_vec()));
    for (segment, content) in segments {
        builder = builder.part(segment.index.to_le_bytes()).part(content.as_bytes());
    }
    builder.finish()
}

/// Raised when what a task gives changes, so that nodes of different programs don't share results.
const TASKS_VERSION: &str = "tasks 1";

/// Returns the fingerprint of all that a log partition's part of a version is made from, with what it
/// contributes to views.
pub(crate) fn advance_fingerprint(
    source: &Source,
    before: &Manifest,
    partition: LogPartition,
    segments: &[SegmentId],
    views: &[Fingerprint],
) -> Fingerprint {
    let watermark =
        before.watermarks[partition.index()].map_or_else(Vec::new, |us| us.to_le_bytes().to_vec());
    let segments = segments.iter().flat_map(|segment| segment.index.to_le_bytes());
    let begun = begun("advance", source, views)
        .part(source.lateness_us.to_le_bytes())
        .part(source.ahead_us_max.to_le_bytes())
        .part(watermark)
        .part(segments.collect::<Vec<_>>());
    of_files(begun, before, partition).finish()
}

/// Returns the fingerprint of all that a lift of log partitions' newest rows into views is made from. `kind`: what
/// it gives.
pub(crate) fn lift_fingerprint(
    kind: &str,
    source: &Source,
    manifest: &Manifest,
    partitions: &[LogPartition],
    views: &[Fingerprint],
) -> Fingerprint {
    let begun = begun(kind, source, views);
    partitions.iter().fold(begun, |begun, partition| of_files(begun, manifest, *partition)).finish()
}

/// Returns the fingerprint of all that a lift of some files of newest rows into views is made from.
pub(crate) fn slice_fingerprint(
    source: &Source,
    files: &[&NewestFile],
    views: &[Fingerprint],
) -> Fingerprint {
    with_files(begun("slice", source, views), files.iter().copied()).finish()
}

/// Returns the fingerprint of what the pieces of some tasks are together, for one view partition.
pub(crate) fn combine_fingerprint(
    source: &Source,
    index: u32,
    of: &[Fingerprint],
    views: &[Fingerprint],
) -> Fingerprint {
    let begun = begun("combine", source, views).part(index.to_le_bytes());
    of.iter().fold(begun, |begun, task| begun.part(task.as_bytes())).finish()
}

fn begun(kind: &str, source: &Source, views: &[Fingerprint]) -> FingerprintBuilder {
    let rules = TableRules::of(source);
    let views: Vec<u8> = views.iter().flat_map(|view| *view.as_bytes()).collect();
    Fingerprint::builder()
        .part(TASKS_VERSION)
        .part(TABLE_VERSION)
        .part(kind)
        .part(&source.name)
        .part(TableRules::describe(&rules.columns, &rules.rules))
        .part(views)
}

fn of_files(begun: FingerprintBuilder, manifest: &Manifest, partition: LogPartition) -> FingerprintBuilder {
    let mine = manifest.newest.iter().filter(|file| file.partition == partition);
    with_files(begun.part(partition.0.to_le_bytes()), mine)
}

fn with_files<'a>(
    begun: FingerprintBuilder,
    files: impl Iterator<Item = &'a NewestFile>,
) -> FingerprintBuilder {
    files.fold(begun, |begun, file| begun.part(file.path.as_bytes()).part(file.content.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> TableRules {
        TableRules { columns: vec!["a text".into()], rules: "key a".into(), dated: true }
    }

    fn file(partition: u32, date: i32) -> NewestFile {
        let fingerprint = Fingerprint::of(&[partition as u8, date as u8]);
        NewestFile {
            partition: LogPartition(partition),
            date: Some(date),
            rows: 1,
            bytes: 1,
            fingerprint,
            content: fingerprint,
            path: String::new(),
        }
    }

    fn touch(date: i32, index: u64) -> Touched {
        let segment = SegmentId { partition: LogPartition(0), index };
        [(Some(date), vec![(segment, Fingerprint::of(b"segment"))])].into()
    }

    #[test]
    fn only_the_dates_that_a_segment_touches_are_made_anew() {
        let files = [file(0, 1), file(0, 2), file(1, 2)];
        let plan = plan_table(&rules(), LogPartition(0), &files, &touch(2, 0));
        assert_eq!(plan.carried, vec![file(0, 1)]);
        assert_eq!(plan.tasks.len(), 1);
        assert_eq!(plan.tasks[0].previous, Some(file(0, 2)));
    }

    #[test]
    fn a_fingerprint_depends_on_everything_a_file_is_made_from() {
        let plan = |rules: &TableRules, files: &[NewestFile], touched| {
            plan_table(rules, LogPartition(0), files, &touched).tasks[0].fingerprint
        };
        let base = plan(&rules(), &[file(0, 2)], touch(2, 0));
        assert_eq!(base, plan(&rules(), &[file(0, 2), file(0, 7)], touch(2, 0)));
        let other = TableRules { rules: "key b".into(), ..rules() };
        assert_ne!(base, plan(&other, &[file(0, 2)], touch(2, 0)), "rules");
        assert_ne!(base, plan(&rules(), &[], touch(2, 0)), "the file before");
        assert_ne!(base, plan(&rules(), &[file(0, 2)], touch(2, 1)), "segments");
        assert_ne!(base, plan(&rules(), &[file(0, 2)], touch(3, 0)), "date");
    }

    #[test]
    fn a_date_before_1970_is_a_date_like_any_other() {
        assert_eq!(rules().date_of(-1), Some(-1));
        assert_eq!(rules().date_of(DAY_US - 1), Some(0));
        assert_eq!(TableRules { dated: false, ..rules() }.date_of(5), None);
    }
}
