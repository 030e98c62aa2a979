//! The ledger: which block is where, in what order they were used, and who leaves. Pure.
//!
//! ```text
//!   admit ─▶ Kept                           it fits, or who was used longest ago dropped out at once
//!          ─▶ Spill(victim) ─▶ the driver writes it, calls `left`, and admits again
//!          ─▶ Write                         it belongs on disk: `place`, write, `written` or `lost`
//! ```
//!
//! Invariants: what memory holds, and the files placed, are never more than their bounds; a victim is
//! always the one used longest ago; a file of which a copy is in memory leaves the disk before one
//! that is the only copy. A file is told from another of the same block by its serial number, so what
//! is deleted late is never the file that was written since.

use std::collections::{BTreeMap, BTreeSet};

use sanso_state::StorageLevel;

use crate::BlockId;
use crate::neighbours::HeldBlock;

/// What may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of rows in memory.
    pub memory_bytes_max: u64,
    /// Bytes of files, in all folders together.
    pub disk_bytes_max: u64,
    /// Folders for files.
    pub folders: usize,
}

/// A file of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// The index of its folder.
    pub folder: usize,
    /// Its number among all files.
    pub serial: u64,
    /// Its size.
    pub bytes: u64,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In memory.
    Memory,
    /// In a file, and not in memory.
    File(FilePlace),
    /// Nowhere.
    Nowhere,
}

/// What is to become of a block that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in memory from now on.
    Kept,
    /// It is where it belongs already.
    Known,
    /// This block is to be written to disk, then to leave memory; then ask again.
    Spill(BlockId),
    /// It belongs on disk.
    Write,
    /// It is not kept.
    Refused,
}

/// Where a file is to be written, and what has to be deleted for it first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The file.
    pub file: FilePlace,
    /// Files of others that left the ledger.
    pub deleted: Vec<(BlockId, FilePlace)>,
}

/// What happened, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks found in memory.
    pub from_memory: u64,
    /// Blocks read from disk.
    pub from_disk: u64,
    /// Blocks got by waiting for another's read of them.
    pub shared: u64,
    /// Blocks that were nowhere.
    pub missed: u64,
    /// Blocks that left memory and are on disk.
    pub evicted_to_disk: u64,
    /// Blocks that left memory and are gone.
    pub evicted: u64,
    /// Files that left the disk for others.
    pub deleted: u64,
    /// Blocks too large for memory that could not go to disk.
    pub refused_by_memory: u64,
    /// Blocks that the disk did not take: no room in its bound, full, or broken.
    pub refused_by_disk: u64,
    /// Files that were not what was written.
    pub damaged: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    level: StorageLevel,
    /// The bytes in memory, if it is there.
    memory: Option<u64>,
    /// The file, if one is placed.
    file: Option<FilePlace>,
    /// Whether the file is written.
    is_written: bool,
    /// When it was used last, counted in uses.
    used: u64,
}

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Ledger {
    bounds: Bounds,
    blocks: BTreeMap<BlockId, Entry>,
    uses: u64,
    serials: u64,
    memory_bytes: u64,
    folder_bytes: Vec<u64>,
    /// What happened; the driver counts what it alone sees.
    pub counts: Counts,
}

impl Ledger {
    /// Begins without blocks.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            blocks: BTreeMap::new(),
            uses: 0,
            serials: 0,
            memory_bytes: 0,
            folder_bytes: vec![0; bounds.folders],
            counts: Counts::default(),
        }
    }

    /// Returns what may be held.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Returns the bytes of rows in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Returns the bytes of files, those being written included.
    pub fn disk_bytes(&self) -> u64 {
        self.folder_bytes.iter().sum()
    }

    /// Returns the number of blocks known.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Says whether no block is known.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Says where a block is. A file that is still being written is not there yet.
    pub fn find(&self, id: BlockId) -> Found {
        match self.blocks.get(&id) {
            Some(Entry { memory: Some(_), .. }) => Found::Memory,
            Some(Entry { file: Some(file), is_written: true, .. }) => Found::File(*file),
            _ => Found::Nowhere,
        }
    }

    /// Lists the blocks that are somewhere.
    pub fn held(&self) -> Vec<HeldBlock> {
        let held = |(id, entry): (&BlockId, &Entry)| {
            let on_disk = entry.file.filter(|_| entry.is_written).map(|file| file.bytes);
            let bytes = entry.memory.or(on_disk)?;
            Some(HeldBlock { id: *id, in_memory: entry.memory.is_some(), bytes })
        };
        self.blocks.iter().filter_map(held).collect()
    }

    /// Notes that a block was used, and the level its dataset has now.
    pub fn used(&mut self, id: BlockId, level: StorageLevel) {
        self.uses += 1;
        if let Some(entry) = self.blocks.get_mut(&id) {
            (entry.used, entry.level) = (self.uses, level);
        }
    }

    /// Takes a block of this weight in, or says what has to happen first. Returns also the blocks
    /// that left memory on the spot: those that are on disk already, or belong nowhere else.
    pub fn admit(&mut self, id: BlockId, level: StorageLevel, bytes: u64) -> (Admission, Vec<BlockId>) {
        self.used(id, level);
        let mut left = Vec::new();
        let known = self.blocks.get(&id);
        let (is_held, has_file) =
            known.map_or((false, false), |known| (known.memory.is_some(), known.file.is_some()));
        if level == StorageLevel::None || is_held {
            return (Admission::Known, left);
        }
        if !level.in_memory() || bytes > self.bounds.memory_bytes_max {
            if level.on_disk() {
                return (if has_file { Admission::Known } else { Admission::Write }, left);
            }
            self.counts.refused_by_memory += 1;
            return (Admission::Refused, left);
        }
        while self.memory_bytes + bytes > self.bounds.memory_bytes_max {
            let Some(victim) = self.least_recent(|entry| entry.memory.is_some()) else { break };
            let entry = self.blocks[&victim];
            if !entry.is_written && entry.level.on_disk() {
                return (Admission::Spill(victim), left);
            }
            self.left(victim);
            left.push(victim);
        }
        let entry = self.entry(id, level);
        entry.memory = Some(bytes);
        self.memory_bytes += bytes;
        (Admission::Kept, left)
    }

    /// Notes that a block left memory, whether or not it could be written before.
    pub fn left(&mut self, id: BlockId) {
        let Some(entry) = self.blocks.get_mut(&id) else { return };
        let Some(bytes) = entry.memory.take() else { return };
        self.memory_bytes -= bytes;
        let is_on_disk = entry.is_written;
        self.counts.evicted_to_disk += u64::from(is_on_disk);
        self.counts.evicted += u64::from(!is_on_disk);
        self.drop_if_nowhere(id);
    }

    /// Finds a place for a block's file of this size, in the emptiest folder that is not `avoided`.
    /// None when there is no room in the bound: what is being written never makes room.
    pub fn place(
        &mut self,
        id: BlockId,
        level: StorageLevel,
        bytes: u64,
        avoided: &BTreeSet<usize>,
    ) -> Option<Placed> {
        let folders = (0..self.bounds.folders).filter(|folder| !avoided.contains(folder));
        let Some(folder) = folders.min_by_key(|folder| self.folder_bytes[*folder]) else {
            self.counts.refused_by_disk += 1;
            return None;
        };
        let mut deleted = Vec::new();
        if let Some(file) = self.blocks.get(&id).and_then(|entry| entry.file) {
            self.lost(id, file);
            deleted.push((id, file));
        }
        let unwritten = self.blocks.values().filter(|entry| !entry.is_written);
        let fixed: u64 = unwritten.filter_map(|entry| entry.file).map(|file| file.bytes).sum();
        if fixed + bytes > self.bounds.disk_bytes_max {
            self.counts.refused_by_disk += 1;
            return None;
        }
        while self.disk_bytes() + bytes > self.bounds.disk_bytes_max {
            let Some((victim, file)) = self.least_needed_file() else { break };
            self.lost(victim, file);
            self.counts.deleted += 1;
            deleted.push((victim, file));
        }
        let file = FilePlace { folder, serial: self.next_serial(), bytes };
        let entry = self.entry(id, level);
        (entry.file, entry.is_written) = (Some(file), false);
        self.folder_bytes[folder] += bytes;
        Some(Placed { file, deleted })
    }

    /// Notes that a placed file is written. Says whether it is still wanted; if not, it is to be deleted.
    pub fn written(&mut self, id: BlockId, file: FilePlace) -> bool {
        match self.blocks.get_mut(&id) {
            Some(entry) if entry.file == Some(file) => {
                entry.is_written = true;
                true
            }
            _ => false,
        }
    }

    /// Notes that a file is not there, or not what was written.
    pub fn lost(&mut self, id: BlockId, file: FilePlace) {
        let Some(entry) = self.blocks.get_mut(&id).filter(|entry| entry.file == Some(file)) else { return };
        (entry.file, entry.is_written) = (None, false);
        self.folder_bytes[file.folder] -= file.bytes;
        self.drop_if_nowhere(id);
    }

    /// Forgets a block; returns its file, which is to be deleted. One that is still being written
    /// is not wanted once it is.
    pub fn remove(&mut self, id: BlockId) -> Option<FilePlace> {
        let entry = self.blocks.remove(&id)?;
        self.memory_bytes -= entry.memory.unwrap_or(0);
        let file = entry.file?;
        self.folder_bytes[file.folder] -= file.bytes;
        entry.is_written.then_some(file)
    }

    /// Takes in a file of an earlier life, as used after all those before; returns what has to be
    /// deleted for it.
    pub fn found(&mut self, id: BlockId, file: FilePlace) -> Vec<(BlockId, FilePlace)> {
        self.serials = self.serials.max(file.serial);
        if file.bytes > self.bounds.disk_bytes_max {
            return vec![(id, file)];
        }
        let known = self.remove(id).map(|file| (id, file));
        let mut deleted: Vec<_> = known.into_iter().collect();
        while self.disk_bytes() + file.bytes > self.bounds.disk_bytes_max {
            let Some((victim, victims)) = self.least_needed_file() else { break };
            self.lost(victim, victims);
            deleted.push((victim, victims));
        }
        let entry = self.entry(id, StorageLevel::Disk);
        (entry.file, entry.is_written) = (Some(file), true);
        self.folder_bytes[file.folder] += file.bytes;
        deleted
    }

    /// Returns a block's entry; one that was not known is used now.
    fn entry(&mut self, id: BlockId, level: StorageLevel) -> &mut Entry {
        self.uses += 1;
        let new = Entry { level, memory: None, file: None, is_written: false, used: self.uses };
        let entry = self.blocks.entry(id).or_insert(new);
        entry.level = level;
        entry
    }

    fn next_serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    fn least_recent(&self, is_meant: impl Fn(&Entry) -> bool) -> Option<BlockId> {
        let meant = self.blocks.iter().filter(|(_, entry)| is_meant(entry));
        meant.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id)
    }

    fn least_needed_file(&self) -> Option<(BlockId, FilePlace)> {
        let written = self.blocks.iter().filter(|(_, entry)| entry.is_written);
        let (id, entry) = written.min_by_key(|(_, entry)| (entry.memory.is_none(), entry.used))?;
        entry.file.map(|file| (*id, file))
    }

    fn drop_if_nowhere(&mut self, id: BlockId) {
        if self.blocks.get(&id).is_some_and(|entry| entry.memory.is_none() && entry.file.is_none()) {
            self.blocks.remove(&id);
        }
    }
}
