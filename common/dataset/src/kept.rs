//! Files of the newest-version table as blocks: what was written or read is kept at hand, here and on other nodes.
//!
//! ```text
//!   put_newest ──rows──▶ block, replacing the part's block before ──▶ offered to the part's other places
//!   newest_at_hand ─▶ memory, else this node's disk or another node, where that is cheaper than the
//!                     dataset, else None
//! ```
//!
//! A block bears the fingerprint of its file's bytes, so it holds the very rows of the file, whoever made
//! either, and never those of a file that was made again and turned out another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::future::join_all;
use sanso_block::recovery::{Costs, Offer, Way};
use sanso_block::replicas::{Room, TableFigures, decide};
use sanso_block::{
    BlockId, BlockNode, BlockStore, Counts, Found, Keeping, Made, Neighbours, NodeBlocks, OfferedBlock,
    PartId, Reading, Rows, SharedBlocks,
};
use sanso_state::{LogPartition, Storage, StorageLevel};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::manifest::NewestFile;

/// How many of a part's places are asked for its block, whatever is declared: the node that worked on it before
/// this one, or would have, may have it.
const MAY_HAVE: usize = 3;
/// A node that takes longer to say that it has no block is as bad as a slow one.
const SLOW: Duration = Duration::from_millis(100);

/// The blocks of a dataset's tables on this node.
pub(crate) struct Kept {
    pub(crate) blocks: SharedBlocks,
    tables: Mutex<BTreeMap<String, Table>>,
}

struct Table {
    storage: Storage,
    costs: Costs,
    /// What it took to compute each log partition's parts, where this node did.
    computed: BTreeMap<LogPartition, Computed>,
    /// How many nodes were to keep each block when it was decided last.
    replicas: u8,
}

#[derive(Clone, Copy)]
struct Computed {
    /// Bytes of all segments that the parts are made from.
    input_bytes: u64,
    /// How long the last segments took.
    took: Duration,
}

impl Kept {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<String, Table>> {
        self.tables.lock().expect("no panic while it is held")
    }

    /// Runs with the table of a source; None when it is kept nowhere.
    fn table<T>(&self, source: &str, run: impl FnOnce(&mut Table) -> T) -> Option<T> {
        let mut tables = self.tables();
        tables.get_mut(source).filter(|table| table.storage.level != StorageLevel::None).map(run)
    }

    /// Decides how many nodes are to keep each block of a table, and says why.
    fn figures(&self, source: &str) -> Option<TableFigures> {
        let (bounds, usage) = (self.blocks.store().bounds(), self.blocks.store().usage());
        let room = Room {
            nodes: self.blocks.neighbours().map_or(1, |to| to.places(source, LogPartition(0)).len()),
            memory_bytes: bounds.memory_bytes_max.saturating_sub(usage.memory_bytes),
            disk_bytes: bounds.disk_bytes_max.saturating_sub(usage.disk_bytes),
        };
        let mut share = self.blocks.share(source);
        self.table(source, |table| {
            share.input_bytes = table.computed.values().map(|computed| computed.input_bytes).sum();
            let verdict = decide(table.storage, share, room, &table.costs, table.replicas);
            table.replicas = verdict.replicas;
            let computed_ms = table.computed.iter();
            let computed_ms =
                computed_ms.map(|(l, computed)| (l.0, computed.took.as_millis() as u64)).collect();
            TableFigures::of(table.storage, share, verdict, &table.costs, computed_ms)
        })
    }
}

impl Keeping for Kept {
    fn level(&self, dataset: &str) -> Option<StorageLevel> {
        self.table(dataset, |table| table.storage.level)
    }

    fn replicas(&self, dataset: &str) -> u8 {
        self.figures(dataset).map_or(0, |figures| figures.replicas)
    }
}

impl Dataset {
    /// Keeps the newest-version tables that are declared by [`Dataset::keep_table`] as blocks of a
    /// store. For this handle and its clones.
    #[must_use]
    pub fn with_blocks(mut self, store: BlockStore) -> Self {
        self.kept = Some(Arc::new(Kept { blocks: SharedBlocks::new(store), tables: Mutex::default() }));
        self
    }

    /// Declares how the blocks of a source's newest-version table are kept; those of a source that is not
    /// declared are kept nowhere.
    pub fn keep_table(&self, source: &str, storage: Storage) {
        let Some(kept) = &self.kept else { return };
        let new = || Table { storage, costs: Costs::default(), computed: BTreeMap::new(), replicas: 1 };
        kept.tables().entry(source.to_owned()).or_insert_with(new).storage = storage;
    }

    /// Returns what happened to this node's blocks; None where none are kept.
    pub fn block_counts(&self) -> Option<Counts> {
        self.kept.as_ref().map(|kept| kept.blocks.store().counts())
    }

    /// Returns the rows of a file of the newest-version table if they are at hand, and the way they
    /// came: from memory; or from this node's disk or another node where that is the cheaper way, by what
    /// all took before. None says nothing of the file; [`Dataset::read_newest`] does.
    /// `version`: a version of the table that has the file. A pass over a whole table ([`Reading::Once`])
    /// asks no other node.
    pub async fn newest_at_hand(
        &self,
        source: &str,
        version: u64,
        file: &NewestFile,
        reading: Reading,
    ) -> Option<(Arc<Rows>, Way)> {
        let blocks = &self.kept.as_ref()?.blocks;
        let made = made(file, version);
        let others = match reading {
            Reading::Again => blocks.others(source, file.partition, MAY_HAVE),
            Reading::Once => Vec::new(),
        };
        let offers = |way: Way, bytes| [Offer { way, bytes }, Offer { way: Way::Dataset, bytes: file.bytes }];
        let offers = match blocks.store().find(made.id) {
            Found::File(on_disk) => offers(Way::Disk, on_disk.bytes),
            Found::Nowhere if !others.is_empty() => offers(Way::Replica, file.bytes),
            Found::Memory | Found::Nowhere => offers(Way::Memory, 0),
        };
        let chosen = self.table(source, |table| (table.storage.level, table.costs.cheapest(&offers)));
        let (level, offer) = chosen?;
        let offer = offer.filter(|offer| offer.way != Way::Dataset)?;
        let started = Instant::now();
        let rows = match offer.way {
            Way::Replica => {
                let wanted = OfferedBlock { part: part(source, file), version, id: made.id };
                blocks.fetch(&others, &wanted, level).await
            }
            _ => blocks.store().get(made.id, level, reading).await,
        };
        let took = started.elapsed();
        let is_telling = match offer.way {
            // Nodes that have nothing cost next to nothing; those that don't answer, as long as they take.
            Way::Replica => rows.is_some() || took > SLOW,
            way => way == Way::Disk && rows.is_some(),
        };
        if is_telling {
            self.table(source, |table| table.costs.observe(offer, took));
        }
        let rows = rows?;
        blocks.found(part(source, file), made, &rows);
        Some((rows, offer.way))
    }

    /// Notes how long it took to read a file from the store.
    pub(crate) fn observe_read(&self, source: &str, file: &NewestFile, started: Instant) {
        let offer = Offer { way: Way::Dataset, bytes: file.bytes };
        self.table(source, |table| table.costs.observe(offer, started.elapsed()));
    }

    /// Notes how long it took to compute a log partition's part of a table from segments of so many bytes, and how
    /// many bytes all its segments have.
    pub fn observe_computed(
        &self,
        source: &str,
        partition: LogPartition,
        bytes: u64,
        took: Duration,
        input_bytes: u64,
    ) {
        self.table(source, |table| {
            table.costs.note(Offer { way: Way::Recompute, bytes }, took);
            table.computed.insert(partition, Computed { input_bytes, took });
        });
    }

    /// Keeps the rows of a file that was written, instead of those of the part's file before, and lets the
    /// part's other places know.
    pub(crate) async fn keep_newest(&self, source: &str, version: u64, file: &NewestFile, rows: RecordBatch) {
        let Some(kept) = &self.kept else { return };
        let Some(level) = kept.level(source) else { return };
        let rows = Arc::new(Rows::new(vec![rows]));
        kept.blocks.put(part(source, file), made(file, version), level, rows).await;
    }

    /// Lets other nodes keep copies of this node's blocks, and this one of theirs, from now on, as long as
    /// [`Dataset::copy_blocks`] runs. For this handle and its clones.
    pub fn join_neighbours(&self, neighbours: Arc<dyn Neighbours>) {
        if let Some(kept) = &self.kept {
            kept.blocks.join(neighbours);
        }
    }

    /// Offers what is made here and fetches what others offer. Never ends; may be dropped at any point.
    pub async fn copy_blocks(&self) {
        match &self.kept {
            Some(kept) => kept.blocks.copy(kept.as_ref()).await,
            None => std::future::pending().await,
        }
    }

    /// Offers all blocks of the newest version of a source's table that this node has to those which are to have
    /// them: for when the nodes are others than before.
    pub async fn offer_again(&self, source: &str) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let Some(manifest) = self.manifest(source).await? else { return Ok(()) };
        for file in &manifest.newest {
            kept.blocks.offer(part(source, file), manifest.version, BlockId(file.content));
        }
        Ok(())
    }

    /// Takes note of what another node offers.
    pub fn blocks_offered(&self, from: BlockNode, blocks: Vec<OfferedBlock>) {
        if let Some(kept) = &self.kept {
            kept.blocks.offered(from, blocks);
        }
    }

    /// Returns a block for another node; none when it is not here.
    pub async fn exported_block(&self, id: BlockId) -> Option<Bytes> {
        self.kept.as_ref()?.blocks.store().export(id).await
    }

    /// Removes blocks of this node that nobody will ask for again. To be called within a runtime.
    pub fn forget_blocks(&self, blocks: &[BlockId]) {
        if let Some(kept) = &self.kept {
            blocks.iter().for_each(|id| kept.blocks.store().remove(*id));
        }
    }

    /// Returns this node's blocks, and what it has measured.
    pub fn node_blocks(&self) -> NodeBlocks {
        let Some(kept) = &self.kept else { return NodeBlocks::default() };
        let sources: Vec<String> = kept.tables().keys().cloned().collect();
        let figures = |source: String| kept.figures(&source).map(|figures| (source, figures));
        let tables = sources.into_iter().filter_map(figures).collect();
        NodeBlocks { blocks: kept.blocks.store().held(), tables }
    }

    /// Returns the blocks of all nodes and what they have measured, each under its number or the reason why it
    /// doesn't say; where there is one node, it has number 1.
    pub async fn all_blocks(&self) -> Vec<(BlockNode, std::result::Result<NodeBlocks, String>)> {
        let neighbours = self.kept.as_ref().and_then(|kept| kept.blocks.neighbours());
        let Some(neighbours) = neighbours else { return vec![(BlockNode(1), Ok(self.node_blocks()))] };
        let ask = |node: BlockNode| async move {
            let is_me = node == neighbours.me();
            (node, if is_me { Ok(self.node_blocks()) } else { neighbours.held(node).await })
        };
        join_all(neighbours.nodes().into_iter().map(ask)).await
    }

    fn table<T>(&self, source: &str, run: impl FnOnce(&mut Table) -> T) -> Option<T> {
        self.kept.as_ref()?.table(source, run)
    }
}

fn part(source: &str, file: &NewestFile) -> PartId {
    PartId { source: source.to_owned(), partition: file.partition, date: file.date }
}

fn made(file: &NewestFile, version: u64) -> Made {
    Made { id: BlockId(file.content), version, file_bytes: file.bytes }
}
