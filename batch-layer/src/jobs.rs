//! The jobs of a source: what a version is made of, and what tasks give, put together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sanso_dataset::{Manifest, VersionPlan};
use sanso_state::{Fingerprint, Groups, LogPartition};
use sanso_view::View;

use crate::archive::{ArchivePlan, blocking, plan};
use crate::contribution::Contribution;
use crate::driver::run_tasks;
use crate::error::Result;
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

/// Computes views from the newest-version table. Returns the tasks, and for each view its groups by view
/// partition.
pub(crate) async fn lift(
    world: &World<'_>,
    views: &[Arc<View>],
    manifest: &Arc<Manifest>,
) -> Result<(Vec<Task>, Vec<Vec<Groups>>)> {
    let all: BTreeSet<LogPartition> = manifest.newest.iter().map(|file| file.partition).collect();
    let all = Vec::from_iter(all);
    // One process goes over all files at once, on all its processors.
    let at_a_time = if world.executor.is_shared() { 1 } else { all.len().max(1) };
    let lift = |partitions: &[LogPartition]| {
        Task::new(world.source, views.to_vec(), manifest, Work::Lift { partitions: partitions.to_vec() })
    };
    let tasks: Vec<Task> = all.chunks(at_a_time).map(lift).collect();
    let results = run_tasks(world, &tasks).await?;
    let views = views.to_vec();
    Ok((tasks, blocking(move || summed(&views, results)).await))
}

/// Adds up what tasks lifted into each view.
fn summed(views: &[Arc<View>], results: Vec<Arc<TaskResult>>) -> Vec<Vec<Groups>> {
    let mut total: BTreeMap<Fingerprint, Vec<Groups>> = BTreeMap::new();
    for Given { view, parts, .. } in results.into_iter().flat_map(given) {
        match total.entry(view) {
            Entry::Vacant(none) => _ = none.insert(parts),
            Entry::Occupied(mut some) => {
                some.get_mut().iter_mut().zip(&parts).for_each(|(total, part)| total.combine(part));
            }
        }
    }
    let of_view = |view: &Arc<View>| {
        total.remove(&view.fingerprint).unwrap_or_else(|| vec![Groups::new(); view.partitions as usize])
    };
    views.iter().map(of_view).collect()
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
