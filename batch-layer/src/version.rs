//! Makes one version: each log partition's part of it, and the manifest of all parts.
//!
//! A file of the newest-version table that is damaged or gone is made again from its lineage, the
//! segments of its log partition. The same rows make the same bytes, so the manifest stays true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use futures::{StreamExt, TryStreamExt, stream};
use sanso_block::Reading;
use sanso_block::recovery::{Taken, Way};
use sanso_dataset::{DatasetError, Manifest, NewestFile, QuarantineFile, SegmentFile, append_times};
use sanso_state::{LogPartition, Quarantined, SegmentId, Watermark};
use sanso_view::{Source, View};

use crate::advance::{Conflict, Effects, advance};
use crate::archive::{ArchivePlan, archive, blocking, fetch_conflicts};
use crate::contribution::contributions;
use crate::error::{BatchError, Result};
use crate::lineage::{TableRules, TableTask, Touched, plan_table};
use crate::report::SourceReport;
use crate::task::{Given, Means, TaskResult};

/// Dates of the newest-version table that are advanced at the same time.
const DATES_AT_ONCE: usize = 8;

/// Puts the parts of a version together, and says what they did. Pure: whoever made which part, in
/// whatever order, the manifest is the same.
pub(crate) fn assembled(
    before: &Manifest,
    plan: ArchivePlan,
    parts: &[Arc<TaskResult>],
    report: &mut SourceReport,
) -> Manifest {
    let advanced = |partition| plan.segments.iter().any(|segment| segment.partition == partition);
    let untouched = before.newest.iter().filter(|file| !advanced(file.partition)).cloned();
    let mut newest: Vec<NewestFile> = untouched.collect();
    report.newest_carried = newest.len() as u64;
    let (mut segments, mut quarantine) = (before.segments.clone(), before.quarantine.clone());
    let mut watermarks = before.watermarks.clone();
    for part in parts {
        report.rows_archived += part.archived.iter().map(|file| file.rows).sum::<u64>();
        report.newest_carried += part.carried.len() as u64;
        report.newest_rewritten.extend(part.rewritten.iter().map(|file| (file.partition, file.date)));
        part.quarantine.iter().for_each(|file| report.refused.add(&file.counts));
        if let Some(file) = part.archived.first() {
            watermarks[file.segment.partition.index()] = part.max_event_us;
        }
        segments.extend(part.archived.iter().cloned());
        quarantine.extend(part.quarantine.iter().cloned());
        newest.extend(part.carried.iter().chain(&part.rewritten).cloned());
    }
    segments.sort_by_key(|file| file.segment);
    quarantine.sort_by_key(|file| file.segment);
    newest.sort_by_key(|file| (file.partition, file.date));
    report.segments = plan.segments;
    Manifest {
        version: before.version + 1,
        cut: plan.cut,
        watermarks,
        rows: newest.iter().map(|file| file.rows).sum(),
        segments,
        newest,
        quarantine_from: Some(before.division().from),
        quarantine,
        ..before.clone()
    }
}

/// Archives a log partition's planned segments, advances its part of the newest-version table over them,
/// and computes what each contributes to each view. In memory: those segments' rows, what was refused of
/// them, and some dates' parts of the table.
pub(crate) async fn advance_partition(
    means: Means<'_>,
    before: &Manifest,
    partition: LogPartition,
    segments: &[SegmentId],
    views: &[Arc<View>],
) -> Result<TaskResult> {
    let mut archived = Vec::with_capacity(segments.len());
    let mut refused: BTreeMap<SegmentId, Vec<Quarantined>> = BTreeMap::new();
    for &segment in segments {
        let done = archive(means.log, means.dataset, means.source, segment, means.read_bytes_max).await?;
        archived.push(done.file);
        refused.insert(segment, done.refused);
    }
    let mut max_event_us = before.watermarks[partition.index()];
    let started = Instant::now();
    let Part { carried, rewritten, effects, conflicts, read } =
        advance_table(means, before, partition, &mut archived, &mut max_event_us).await?;
    let bytes = archived.iter().map(|file| file.bytes).sum();
    let earlier = before.segments.iter().filter(|file| file.segment.partition == partition);
    let all_bytes = bytes + earlier.map(|file| file.bytes).sum::<u64>();
    means.dataset.observe_computed(&means.source.name, partition, bytes, started.elapsed(), all_bytes);
    for (segment, conflicts) in conflicts {
        add_conflicts(means, segment, refused.entry(segment).or_default(), conflicts).await?;
    }
    let mut quarantine: Vec<QuarantineFile> = Vec::new();
    for (segment, records) in refused {
        quarantine.extend(means.dataset.put_quarantine(&means.source.name, segment, &records).await?);
    }
    let views = views.to_vec();
    let given = blocking(move || {
        let of_view = |view: &Arc<View>| {
            let given = |done: crate::contribution::Contribution| Given {
                view: view.fingerprint,
                segment: Some(done.segment),
                parts: done.parts,
            };
            contributions(view, &effects).into_iter().map(given).collect::<Vec<_>>()
        };
        views.iter().flat_map(of_view).collect()
    })
    .await;
    let made =
        TaskResult { archived, quarantine, carried, rewritten, max_event_us, given, read, ..<_>::default() };
    Ok(made)
}

/// Adds a segment's conflicts, in any order, to what was refused of it before.
async fn add_conflicts(
    means: Means<'_>,
    segment: SegmentId,
    refused: &mut Vec<Quarantined>,
    mut conflicts: Vec<Conflict>,
) -> Result<()> {
    // Those of one date come in offset order; of several they do not.
    conflicts.sort_by_key(|conflict| conflict.offset);
    let Means { log, source, read_bytes_max, .. } = means;
    refused.extend(fetch_conflicts(log, source, segment.partition, &conflicts, read_bytes_max).await?);
    refused.sort_by_key(|record| record.offset);
    Ok(())
}

/// One log partition's part of a new newest-version table.
struct Part {
    carried: Vec<NewestFile>,
    rewritten: Vec<NewestFile>,
    effects: BTreeMap<SegmentId, Option<Effects>>,
    conflicts: BTreeMap<SegmentId, Vec<Conflict>>,
    /// The ways to the files before those that were rewritten.
    read: Taken,
}

/// Advances one log partition's part of the newest-version table over its new segments, of which it notes the dates.
async fn advance_table(
    means: Means<'_>,
    before: &Manifest,
    partition: LogPartition,
    files: &mut [SegmentFile],
    max_event_us: &mut Option<i64>,
) -> Result<Part> {
    let source = means.source;
    let rules = TableRules::of(source);
    let mut dates: BTreeMap<Option<i32>, Vec<(SegmentId, RecordBatch)>> = BTreeMap::new();
    let mut touched = Touched::new();
    let mut watermark = Watermark::new(source.lateness_us, source.ahead_us_max).resume(*max_event_us);
    for file in files.iter_mut() {
        let rows = means.dataset.read_segment(&source.name, file).await?;
        let events = source.event_times(&rows);
        for (&event_us, append_us) in events.iter().zip(append_times(&rows).values()) {
            watermark.observe(event_us, *append_us);
        }
        let divided = divide(source, &rules, &rows, &events)?;
        file.dates = divided.first().and_then(|(first, _)| (*first).zip(divided.last()?.0));
        for (date, rows) in divided {
            dates.entry(date).or_default().push((file.segment, rows));
            touched.entry(date).or_default().push((file.segment, file.content));
        }
    }
    *max_event_us = watermark.max_event_us();
    let plan = plan_table(&rules, partition, &before.newest, &touched);
    let mut effects: BTreeMap<SegmentId, Vec<Effects>> =
        files.iter().map(|file| (file.segment, Vec::new())).collect();
    let tasks = plan.tasks.into_iter().map(|task| {
        let rows = dates.remove(&task.date).unwrap_or_default();
        advance_date(means, before, partition, task, rows)
    });
    // Several at once, since most of the time is waiting for the disk; in order, so that effects are.
    let mut tasks = stream::iter(tasks).buffered(DATES_AT_ONCE);
    let mut rewritten = Vec::new();
    let mut read = Taken::default();
    let mut conflicts: BTreeMap<SegmentId, Vec<Conflict>> = BTreeMap::new();
    while let Some(DatePart { file, effects: parts, conflicts: conflicting, way }) = tasks.try_next().await? {
        rewritten.push(file);
        way.into_iter().for_each(|way| read.count(way));
        for (segment, found) in conflicting {
            conflicts.entry(segment).or_default().extend(found);
        }
        parts.into_iter().for_each(|(segment, part)| effects.entry(segment).or_default().push(part));
    }
    drop(tasks);
    let mut joined = BTreeMap::new();
    for (segment, parts) in effects {
        joined.insert(segment, Effects::join(&parts).map_err(rows_error(source))?);
    }
    Ok(Part { carried: plan.carried, rewritten, effects: joined, conflicts, read })
}

/// One date's part of it.
struct DatePart {
    file: NewestFile,
    effects: BTreeMap<SegmentId, Effects>,
    conflicts: BTreeMap<SegmentId, Vec<Conflict>>,
    /// The way to what there was before, if there was anything.
    way: Option<Way>,
}

/// Advances one date's part of the table and writes it.
async fn advance_date(
    means: Means<'_>,
    before: &Manifest,
    partition: LogPartition,
    task: TableTask,
    rows: Vec<(SegmentId, RecordBatch)>,
) -> Result<DatePart> {
    let source = means.source;
    let (previous, way) = match &task.previous {
        Some(file) => {
            let at_hand =
                means.dataset.newest_at_hand(&source.name, before.version, file, Reading::Again).await;
            let (rows, way) = match at_hand {
                Some((rows, way)) => (rows.batches().to_vec(), way),
                None => read_or_rebuild(means, before, file).await?,
            };
            (rows, Some(way))
        }
        None => (Vec::new(), None),
    };
    let advancing = Arc::clone(source);
    let advanced = blocking(move || advance(&advancing, previous, rows)).await.map_err(rows_error(source))?;
    let (date, fingerprint) = (task.date, task.fingerprint);
    let version = before.version + 1;
    let put = means.dataset.put_newest(&source.name, version, partition, date, fingerprint, advanced.rows);
    Ok(DatePart { file: put.await?, effects: advanced.effects, conflicts: advanced.conflicts, way })
}

fn rows_error(source: &Source) -> impl Fn(ArrowError) -> BatchError + '_ {
    |error| BatchError::Rows { source_name: source.name.clone(), source: error }
}

/// Divides a segment's rows by date, each in offset order.
fn divide(
    source: &Source,
    rules: &TableRules,
    rows: &RecordBatch,
    events_us: &[i64],
) -> Result<Vec<(Option<i32>, RecordBatch)>> {
    let mut dates: BTreeMap<Option<i32>, Vec<u32>> = BTreeMap::new();
    for (row, &event_us) in events_us.iter().enumerate() {
        dates.entry(rules.date_of(event_us)).or_default().push(row as u32);
    }
    let take = |(date, indexes): (Option<i32>, Vec<u32>)| {
        let indexes = UInt32Array::from(indexes);
        let taken = take_record_batch(rows, &indexes).map_err(rows_error(source))?;
        Ok((date, taken))
    };
    dates.into_iter().map(take).collect()
}

/// Reads a file of the newest-version table; one that is damaged or gone is made again.
async fn read_or_rebuild(
    means: Means<'_>,
    manifest: &Manifest,
    file: &NewestFile,
) -> Result<(Vec<RecordBatch>, Way)> {
    match means.dataset.read_newest(&manifest.source, file).await {
        Err(error @ (DatasetError::Damaged { .. } | DatasetError::Missing { .. })) => {
            tracing::warn!(%error, "a file of the newest-version table is made again from its segments");
            rebuild(means, manifest, file, &error).await?;
            Ok((means.dataset.read_newest(&manifest.source, file).await?, Way::Recompute))
        }
        read => Ok((read?, Way::Dataset)),
    }
}

/// Reads a segment; one that is damaged or gone is archived again where the log still has it.
async fn read_or_archive_again(means: Means<'_>, file: &SegmentFile) -> Result<RecordBatch> {
    let source = means.source;
    let damage = match means.dataset.read_segment(&source.name, file).await {
        Err(error @ (DatasetError::Damaged { .. } | DatasetError::Missing { .. })) => error,
        read => return Ok(read?),
    };
    let from = file.segment.index * source.segments().size();
    let start = means.log.start_offset(&source.topic, file.segment.partition.0).await;
    if start.is_ok_and(|start| start <= from) {
        tracing::warn!(error = %damage, "a segment is archived again from the log");
        let read_bytes_max = means.read_bytes_max;
        archive(means.log, means.dataset, source, file.segment, read_bytes_max).await?;
        return Ok(means.dataset.read_segment(&source.name, file).await?);
    }
    Err(BatchError::Dataset(damage))
}

/// Makes every damaged file of some log partitions' newest-version tables again.
pub(crate) async fn rebuild_damaged(
    means: Means<'_>,
    manifest: &Manifest,
    files: &[&NewestFile],
) -> Result<()> {
    for file in files {
        read_or_rebuild(means, manifest, file).await?;
    }
    Ok(())
}

/// Makes one file again from those segments of its log partition that may hold its date. In memory: one segment, and
/// the file's date of all of them.
async fn rebuild(
    means: Means<'_>,
    manifest: &Manifest,
    file: &NewestFile,
    damage: &DatasetError,
) -> Result<()> {
    let source = means.source;
    let rules = TableRules::of(source);
    let mut rows = Vec::new();
    let may_hold =
        |segment: &&SegmentFile| segment.segment.partition == file.partition && segment.may_hold(file.date);
    for segment in manifest.segments.iter().filter(may_hold) {
        let archived = read_or_archive_again(means, segment).await?;
        let events = source.event_times(&archived);
        let divided = divide(source, &rules, &archived, &events)?;
        let mine = divided.into_iter().filter(|(date, _)| *date == file.date);
        rows.extend(mine.map(|(_, rows)| (segment.segment, rows)));
    }
    if !rows.is_empty() {
        let advancing = Arc::clone(source);
        let made =
            blocking(move || advance(&advancing, Vec::new(), rows)).await.map_err(rows_error(source))?;
        let NewestFile { partition, date, fingerprint, .. } = *file;
        let version = manifest.version;
        let put = means.dataset.put_newest(&source.name, version, partition, date, fingerprint, made.rows);
        if put.await?.content == file.content {
            return Ok(());
        }
    }
    Err(BatchError::Dataset(DatasetError::Damaged {
        path: file.path.clone(),
        what: format!("{damage}; and made again from its segments it is another"),
        remedy: "restore it and its segments from a copy of the dataset",
    }))
}
