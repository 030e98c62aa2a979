//! Keeps the groups of views where these are declared to be: in memory, or as sorted runs on local disks.
//!
//! Each replica does so for itself, and no answer depends on it. What the speed layer has added since the newest batch version
//! is in memory always. Groups that a disk has lost are what the batch layer has published: they are read from there.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sanso_catalog::CatalogHandle;
use sanso_core::{GroupCounts, PartitionId, PartitionStore, Readable};
use sanso_dataset::{Dataset, DatasetError, ViewId};
use sanso_runs::DiskRuns;
use sanso_serving::ServingConfig;
use sanso_state::{Block, RunError, StorageLevel};
use sanso_view::View;
use tokio::sync::watch;

use super::member::stopped;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// After a disk that was full, broken or has lost groups: whatever waits is tried again then, which costs as much as writing
/// some of each.
const AFTER_ERROR: Duration = Duration::from_secs(60);

/// Moves groups between memory and disk.
#[derive(Clone)]
pub(super) struct Spiller {
    catalog: CatalogHandle,
    store: PartitionStore,
    dataset: Dataset,
    runs: DiskRuns,
    bounds: Bounds,
}

/// When groups go to disk.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// So many groups in memory, and views that may be on disk go there.
    memory_max: u64,
    /// So many groups of a base are worth a run.
    run_min: usize,
}

/// Tells an error, unless it was the last one that was told.
fn tell_once(told: &mut Option<RunError>, error: Option<RunError>, what: &str) {
    if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
        tracing::warn!(%error, "{what}");
    }
    *told = error;
}

/// What becomes of a view partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    ToMemory,
    ToDisk,
    /// What is in memory stays there, in fewer runs.
    Together,
}

impl Spiller {
    /// Creates one. Views that may be in memory or on disk leave half of the groups that a node may have in memory to what
    /// can't be elsewhere.
    pub(super) fn new(
        catalog: CatalogHandle,
        store: PartitionStore,
        dataset: Dataset,
        runs: DiskRuns,
        config: &ServingConfig,
    ) -> Self {
        let bounds = Bounds { memory_max: config.view_groups_max / 2, run_min: config.views_run_groups_min };
        Self { catalog, store, dataset, runs, bounds }
    }

    /// Moves groups until the node is stopped.
    pub(super) async fn follow(self, stop: watch::Receiver<bool>) {
        let (mut not_moved, mut not_mended) = (None, None);
        let mut rests_until = Instant::now();
        let moves = async {
            loop {
                let mended = self.mend().await;
                if mended != Ok(0) {
                    rests_until = Instant::now() + AFTER_ERROR;
                }
                let what = "groups of views that are lost on disk are not read from the dataset";
                tell_once(&mut not_mended, mended.err(), what);
                if Instant::now() >= rests_until {
                    let error = self.turn().await.err();
                    if error.is_some() {
                        rests_until = Instant::now() + AFTER_ERROR;
                    }
                    tell_once(&mut not_moved, error, "groups of views are not moved between memory and disk");
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = stopped(stop) => {}
            () = moves => {}
        }
    }

    /// Reads from the dataset what the disk has lost; says of how many view partitions.
    async fn mend(&self) -> Result<usize, RunError> {
        let live = self.catalog.current().live.clone();
        let mut outcome = Ok(0);
        for (id, held) in self.store.held_here() {
            let (Some(version), Some(view)) = (held.lost(id), live.get(&id.view)) else { continue };
            match self.published(view, version, id.index).await {
                Ok(base) if held.mend(id, &base) => {
                    outcome = outcome.map(|mended| mended + 1);
                    tracing::info!(
                        view = view.name,
                        partition = id.index,
                        version,
                        "lost groups are here again"
                    );
                }
                // By now it stands on another version.
                Ok(_) => {}
                Err(error) => outcome = Err(RunError(format!("view {}/{}: {error}", view.name, id.index))),
            }
        }
        outcome
    }

    /// Reads what a view partition held at a batch version.
    async fn published(&self, view: &View, version: u64, index: u32) -> Result<Arc<Block>, DatasetError> {
        let View { name, fingerprint, kinds, .. } = view;
        let id = ViewId { source: &view.source.name, name, fingerprint: *fingerprint, kinds };
        let published = self.dataset.published(id, version).await?;
        Ok(Arc::new(self.dataset.read_block(id, &published, index).await?))
    }

    /// Moves what is to be moved now.
    pub(super) async fn turn(&self) -> Result<(), RunError> {
        let held: Vec<(PartitionId, Readable, Size)> = {
            let live = &self.catalog.current().live;
            let sized = |(id, held): (PartitionId, Readable)| {
                let view = live.get(&id.view)?;
                let (level, emits) = (view.storage, view.output_topic.is_some());
                let size = Size { level, emits, groups: held.group_counts(id) };
                Some((id, held, size))
            };
            self.store.held_here().into_iter().filter_map(sized).collect()
        };
        let sizes: Vec<Size> = held.iter().map(|(_, _, size)| *size).collect();
        let moves = moves(&sizes, self.bounds);
        if moves.is_empty() {
            return Ok(());
        }
        let moves: Vec<_> =
            moves.into_iter().map(|(at, goes)| (held[at].0, held[at].1.clone(), goes)).collect();
        let (runs, run_min) = (self.runs.clone(), self.bounds.run_min);
        let moved = tokio::task::spawn_blocking(move || move_all(&moves, &runs, run_min)).await;
        moved.unwrap_or_else(|error| Err(RunError(error.to_string())))
    }
}

/// Moves groups of some view partitions, several at a time.
fn move_all(
    moves: &[(PartitionId, Readable, Goes)],
    runs: &DiskRuns,
    run_min: usize,
) -> Result<(), RunError> {
    let next = AtomicUsize::new(0);
    let move_some = || {
        let mut outcome = Ok(());
        while let Some((id, held, goes)) = moves.get(next.fetch_add(1, Ordering::Relaxed)) {
            let moved = match goes {
                Goes::ToMemory => held.load(*id),
                Goes::ToDisk => held.spill(*id, runs, run_min),
                Goes::Together => held.unite(*id),
            };
            match moved {
                Ok(true) => tracing::debug!(partition = %id, ?goes, "groups were moved"),
                Ok(false) => {}
                // The others may be on another disk.
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    };
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(moves.len());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..at_once).map(|_| scope.spawn(move_some)).collect();
        let mine = move_some();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        others.into_iter().map(ended).fold(mine, Result::and)
    })
}

/// What a view partition holds, of which what batch versions have may go to disk.
#[derive(Clone, Copy, Debug)]
struct Size {
    level: StorageLevel,
    /// Whether it writes its closed windows to a topic: it does so only of what is in one block.
    emits: bool,
    groups: GroupCounts,
}

/// Returns which view partitions are to be moved, and where to. Those that may be in memory or on disk go to disk
/// as long as there are more groups in memory than they may be, the largest first; what of them is read again comes back into the
/// cache of the disk's blocks. What stays in several runs in memory is put together.
fn moves(sizes: &[Size], Bounds { memory_max, run_min }: Bounds) -> Vec<(usize, Goes)> {
    let at_level = |wanted| (0..sizes.len()).filter(move |&at| sizes[at].level == wanted);
    let is_elsewhere = |at: &usize| {
        let Size { emits, groups, .. } = &sizes[*at];
        groups.elsewhere > 0 || (*emits && groups.runs > 0)
    };
    let to_memory = at_level(StorageLevel::Memory).filter(is_elsewhere).map(|at| (at, Goes::ToMemory));
    let mut either: Vec<usize> = at_level(StorageLevel::MemoryDisk).collect();
    either.sort_by_key(|&at| std::cmp::Reverse(sizes[at].groups.base));
    let stays = |Size { level, groups, .. }: &Size| {
        if *level == StorageLevel::Disk { groups.since } else { groups.base + groups.since }
    };
    let mut held: u64 = sizes.iter().map(stays).sum();
    let is_too_much = |&at: &usize| {
        let spills = held > memory_max;
        held -= if spills { sizes[at].groups.base } else { 0 };
        spills
    };
    let too_much: Vec<usize> = either.into_iter().take_while(is_too_much).collect();
    let to_disk = at_level(StorageLevel::Disk).chain(too_much);
    let is_worth_it = |at: &usize| sizes[*at].groups.base >= run_min as u64;
    let moved: Vec<_> = to_memory.chain(to_disk.filter(is_worth_it).map(|at| (at, Goes::ToDisk))).collect();
    let stays = |at: &usize| moved.iter().all(|(other, _)| other != at);
    let in_many_runs = (0..sizes.len()).filter(|at| sizes[*at].groups.runs > 1 && stays(at));
    let together: Vec<_> = in_many_runs.map(|at| (at, Goes::Together)).collect();
    [moved, together].concat()
}

#[cfg(test)]
mod tests {
    use sanso_state::StorageLevel::{Disk, Memory, MemoryDisk};

    use super::Goes::{ToDisk, ToMemory, Together};
    use super::*;

    fn of(level: StorageLevel, base: u64) -> Size {
        Size { level, emits: false, groups: GroupCounts { base, ..GroupCounts::default() } }
    }

    fn within(memory_max: u64) -> Bounds {
        Bounds { memory_max, run_min: 5 }
    }

    #[test]
    fn views_go_where_they_are_declared_to_be_and_are_not_looked_at_there() {
        let mut sizes = [of(Disk, 9), of(Memory, 9)];
        assert_eq!(moves(&sizes, within(100)), [(0, ToDisk)]);
        sizes.iter_mut().for_each(|size| std::mem::swap(&mut size.groups.base, &mut size.groups.elsewhere));
        assert_eq!(moves(&sizes, within(100)), [(1, ToMemory)]);
        assert!(moves(&[of(Disk, 4)], within(0)).is_empty(), "a run of so few is not worth it");
    }

    #[test]
    fn runs_in_memory_are_put_together_and_what_emits_is_one_block() {
        let mut sizes = [of(Memory, 9), of(MemoryDisk, 9), of(Disk, 9), of(Memory, 9)];
        sizes.iter_mut().for_each(|size| size.groups.runs = 1);
        sizes[3].emits = true;
        assert_eq!(moves(&sizes, within(100)), [(3, ToMemory), (2, ToDisk)]);
        sizes.iter_mut().for_each(|size| size.groups.runs = 2);
        let all = [(3, ToMemory), (2, ToDisk), (0, Together), (1, Together)];
        assert_eq!(moves(&sizes, within(100)), all);
    }

    #[test]
    fn what_may_be_on_disk_goes_there_largest_first_while_memory_is_short() {
        let mut sizes =
            [of(MemoryDisk, 10), of(Memory, 50), of(MemoryDisk, 30), of(Disk, 1000), of(MemoryDisk, 20)];
        let to_disk = |sizes: &[Size], max| {
            let all = moves(sizes, within(max)).into_iter().filter(|(at, goes)| *goes == ToDisk && *at != 3);
            all.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert!(to_disk(&sizes, 110).is_empty());
        assert_eq!(to_disk(&sizes, 109), [2]);
        assert_eq!(to_disk(&sizes, 79), [2, 4]);
        assert_eq!(to_disk(&sizes, 0), [2, 4, 0]);
        sizes[0].groups.since = 1_000;
        assert_eq!(to_disk(&sizes, 1_080), [2], "what can't go makes no room");
    }
}
