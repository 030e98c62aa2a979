//! The store of a node's blocks: does what the ledger decides.
//!
//! Reading, writing and coding run on the blocking pool, and to their end, also where the caller goes
//! away. One block at a time makes room in memory, so that what waits to be written is bounded too;
//! files are written side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use sanso_state::StorageLevel;

use crate::BlockId;
use crate::error::BlockError;
use crate::file;
use crate::folder::Folder;
use crate::ledger::{Admission, Bounds, Counts, FilePlace, Found, Ledger};
use crate::neighbours::HeldBlock;
use crate::rows::Rows;

/// What a store may hold, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockConfig {
    /// Bytes of rows in memory.
    pub memory_bytes_max: u64,
    /// Bytes of files, in all spill directories together.
    pub disk_bytes_max: u64,
    /// The spill directories, one for each disk. None: nothing is kept on disk.
    pub spill_dirs: Vec<PathBuf>,
}

/// How a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It will be wanted again: it counts as used, and comes back to memory from disk.
    Again,
    /// In a pass over a whole dataset: leaves everything where it is, so that a pass over more than
    /// fits in memory does not drive out what others use.
    Once,
}

/// What a store holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Blocks in memory or on disk.
    pub blocks: u64,
    /// Bytes of rows in memory.
    pub memory_bytes: u64,
    /// Bytes of files.
    pub disk_bytes: u64,
}

type Load = Shared<BoxFuture<'static, Option<Arc<Rows>>>>;

/// The blocks of this node. Clones share them.
#[derive(Clone)]
pub struct BlockStore(Arc<Inner>);

struct Inner {
    folders: Vec<Folder>,
    /// Held by the one who makes room in memory.
    making_room: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    rows: BTreeMap<BlockId, Arc<Rows>>,
    /// Reads from disk under way.
    loads: BTreeMap<BlockId, Load>,
}

impl BlockStore {
    /// Opens a store. Files of an earlier life are found again: a block's name says what it holds, so they are as good as new ones, and save a restart from
    /// reading or computing them. Refuses a spill directory that can't be made or that another store uses. Blocks on the
    /// local disk.
    pub fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        let bounds = Bounds {
            memory_bytes_max: config.memory_bytes_max,
            disk_bytes_max: config.disk_bytes_max,
            folders: config.spill_dirs.len(),
        };
        let mut folders = Vec::with_capacity(bounds.folders);
        let mut files = Vec::new();
        for (index, directory) in config.spill_dirs.iter().enumerate() {
            let (folder, earlier) = Folder::open(directory)?;
            folders.push(folder);
            files.extend(earlier.into_iter().map(|file| (index, file)));
        }
        // The order of use is not known any longer; that of writing comes near it.
        files.sort_by_key(|(_, file)| (file.modified, file.serial));
        let mut ledger = Ledger::new(bounds);
        for (folder, earlier) in files {
            let file = FilePlace { folder, serial: earlier.serial, bytes: earlier.bytes };
            for (id, file) in ledger.found(earlier.id, file) {
                folders[file.folder].delete(id, file);
            }
        }
        let state = State { ledger, rows: BTreeMap::new(), loads: BTreeMap::new() };
        Ok(Self(Arc::new(Inner { folders, making_room: Mutex::default(), state: Mutex::new(state) })))
    }

    /// Opens a store that keeps blocks in memory only.
    pub fn in_memory(memory_bytes_max: u64) -> Self {
        let config = BlockConfig { memory_bytes_max, ..BlockConfig::default() };
        Self::open(&config).expect("without a spill directory there is nothing to refuse")
    }

    /// Puts a block where its level says, as far as there is room: others leave, least recently used
    /// first, and are written to disk before this returns where their level says so. What can't be kept
    /// is not kept; it is counted. A block that is known stays as it is.
    pub async fn put(&self, id: BlockId, level: StorageLevel, rows: Arc<Rows>) {
        if level == StorageLevel::None || rows.batches().is_empty() {
            return;
        }
        let inner = Arc::clone(&self.0);
        // Ends badly only when the runtime shuts down; then nothing need be kept.
        let _ = tokio::task::spawn_blocking(move || inner.keep(id, level, &rows)).await;
    }

    /// Gets a block from memory, else from disk; None when it is in neither, or its file is not what
    /// was written: then the caller computes or reads it anew. Those who ask for one block while it
    /// is read from disk share the read.
    pub async fn get(&self, id: BlockId, level: StorageLevel, reading: Reading) -> Option<Arc<Rows>> {
        if level == StorageLevel::None {
            return None;
        }
        let load = {
            let mut state = self.0.state.lock();
            let found = state.ledger.find(id);
            if reading == Reading::Again {
                state.ledger.used(id, level);
            }
            match found {
                Found::Memory => {
                    state.ledger.counts.from_memory += 1;
                    return state.rows.get(&id).cloned();
                }
                Found::Nowhere => {
                    state.ledger.counts.missed += 1;
                    return None;
                }
                Found::File(file) => match state.loads.get(&id).cloned() {
                    Some(load) => {
                        state.ledger.counts.shared += 1;
                        load
                    }
                    None => {
                        let inner = Arc::clone(&self.0);
                        let load = tokio::task::spawn_blocking(move || inner.load(id, file, level, reading));
                        let load = load.map(|done| done.unwrap_or(None)).boxed().shared();
                        state.loads.insert(id, load.clone());
                        load
                    }
                },
            }
        };
        load.await
    }

    /// Returns a block as bytes, for another node; None when it is not here. Does not count as use.
    pub async fn export(&self, id: BlockId) -> Option<Bytes> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || inner.export(id)).await.unwrap_or(None)
    }

    /// Returns a block as bytes, as [`BlockStore::export`] does, without keeping it.
    pub async fn encoded(id: BlockId, rows: Arc<Rows>) -> Result<Bytes, String> {
        let encoded = tokio::task::spawn_blocking(move || file::encode(id, rows.batches())).await;
        let encoded = encoded.map_err(|error| error.to_string())?;
        Ok(encoded.map_err(|error| error.to_string())?.into())
    }

    /// Returns the rows of a block that another node exported. Says what is wrong with bytes that are not
    /// what was exported.
    pub async fn decoded(id: BlockId, bytes: Bytes) -> Result<Arc<Rows>, String> {
        let decoded = tokio::task::spawn_blocking(move || file::decode(id, &bytes)).await;
        Ok(Arc::new(Rows::new(decoded.map_err(|error| error.to_string())??)))
    }

    /// Returns what may be held.
    pub fn bounds(&self) -> Bounds {
        self.0.state.lock().ledger.bounds()
    }

    /// Says where a block is, without counting it as used.
    pub fn find(&self, id: BlockId) -> Found {
        self.0.state.lock().ledger.find(id)
    }

    /// Forgets a block that nobody will ask for again. To be called within a runtime, which deletes its file.
    pub fn remove(&self, id: BlockId) {
        let file = {
            let mut state = self.0.state.lock();
            state.rows.remove(&id);
            state.ledger.remove(id)
        };
        if let Some(file) = file {
            let inner = Arc::clone(&self.0);
            // Not waited for: a file that stays is found, and fits the bound, at the next start.
            drop(tokio::task::spawn_blocking(move || inner.folders[file.folder].delete(id, file)));
        }
    }

    /// Lists the blocks that are here.
    pub fn held(&self) -> Vec<HeldBlock> {
        self.0.state.lock().ledger.held()
    }

    /// Returns what is held now.
    pub fn usage(&self) -> Usage {
        let ledger = &self.0.state.lock().ledger;
        Usage {
            blocks: ledger.len() as u64,
            memory_bytes: ledger.memory_bytes(),
            disk_bytes: ledger.disk_bytes(),
        }
    }

    /// Returns what happened since the store was opened.
    pub fn counts(&self) -> Counts {
        self.0.state.lock().ledger.counts
    }
}

impl Inner {
    fn keep(&self, id: BlockId, level: StorageLevel, rows: &Arc<Rows>) {
        let making_room = level.in_memory().then(|| self.making_room.lock());
        loop {
            match self.admit(id, level, rows) {
                Admission::Kept | Admission::Known | Admission::Refused => return,
                Admission::Write => break,
                Admission::Spill(victim) => self.spill(victim),
            }
        }
        drop(making_room);
        self.write(id, level, rows);
    }

    fn admit(&self, id: BlockId, level: StorageLevel, rows: &Arc<Rows>) -> Admission {
        let mut state = self.state.lock();
        let (admission, left) = state.ledger.admit(id, level, rows.bytes());
        for victim in left {
            state.rows.remove(&victim);
        }
        if admission == Admission::Kept {
            state.rows.insert(id, Arc::clone(rows));
        }
        admission
    }

    /// Writes a block to disk, if it can be, and takes it out of memory.
    fn spill(&self, victim: BlockId) {
        let held = self.state.lock().rows.get(&victim).cloned();
        if let Some(rows) = held {
            self.write(victim, StorageLevel::MemoryDisk, &rows);
        }
        let mut state = self.state.lock();
        state.ledger.left(victim);
        state.rows.remove(&victim);
    }

    /// Writes a block to the emptiest folder that takes it.
    fn write(&self, id: BlockId, level: StorageLevel, rows: &Rows) {
        let bytes = match file::encode(id, rows.batches()) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(block = %id.0, %error, "a block can't be written as Arrow and is not kept");
                self.state.lock().ledger.counts.refused_by_disk += 1;
                return;
            }
        };
        let mut avoided = BTreeSet::new();
        loop {
            let placed = self.state.lock().ledger.place(id, level, bytes.len() as u64, &avoided);
            let Some(placed) = placed else { return };
            placed.deleted.iter().for_each(|(id, file)| self.folders[file.folder].delete(*id, *file));
            let (file, folder) = (placed.file, &self.folders[placed.file.folder]);
            let outcome = folder.write(id, file, &bytes);
            folder.tell(&outcome);
            if outcome.is_ok() {
                let is_wanted = self.state.lock().ledger.written(id, file);
                if !is_wanted {
                    folder.delete(id, file);
                }
                return;
            }
            self.state.lock().ledger.lost(id, file);
            avoided.insert(file.folder);
        }
    }

    fn export(&self, id: BlockId) -> Option<Bytes> {
        let (found, rows) = {
            let state = self.state.lock();
            (state.ledger.find(id), state.rows.get(&id).cloned())
        };
        match found {
            Found::Memory => file::encode(id, rows?.batches()).ok().map(Bytes::from),
            // As it is: who takes it in holds it against its checksum.
            Found::File(file) => self.folders[file.folder].read(id, file).ok().map(Bytes::from),
            Found::Nowhere => None,
        }
    }

    fn load(&self, id: BlockId, file: FilePlace, level: StorageLevel, reading: Reading) -> Option<Arc<Rows>> {
        let _end = LoadEnd(self, id);
        let folder = &self.folders[file.folder];
        let read = folder.read(id, file).map_err(|error| error.to_string());
        let decoded = read.and_then(|bytes| file::decode(id, &bytes));
        let mut state = self.state.lock();
        match decoded {
            Err(what) => {
                // Files that made room meanwhile, or were removed, are no damage.
                if state.ledger.find(id) == Found::File(file) {
                    state.ledger.lost(id, file);
                    state.ledger.counts.damaged += 1;
                    let path = folder.shown(id, file);
                    tracing::warn!(path, what, "a block's file is damaged; the block is made again");
                }
                state.ledger.counts.missed += 1;
                drop(state);
                folder.delete(id, file);
                None
            }
            Ok(batches) => {
                state.ledger.counts.from_disk += 1;
                drop(state);
                let rows = Arc::new(Rows::new(batches));
                if reading == Reading::Again && level.in_memory() {
                    self.keep(id, level, &rows);
                }
                Some(rows)
            }
        }
    }
}

/// Ends a load, however it ends.
struct LoadEnd<'a>(&'a Inner, BlockId);

impl Drop for LoadEnd<'_> {
    fn drop(&mut self) {
        self.0.state.lock().loads.remove(&self.1);
    }
}
