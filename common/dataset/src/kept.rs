//! Files of the newest-version table as blocks: what was written or read is kept at hand by this node.
//!
//! ```text
//!   put_newest ──rows──▶ block, replacing the part's block before
//!   newest_at_hand ─▶ memory, else this node's disk where that is cheaper than the store, else None
//! ```
//!
//! A block bears the fingerprint of its file's bytes, so it holds the very rows of the file, whoever made
//! either, and never those of a file that was made again and turned out another. Of each part of a
//! table only the newest file is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use arrow::array::RecordBatch;
use sanso_block::recovery::{Costs, Offer, Way};
use sanso_block::{BlockId, BlockStore, Counts, Found, Reading, Rows};
use sanso_state::{LogPartition, StorageLevel};

use crate::dataset::Dataset;
use crate::manifest::NewestFile;

/// The blocks of a dataset's tables on this node.
pub(crate) struct Kept {
    store: BlockStore,
    tables: Mutex<BTreeMap<String, Table>>,
}

#[derive(Default)]
struct Table {
    level: Option<StorageLevel>,
    costs: Costs,
    /// The block of each part.
    parts: BTreeMap<(LogPartition, Option<i32>), BlockId>,
}

impl Kept {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<String, Table>> {
        self.tables.lock().expect("no panic while it is held")
    }

    /// Runs with the table of a source and its level; None when it is kept nowhere.
    fn table<T>(&self, source: &str, run: impl FnOnce(&mut Table, StorageLevel) -> T) -> Option<T> {
        let mut tables = self.tables();
        let table = tables.get_mut(source)?;
        let level = table.level.filter(|level| *level != StorageLevel::None)?;
        Some(run(table, level))
    }

    /// Notes a part's block; returns the one that it replaces.
    fn replace(&self, source: &str, file: &NewestFile) -> Option<(StorageLevel, Option<BlockId>)> {
        let id = BlockId(file.content);
        self.table(source, |table, level| {
            let before = table.parts.insert((file.partition, file.date), id);
            (level, before.filter(|before| *before != id))
        })
    }
}

impl Dataset {
    /// Keeps the newest-version tables that are declared by [`Dataset::keep_table`] as blocks of a
    /// store. For this handle and its clones.
    #[must_use]
    pub fn with_blocks(mut self, store: BlockStore) -> Self {
        self.kept = Some(Arc::new(Kept { store, tables: Mutex::default() }));
        self
    }

    /// Declares where the blocks of a source's newest-version table are kept on this node; those of a source
    /// that is not declared are kept nowhere.
    pub fn keep_table(&self, source: &str, level: StorageLevel) {
        if let Some(kept) = &self.kept {
            kept.tables().entry(source.to_owned()).or_default().level = Some(level);
        }
    }

    /// Returns what happened to this node's blocks; None where none are kept.
    pub fn block_counts(&self) -> Option<Counts> {
        self.kept.as_ref().map(|kept| kept.store.counts())
    }

    /// Returns the rows of a file of the newest-version table if they are at hand: in memory, or on
    /// this node's disk where that is the cheaper way, by what both took before. None says nothing of
    /// the file; [`Dataset::read_newest`] does.
    pub async fn newest_at_hand(
        &self,
        source: &str,
        file: &NewestFile,
        reading: Reading,
    ) -> Option<Arc<Rows>> {
        let kept = self.kept.as_ref()?;
        let id = BlockId(file.content);
        let offers = |way: Way, bytes| [Offer { way, bytes }, Offer { way: Way::Dataset, bytes: file.bytes }];
        let (level, offered) = kept.table(source, |table, level| {
            let offers = match kept.store.find(id) {
                Found::File(on_disk) => offers(Way::Disk, on_disk.bytes),
                Found::Memory | Found::Nowhere => offers(Way::Memory, 0),
            };
            (level, table.costs.cheapest(&offers).filter(|offer| offer.way != Way::Dataset))
        })?;
        let offer = offered?;
        let started = Instant::now();
        let rows = kept.store.get(id, level, reading).await?;
        kept.table(source, |table, _| {
            table.parts.insert((file.partition, file.date), id);
            if offer.way == Way::Disk {
                table.costs.observe(offer, started.elapsed());
            }
        });
        Some(rows)
    }

    /// Notes how long it took to read a file from the store.
    pub(crate) fn observe_read(&self, source: &str, file: &NewestFile, started: Instant) {
        let offer = Offer { way: Way::Dataset, bytes: file.bytes };
        if let Some(kept) = &self.kept {
            kept.table(source, |table, _| table.costs.observe(offer, started.elapsed()));
        }
    }

    /// Keeps the rows of a file that was written, instead of those of the part's file before.
    pub(crate) async fn keep_newest(&self, source: &str, file: &NewestFile, rows: RecordBatch) {
        let Some(kept) = &self.kept else { return };
        let Some((level, before)) = kept.replace(source, file) else { return };
        if let Some(before) = before {
            kept.store.remove(before);
        }
        let rows = Arc::new(Rows::new(vec![rows]));
        kept.store.put(BlockId(file.content), level, rows).await;
    }
}
