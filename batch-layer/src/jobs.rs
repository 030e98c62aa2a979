//! The jobs of a source: what a version is made of, and what tasks give, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use sanso_block::BlockNode;
use sanso_dataset::{Manifest, PieceId, VersionPlan};
use sanso_state::{Fingerprint, Groups, LogPartition, StorageLevel};
use sanso_view::View;

use crate::archive::{ArchivePlan, plan};
use crate::contribution::Contribution;
use crate::driver::run_tasks;
use crate::error::Result;
use crate::publish::{Published, publish_files, publish_whole};
use crate::source_run::World;
use crate::task::{Given, Task, TaskResult, Work};

/// Plans the next version: as it was planned before, where another process has begun it.
pub(crate) async fn planned(world: &World<'_>, before: &Manifest, ends: &[u64]) -> Result<ArchivePlan> {
    let (source, segments) = (world.source, world.source.segments());
    let fresh = plan(&before.cut, ends, segments, world.config.segments_per_version_max.max(1));
    if fresh.segments.is_empty() || !world.executor.is_shared() {
        return Ok(fresh);
    }
    let ArchivePlan { segments: planned, cut, .. } = fresh;
    let own =
        VersionPlan { version: before.version + 1, before: before.fingerprint(), segments: planned, cut };
    let VersionPlan { segments: planned, cut, .. } = world.dataset.plan_version(&source.name, own).await?;
    let backlog = !plan(&cut, ends, segments, 1).segments.is_empty();
    Ok(ArchivePlan { segments: planned, cut, backlog })
}

/// Computes views from the newest-version table and publishes them: in this process, or by all workers.
pub(crate) async fn publish_lifted(
    world: &World<'_>,
    views: &[Arc<View>],
    manifest: &Arc<Manifest>,
) -> Result<Vec<Published>> {
    let partitions: BTreeSet<LogPartition> = manifest.newest.iter().map(|file| file.partition).collect();
    let partitions = Vec::from_iter(partitions);
    // What is not to be in memory when it is done is not to be there while it is made.
    let is_large = views.iter().any(|view| view.storage != StorageLevel::Memory)
        && manifest.rows > world.config.lift_rows_max;
    match world.executor.is_shared() || is_large {
        true => lifted_by_all(world, views, manifest, &partitions).await,
        false => lifted_here(world, views, manifest, partitions).await,
    }
}

/// Divides what a log partition has of the newest-version table, so that each part has at most so many rows, or
/// one file.
fn divided(manifest: &Manifest, partition: LogPartition, rows_max: u64) -> Vec<Work> {
    let files = manifest.newest.iter().filter(|file| file.partition == partition);
    let mut parts: Vec<(Range<u32>, u64)> = Vec::new();
    for (at, rows) in (0..).zip(files.map(|file| file.rows)) {
        match parts.last_mut() {
            Some((files, held)) if *held + rows <= rows_max => (files.end, *held) = (at + 1, *held + rows),
            _ => parts.push((at..at + 1, rows)),
        }
    }
    if parts.len() == 1 {
        return vec![Work::Split { partitions: vec![partition] }];
    }
    let slice = |(files, _): (Range<u32>, u64)| Work::Slice { partition, from: files.start, to: files.end };
    parts.into_iter().map(slice).collect()
}

/// One process goes over all files at once, on all its processors, and has no use for pieces.
async fn lifted_here(
    world: &World<'_>,
    views: &[Arc<View>],
    manifest: &Arc<Manifest>,
    partitions: Vec<LogPartition>,
) -> Result<Vec<Published>> {
    let task = Task::new(world.source, views.to_vec(), manifest, Work::Lift { partitions });
    let results = run_tasks(world, &[task]).await?;
    let given = results.into_iter().flat_map(given);
    let mut lifted: BTreeMap<Fingerprint, Vec<Groups>> =
        given.map(|given| (given.view, given.parts)).collect();
    let mut published = Vec::with_capacity(views.len());
    for view in views {
        let parts = lifted.remove(&view.fingerprint).expect("a lift gives groups of each of its views");
        published.push(publish_whole(world.dataset, view, manifest, parts).await?);
    }
    Ok(published)
}

/// Lifts by parts of log partitions, and combines by view partition. Nothing of it comes here but the names of files.
async fn lifted_by_all(
    world: &World<'_>,
    views: &[Arc<View>],
    manifest: &Arc<Manifest>,
    partitions: &[LogPartition],
) -> Result<Vec<Published>> {
    let (dataset, source) = (world.dataset, world.source);
    let rows_max = world.config.lift_rows_max;
    let works = partitions.iter().flat_map(|partition| divided(manifest, *partition, rows_max));
    let mut tasks: Vec<Task> = works.map(|work| Task::new(source, views.to_vec(), manifest, work)).collect();
    let of: Vec<Fingerprint> = tasks.iter().map(Task::fingerprint).collect();
    for view in views {
        let combine = |index| {
            let work = Work::Combine { index, of: of.clone() };
            Task::new(source, vec![Arc::clone(view)], manifest, work)
        };
        tasks.extend((0..view.partitions).map(combine));
    }
    let mut combined = run_tasks(world, &tasks).await?.into_iter();
    let mut published = Vec::with_capacity(views.len());
    for view in views {
        let files = combined.by_ref().take(view.partitions as usize);
        let file = |result: Arc<TaskResult>| result.block.clone().expect("who combines gives a block");
        let files = files.map(file).collect();
        published.push(publish_files(dataset, view, manifest, files).await?);
    }
    forget_pieces(world, manifest, views, &of).await?;
    forget_tasks(world, &tasks).await?;
    Ok(published)
}

/// Removes what was handed from one stage to the next.
async fn forget_pieces(
    world: &World<'_>,
    manifest: &Manifest,
    views: &[Arc<View>],
    tasks: &[Fingerprint],
) -> Result<()> {
    let of_view = |view: &Arc<View>| {
        let (view, partitions) = (view.fingerprint, view.partitions);
        tasks.iter().flat_map(move |task| (0..partitions).map(move |index| PieceId::new(*task, view, index)))
    };
    let pieces: Vec<PieceId> = views.iter().flat_map(of_view).collect();
    let nodes: Vec<BlockNode> =
        world.executor.workers().borrow().keys().map(|worker| BlockNode(worker.0)).collect();
    world.dataset.forget_pieces(&nodes, &pieces).await;
    Ok(world.dataset.remove_pieces(&manifest.source, manifest.version, &pieces).await?)
}

/// Returns what tasks contribute to each view, in order of segments.
pub(crate) fn contributed(results: Vec<Arc<TaskResult>>) -> BTreeMap<Fingerprint, Vec<Contribution>> {
    let mut contributed: BTreeMap<Fingerprint, Vec<Contribution>> = BTreeMap::new();
    for Given { view, segment, parts } in results.into_iter().flat_map(given) {
        if let Some(segment) = segment {
            contributed.entry(view).or_default().push(Contribution { segment, parts });
        }
    }
    contributed.values_mut().for_each(|all| all.sort_by_key(|contribution| contribution.segment));
    contributed
}

fn given(result: Arc<TaskResult>) -> Vec<Given> {
    Arc::try_unwrap(result).map_or_else(|shared| shared.given.clone(), |result| result.given)
}

/// Removes what was kept of tasks for whoever would have had to go on.
pub(crate) async fn forget_tasks(world: &World<'_>, tasks: &[Task]) -> Result<()> {
    let Some(first) = tasks.first().filter(|_| world.executor.is_shared()) else { return Ok(()) };
    let done: Vec<Fingerprint> = tasks.iter().map(Task::fingerprint).collect();
    Ok(world.dataset.remove_tasks(&world.source.name, first.version(), &done).await?)
}
