//! Makes one version: archives segments, advances the newest-version table, writes down what was
//! refused, commits the manifest.
//!
//! A file of the newest-version table that is damaged or gone is made again from its lineage, the
//! segments of its log partition. The same rows make the same bytes, so the manifest stays true.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use futures::{StreamExt, TryStreamExt, stream};
use sanso_dataset::{DatasetError, Manifest, NewestFile, QuarantineFile, SegmentFile, append_times};
use sanso_state::{LogPartition, SegmentId, Watermark};
use sanso_view::Source;

use crate::advance::{Conflict, Effects, advance};
use crate::archive::{ArchivePlan, archive, blocking, fetch_conflicts};
use crate::error::{BatchError, Result};
use crate::lineage::{TableRules, TableTask, Touched, plan_table};
use crate::report::SourceReport;
use crate::source_run::World;

/// Dates of the newest-version table that are advanced at the same time.
const DATES_AT_ONCE: usize = 8;

/// Archives the planned segments, advances the newest-version table over them and commits the next
/// version. Returns it with each new segment's effects.
pub(crate) async fn make_version(
    world: &World<'_>,
    before: &Manifest,
    plan: ArchivePlan,
    report: &mut SourceReport,
) -> Result<(Arc<Manifest>, BTreeMap<SegmentId, Option<Effects>>)> {
    let mut archived: Vec<SegmentFile> = Vec::with_capacity(plan.segments.len());
    let mut refused: BTreeMap<SegmentId, QuarantineFile> = BTreeMap::new();
    for &segment in &plan.segments {
        let read_bytes_max = world.config.read_bytes_max;
        let done = archive(world.log, world.dataset, world.source, segment, read_bytes_max).await?;
        report.rows_archived += done.file.rows;
        refused.extend(done.refused.map(|file| (segment, file)));
        archived.push(done.file);
    }
    let mut newest = Vec::new();
    let mut effects = BTreeMap::new();
    let mut watermarks = before.watermarks.clone();
    for partition in (0..world.source.partitions).map(LogPartition) {
        let files: Vec<_> = archived.iter().filter(|file| file.segment.partition == partition).collect();
        let watermark = &mut watermarks[partition.index()];
        let part = advance_partition(world, before, partition, &files, watermark).await?;
        report.newest_carried += part.carried.len() as u64;
        report.newest_rewritten.extend(part.rewritten.iter().map(|file| (partition, file.date)));
        newest.extend(part.carried);
        newest.extend(part.rewritten);
        effects.extend(part.effects);
        for (segment, conflicts) in part.conflicts {
            let file = add_conflicts(world, segment, refused.get(&segment), conflicts).await?;
            refused.extend(file.map(|file| (segment, file)));
        }
    }
    refused.values().for_each(|file| report.refused.add(&file.counts));
    let mut quarantine = before.quarantine.clone();
    quarantine.extend(refused.into_values());
    quarantine.sort_by_key(|file| file.segment);
    newest.sort_by_key(|file| (file.partition, file.date));
    let mut segments: Vec<SegmentFile> = before.segments.iter().cloned().chain(archived).collect();
    segments.sort_by_key(|file| file.segment);
    report.segments = plan.segments;
    let manifest = Manifest {
        version: before.version + 1,
        cut: plan.cut,
        watermarks,
        rows: newest.iter().map(|file| file.rows).sum(),
        segments,
        newest,
        quarantine_from: Some(before.division().from),
        quarantine,
        ..before.clone()
    };
    world.dataset.commit(&manifest).await?;
    Ok((Arc::new(manifest), effects))
}

/// Adds a segment's conflicts, in any order, to the file of what was refused before them. In memory:
/// the quarantine of one segment.
async fn add_conflicts(
    world: &World<'_>,
    segment: SegmentId,
    refused: Option<&QuarantineFile>,
    mut conflicts: Vec<Conflict>,
) -> Result<Option<QuarantineFile>> {
    let (source, bytes_max) = (world.source, world.config.read_bytes_max);
    // Those of one date come in offset order; of several they do not.
    conflicts.sort_by_key(|conflict| conflict.offset);
    let mut records = match refused {
        Some(file) => world.dataset.read_quarantine(&source.name, file).await?,
        None => Vec::new(),
    };
    records.extend(fetch_conflicts(world.log, source, segment.partition, &conflicts, bytes_max).await?);
    records.sort_by_key(|record| record.offset);
    Ok(world.dataset.put_quarantine(&source.name, segment, &records).await?)
}

/// One log partition's part of a new version.
struct PartitionPart {
    carried: Vec<NewestFile>,
    rewritten: Vec<NewestFile>,
    effects: BTreeMap<SegmentId, Option<Effects>>,
    conflicts: BTreeMap<SegmentId, Vec<Conflict>>,
}

/// Advances one log partition's part of the newest-version table over its new segments. In memory:
/// those segments' rows, and some dates' parts of the table.
async fn advance_partition(
    world: &World<'_>,
    before: &Manifest,
    partition: LogPartition,
    files: &[&SegmentFile],
    max_event_us: &mut Option<i64>,
) -> Result<PartitionPart> {
    let source = world.source;
    let rules = TableRules::of(source);
    let mut dates: BTreeMap<Option<i32>, Vec<(SegmentId, RecordBatch)>> = BTreeMap::new();
    let mut touched = Touched::new();
    let mut watermark = Watermark::new(source.lateness_us, source.ahead_us_max).resume(*max_event_us);
    for file in files {
        let rows = world.dataset.read_segment(&source.name, file).await?;
        let events = source.event_times(&rows);
        for (&event_us, append_us) in events.iter().zip(append_times(&rows).values()) {
            watermark.observe(event_us, *append_us);
        }
        for (date, rows) in divide(source, &rules, &rows, &events)? {
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
        advance_date(world, before, partition, task, rows)
    });
    // Several at once, since most of the time is waiting for the disk; in order, so that effects are.
    let mut tasks = stream::iter(tasks).buffered(DATES_AT_ONCE);
    let mut rewritten = Vec::new();
    let mut conflicts: BTreeMap<SegmentId, Vec<Conflict>> = BTreeMap::new();
    while let Some((file, parts, conflicting)) = tasks.try_next().await? {
        rewritten.push(file);
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
    Ok(PartitionPart { carried: plan.carried, rewritten, effects: joined, conflicts })
}

/// Advances one date's part of the table and writes it.
async fn advance_date(
    world: &World<'_>,
    before: &Manifest,
    partition: LogPartition,
    task: TableTask,
    rows: Vec<(SegmentId, RecordBatch)>,
) -> Result<(NewestFile, BTreeMap<SegmentId, Effects>, BTreeMap<SegmentId, Vec<Conflict>>)> {
    let source = world.source;
    let previous = match &task.previous {
        Some(file) => read_or_rebuild(world, before, file).await?,
        None => Vec::new(),
    };
    let advancing = Arc::clone(source);
    let advanced = blocking(move || advance(&advancing, previous, rows)).await.map_err(rows_error(source))?;
    let (date, fingerprint) = (task.date, task.fingerprint);
    let file = world.dataset.put_newest(&source.name, partition, date, fingerprint, advanced.rows).await?;
    Ok((file, advanced.effects, advanced.conflicts))
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
    world: &World<'_>,
    manifest: &Manifest,
    file: &NewestFile,
) -> Result<Vec<RecordBatch>> {
    match world.dataset.read_newest(&manifest.source, file).await {
        Err(error @ (DatasetError::Damaged { .. } | DatasetError::Missing { .. })) => {
            tracing::warn!(%error, "a file of the newest-version table is made again from its segments");
            rebuild(world, manifest, file, &error).await?;
            Ok(world.dataset.read_newest(&manifest.source, file).await?)
        }
        read => Ok(read?),
    }
}

/// Reads a segment; one that is damaged or gone is archived again where the log still has it.
async fn read_or_archive_again(world: &World<'_>, file: &SegmentFile) -> Result<RecordBatch> {
    let source = world.source;
    let damage = match world.dataset.read_segment(&source.name, file).await {
        Err(error @ (DatasetError::Damaged { .. } | DatasetError::Missing { .. })) => error,
        read => return Ok(read?),
    };
    let from = file.segment.index * source.segments().size();
    let start = world.log.start_offset(&source.topic, file.segment.partition.0).await;
    if start.is_ok_and(|start| start <= from) {
        tracing::warn!(error = %damage, "a segment is archived again from the log");
        let read_bytes_max = world.config.read_bytes_max;
        archive(world.log, world.dataset, source, file.segment, read_bytes_max).await?;
        return Ok(world.dataset.read_segment(&source.name, file).await?);
    }
    Err(BatchError::Dataset(damage))
}

/// Makes every damaged file of the newest-version table again.
pub(crate) async fn rebuild_damaged(world: &World<'_>, manifest: &Manifest) -> Result<()> {
    for file in &manifest.newest {
        read_or_rebuild(world, manifest, file).await?;
    }
    Ok(())
}

/// Makes one file again from the segments of its log partition. In memory: one segment, and the
/// file's date of all of them.
async fn rebuild(
    world: &World<'_>,
    manifest: &Manifest,
    file: &NewestFile,
    damage: &DatasetError,
) -> Result<()> {
    let source = world.source;
    let rules = TableRules::of(source);
    let mut rows = Vec::new();
    for segment in manifest.segments.iter().filter(|segment| segment.segment.partition == file.partition) {
        let archived = read_or_archive_again(world, segment).await?;
        let events = source.event_times(&archived);
        let divided = divide(source, &rules, &archived, &events)?;
        let mine = divided.into_iter().filter(|(date, _)| *date == file.date);
        rows.extend(mine.map(|(_, rows)| (segment.segment, rows)));
    }
    if !rows.is_empty() {
        let advancing = Arc::clone(source);
        let made =
            blocking(move || advance(&advancing, Vec::new(), rows)).await.map_err(rows_error(source))?;
        let put =
            world.dataset.put_newest(&source.name, file.partition, file.date, file.fingerprint, made.rows);
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
