//! Keeps the groups of views where these are declared to be: in memory, or as sorted runs on local disks.
//!
//! Each replica does so for itself, and no answer depends on it. What the speed layer has added since the newest batch version
//! is in memory always.

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
/// After a disk that was full or broken.
const AFTER_ERROR: Duration = Duration::from_secs(5);

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
        let sizes: Vec<(StorageLevel, u64)> =
            held.iter().map(|(id, held, level)| (*level, held.groups_of(*id))).collect();
        for (at, goes) in moves(&sizes, self.memory_groups_max) {
            let (id, held, _) = &held[at];
            let moved = match goes {
                Goes::ToMemory => held.load(*id)?,
                Goes::ToDisk => held.spill(*id, &self.runs, LEAST)?,
            };
            if moved {
                tracing::debug!(partition = %id, ?goes, "groups were moved");
            }
        }
        Ok(())
    }
}

/// Returns which view partitions are to be looked at, given their levels and groups in memory, and where they go.
/// Those that may be in memory or on disk go to disk as long as there are more groups in memory than `max`, the largest
/// first; what of them is read again comes back into the cache of the disk's blocks.
fn moves(sizes: &[(StorageLevel, u64)], max: u64) -> Vec<(usize, Goes)> {
    let at_level = |wanted| (0..sizes.len()).filter(move |&at| sizes[at].0 == wanted);
    let to_memory = at_level(StorageLevel::Memory).map(|at| (at, Goes::ToMemory));
    let to_disk = at_level(StorageLevel::Disk).map(|at| (at, Goes::ToDisk));
    let mut either: Vec<usize> = at_level(StorageLevel::MemoryDisk).collect();
    either.sort_by_key(|&at| std::cmp::Reverse(sizes[at].1));
    let mut held: u64 =
        sizes.iter().filter(|(level, _)| *level != StorageLevel::Disk).map(|(_, groups)| groups).sum();
    let is_too_much = |&at: &usize| {
        let spills = held > max;
        held -= if spills { sizes[at].1 } else { 0 };
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

    #[test]
    fn views_go_where_they_are_declared_to_be() {
        assert_eq!(moves(&[(Disk, 9), (Memory, 9)], 100), [(1, ToMemory), (0, ToDisk)]);
        assert!(moves(&[], 0).is_empty());
    }

    #[test]
    fn what_may_be_on_disk_goes_there_largest_first_while_memory_is_short() {
        let sizes = [(MemoryDisk, 10), (Memory, 50), (MemoryDisk, 30), (Disk, 1000), (MemoryDisk, 20)];
        let to_disk = |max| {
            let all = moves(&sizes, max).into_iter().filter(|(at, goes)| *goes == ToDisk && *at != 3);
            all.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert!(to_disk(110).is_empty());
        assert_eq!(to_disk(109), [2]);
        assert_eq!(to_disk(79), [2, 4]);
        assert_eq!(to_disk(0), [2, 4, 0]);
    }
}
