//! Keeps the groups of views where these are declared to be: in memory, or as sorted runs on local disks.
//!
//! Each replica does so for itself, and no answer depends on it. What the speed layer has added since the newest batch version
//! is in memory always.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sanso_catalog::CatalogHandle;
use sanso_core::{PartitionId, PartitionStore, Readable};
use sanso_runs::DiskRuns;
use sanso_state::{RunError, StorageLevel};
use tokio::sync::watch;

use super::member::stopped;

/// Groups of a view partition's base that stay in memory: a run of fewer costs more than it saves.
const LEAST: usize = 4_096;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// After a disk that was full or broken: whatever waits is tried again then, which costs as much as writing some of each.
const AFTER_ERROR: Duration = Duration::from_secs(60);

/// Moves groups between memory and disk.
#[derive(Clone)]
pub(super) struct Spiller {
    catalog: CatalogHandle,
    store: PartitionStore,
    runs: DiskRuns,
    /// Groups in memory from which on views that may be on disk go there.
    memory_groups_max: u64,
}

/// What becomes of a view partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    ToMemory,
    ToDisk,
}

impl Spiller {
    /// Creates one for a node that may hold so many groups in memory. Views that may be in memory or on disk leave
    /// half of that to what can't be elsewhere.
    pub(super) fn new(
        catalog: CatalogHandle,
        store: PartitionStore,
        runs: DiskRuns,
        groups_max: u64,
    ) -> Self {
        Self { catalog, store, runs, memory_groups_max: groups_max / 2 }
    }

    /// Moves groups until the node is stopped.
    pub(super) async fn follow(self, stop: watch::Receiver<bool>) {
        let mut told = None;
        let moves = async {
            loop {
                let error = self.turn().await.err();
                if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                    tracing::warn!(%error, "groups of views are not moved between memory and disk");
                }
                tokio::time::sleep(if error.is_some() { AFTER_ERROR } else { LOOK }).await;
                told = error;
            }
        };
        tokio::select! {
            () = stopped(stop) => {}
            () = moves => {}
        }
    }

    /// Moves what is to be moved now.
    pub(super) async fn turn(&self) -> Result<(), RunError> {
        let this = self.clone();
        let moved = tokio::task::spawn_blocking(move || this.move_all()).await;
        moved.unwrap_or_else(|error| Err(RunError(error.to_string())))
    }

    fn move_all(&self) -> Result<(), RunError> {
        let held: Vec<(PartitionId, Readable, StorageLevel)> = {
            let live = &self.catalog.current().live;
            let level = |id: &PartitionId| live.get(&id.view).map(|view| view.storage);
            self.store
                .held_here()
                .into_iter()
                .filter_map(|(id, held)| Some((id, held, level(&id)?)))
                .collect()
        };
        let sizes: Vec<Size> = held
            .iter()
            .map(|(id, held, level)| {
                let (base, since) = held.group_counts(*id);
                Size { level: *level, base: base as u64, since: since as u64 }
            })
            .collect();
        let moves = moves(&sizes, self.memory_groups_max);
        let next = AtomicUsize::new(0);
        let move_some = || {
            let mut outcome = Ok(());
            while let Some(&(at, goes)) = moves.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (id, held, _) = &held[at];
                let moved = match goes {
                    Goes::ToMemory => held.load(*id),
                    Goes::ToDisk => held.spill(*id, &self.runs, LEAST),
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
}

/// What a view partition holds in memory.
#[derive(Clone, Copy, Debug)]
struct Size {
    level: StorageLevel,
    /// Groups of its base, which may go to disk.
    base: u64,
    /// Groups since, which may not.
    since: u64,
}

/// Returns which view partitions are to be looked at, and where they go. Those that may be in memory or on disk go to disk
/// as long as there are more groups in memory than `max`, the largest first; what of them is read again comes back into the
/// cache of the disk's blocks.
fn moves(sizes: &[Size], max: u64) -> Vec<(usize, Goes)> {
    let at_level = |wanted| (0..sizes.len()).filter(move |&at| sizes[at].level == wanted);
    let to_memory = at_level(StorageLevel::Memory).map(|at| (at, Goes::ToMemory));
    let to_disk = at_level(StorageLevel::Disk).map(|at| (at, Goes::ToDisk));
    let mut either: Vec<usize> = at_level(StorageLevel::MemoryDisk).collect();
    either.sort_by_key(|&at| std::cmp::Reverse(sizes[at].base));
    let stays =
        |size: &Size| if size.level == StorageLevel::Disk { size.since } else { size.base + size.since };
    let mut held: u64 = sizes.iter().map(stays).sum();
    let is_too_much = |&at: &usize| {
        let spills = held > max;
        held -= if spills { sizes[at].base } else { 0 };
        spills
    };
    let too_much: Vec<usize> = either.into_iter().take_while(is_too_much).collect();
    to_memory.chain(to_disk).chain(too_much.into_iter().map(|at| (at, Goes::ToDisk))).collect()
}

#[cfg(test)]
mod tests {
    use sanso_state::StorageLevel::{Disk, Memory, MemoryDisk};

    use super::Goes::{ToDisk, ToMemory};
    use super::*;

    fn of(level: StorageLevel, base: u64) -> Size {
        Size { level, base, since: 0 }
    }

    #[test]
    fn views_go_where_they_are_declared_to_be() {
        assert_eq!(moves(&[of(Disk, 9), of(Memory, 9)], 100), [(1, ToMemory), (0, ToDisk)]);
        assert!(moves(&[], 0).is_empty());
    }

    #[test]
    fn what_may_be_on_disk_goes_there_largest_first_while_memory_is_short() {
        let mut sizes =
            [of(MemoryDisk, 10), of(Memory, 50), of(MemoryDisk, 30), of(Disk, 1000), of(MemoryDisk, 20)];
        let to_disk = |sizes: &[Size], max| {
            let all = moves(sizes, max).into_iter().filter(|(at, goes)| *goes == ToDisk && *at != 3);
            all.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert!(to_disk(&sizes, 110).is_empty());
        assert_eq!(to_disk(&sizes, 109), [2]);
        assert_eq!(to_disk(&sizes, 79), [2, 4]);
        assert_eq!(to_disk(&sizes, 0), [2, 4, 0]);
        sizes[0].since = 1_000;
        assert_eq!(to_disk(&sizes, 1_080), [2], "what can't go makes no room");
    }
}
