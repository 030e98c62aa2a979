//! Sorted runs of groups on local disks.
//!
//! ```text
//!   run │ key, escaped │ 0 0 │ window start  →  state      one file for each run, ordered, compressed
//! ```
//!
//! A directory holds one RocksDB, of which a run is a range of keys: it is written as a file of its own, ingested
//! whole, never compacted, and deleted as a file once nobody holds the run any longer. RocksDB checks
//! every block that it reads, and keeps those read last in memory, within a bound that all directories share.
//!
//! Nothing here outlives the process: view partitions begin with what is published. So nothing is synced for
//! its own sake, and whatever an earlier life left is deleted at the start. A directory without runs has no files.

mod folder;
mod layout;

use std::iter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rocksdb::Cache;
use sanso_state::{AggregateKind, Part, RunError, RunGroups, RunStore, SortedRun};

use crate::folder::{Folder, Range};

/// Where runs are kept, and within which bounds.
#[derive(Clone, Debug)]
pub struct RunsConfig {
    /// Directories, one for each disk, of no other process. At least one.
    pub dirs: Vec<PathBuf>,
    /// Bytes of files in all of them together; what would not fit is refused.
    pub disk_bytes_max: u64,
    /// Bytes of blocks of those files that are kept in memory.
    pub cache_bytes: usize,
}

/// Why the directories can't be used.
#[derive(Debug, thiserror::Error)]
#[error("use {} for groups on disk: {reason}; each process needs directories of its own", path.display())]
pub struct OpenError {
    /// The directory.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What is held at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunsUsage {
    /// Bytes of files.
    pub disk_bytes: u64,
    /// Bytes of blocks in memory.
    pub cache_bytes: u64,
}

/// Runs on local disks. Clones share them.
#[derive(Clone, Debug)]
pub struct DiskRuns {
    dirs: Arc<[Directory]>,
    disk_bytes_max: u64,
    cache: Cached,
}

/// A directory, opened when something is first written to it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Whether the last run could not be written: then the others come first.
    failed: AtomicBool,
    opened: Mutex<Option<Arc<Folder>>>,
}

impl Directory {
    fn bytes(&self) -> u64 {
        self.opened.lock().as_ref().map_or(0, |folder| folder.bytes())
    }

    fn folder(&self, cache: &Cache) -> Result<Arc<Folder>, RunError> {
        let mut opened = self.opened.lock();
        if let Some(folder) = &*opened {
            return Ok(Arc::clone(folder));
        }
        let folder = Folder::open(&self.path, cache);
        let folder = folder.map_err(|reason| RunError(format!("open {}: {reason}", self.path.display())))?;
        Ok(Arc::clone(opened.insert(Arc::new(folder))))
    }
}

#[derive(Clone)]
struct Cached(Cache);

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cache").field(&self.0.get_usage()).finish()
    }
}

impl DiskRuns {
    /// Deletes what an earlier life left in the directories. What another process has open is refused.
    pub fn open(config: &RunsConfig) -> Result<Self, OpenError> {
        let open = |dir: &PathBuf| {
            let path = dir.join("sanso-views");
            match Folder::clear(&path) {
                Ok(()) => Ok(Directory { path, failed: AtomicBool::new(false), opened: Mutex::default() }),
                Err(reason) => Err(OpenError { path, reason }),
            }
        };
        let dirs = config.dirs.iter().map(open).collect::<Result<_, _>>()?;
        let cache = Cached(Cache::new_lru_cache(config.cache_bytes));
        Ok(Self { dirs, disk_bytes_max: config.disk_bytes_max, cache })
    }

    /// Returns what is held.
    pub fn usage(&self) -> RunsUsage {
        RunsUsage {
            disk_bytes: self.dirs.iter().map(Directory::bytes).sum(),
            cache_bytes: self.cache.0.get_usage() as u64,
        }
    }
}

impl RunStore for DiskRuns {
    /// Writes a run to the directory that holds least, of those that took the last one that they were given.
    fn write(
        &self,
        kinds: &Arc<[AggregateKind]>,
        groups: RunGroups<'_>,
    ) -> Result<Arc<dyn SortedRun>, RunError> {
        let first = self.dirs.iter().min_by_key(|dir| (dir.failed.load(Ordering::Relaxed), dir.bytes()));
        let dir = first.ok_or_else(|| RunError("no directory is given".to_owned()))?;
        let room = self.disk_bytes_max.saturating_sub(self.usage().disk_bytes);
        let written =
            dir.folder(&self.cache.0).and_then(|folder| Folder::write(&folder, kinds, groups, room));
        dir.failed.store(written.is_err(), Ordering::Relaxed);
        Ok(Arc::new(DiskRun { kinds: Arc::clone(kinds), range: written?, unreadable: OnceLock::new() }))
    }
}

/// A run: a range of keys of one directory.
#[derive(Debug)]
struct DiskRun {
    kinds: Arc<[AggregateKind]>,
    range: Range,
    /// Why it can't be read, once it could not: it is told once, and the disk is not asked again.
    unreadable: OnceLock<RunError>,
}

impl SortedRun for DiskRun {
    fn groups(&self) -> u64 {
        self.range.groups
    }

    fn is_lost(&self) -> bool {
        self.unreadable.get().is_some()
    }

    fn read<'a>(&'a self, part: Part<'a>) -> RunGroups<'a> {
        if let Some(error) = self.unreadable.get() {
            return Box::new(iter::once(Err(error.clone())));
        }
        let told = |error: &RunError| {
            if self.unreadable.set(error.clone()).is_ok() {
                tracing::error!(
                    %error,
                    "groups of a view can't be read from disk: they are read from the dataset; look at that disk"
                );
            }
        };
        Box::new(self.range.read(&self.kinds, part).map(move |group| group.inspect_err(told)))
    }
}
