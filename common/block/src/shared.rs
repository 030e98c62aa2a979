//! Blocks of datasets on several nodes: who has made one offers it, and who is to keep it fetches it.
//!
//! ```text
//!   maker ──offer: part, version, name──▶ place of a copy ──fetch, one at a time──▶ maker
//! ```
//!
//! Nobody waits for it: a block that is not copied yet is had in another way. Of each part of a dataset
//! a node keeps the newest block that it knows, and a place that has a newer one fetches nothing, so
//! offers may come late, twice or not at all. What fails is tried again as long as the map has both nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use sanso_state::{LogPartition, StorageLevel};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::BlockId;
use crate::ledger::Found;
use crate::neighbours::{BlockNode, Neighbours, OfferedBlock, PartId};
use crate::replicas::Share;
use crate::rows::Rows;
use crate::store::{BlockStore, Reading};

/// The pause before what failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How the blocks of datasets are to be kept.
pub trait Keeping: Send + Sync {
    /// Returns where a node keeps a dataset's blocks; none for one that is not known.
    fn level(&self, dataset: &str) -> Option<StorageLevel>;

    /// Returns how many nodes are to keep each of a dataset's blocks.
    fn replicas(&self, dataset: &str) -> u8;
}

/// What is known of a block beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The block.
    pub id: BlockId,
    /// The version of the dataset that it belongs to; a later one may have it, too.
    pub version: u64,
    /// Its bytes where it is stored for good.
    pub file_bytes: u64,
}

#[derive(Clone, Copy)]
struct Known {
    made: Made,
    memory_bytes: u64,
}

/// The blocks of a node, by the parts of datasets; and those of its neighbours, once it has some.
pub struct SharedBlocks {
    store: BlockStore,
    parts: Mutex<BTreeMap<PartId, Known>>,
    neighbours: OnceLock<Arc<dyn Neighbours>>,
    /// Blocks that were made here, to be offered to others.
    made: Waiting<OfferedBlock>,
    /// Blocks that others offer, to be fetched.
    offered: Waiting<(BlockNode, OfferedBlock)>,
}

/// What waits to be done, at most one thing for each part.
struct Waiting<T> {
    waiting: Mutex<BTreeMap<PartId, T>>,
    came: Notify,
}

impl<T> Waiting<T> {
    fn new() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new() }
    }

    fn put(&self, part: PartId, what: T) {
        self.waiting().insert(part, what);
        self.came.notify_one();
    }

    /// Puts back what failed, unless something else has come for the part.
    fn put_back(&self, part: PartId, what: T) {
        self.waiting().entry(part).or_insert(what);
    }

    /// Takes all once something comes; what was put back also after a pause.
    async fn take(&self) -> BTreeMap<PartId, T> {
        let was_put_back = !self.waiting().is_empty();
        tokio::select! {
            () = self.came.notified() => {}
            () = sleep(AGAIN_AFTER), if was_put_back => {}
        }
        std::mem::take(&mut self.waiting())
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PartId, T>> {
        self.waiting.lock().expect("no panic while it is held")
    }
}

impl SharedBlocks {
    /// Begins with a store, without neighbours.
    pub fn new(store: BlockStore) -> Self {
        let (made, offered) = (Waiting::new(), Waiting::new());
        Self { store, parts: Mutex::default(), neighbours: OnceLock::new(), made, offered }
    }

    /// Returns the store.
    pub fn store(&self) -> &BlockStore {
        &self.store
    }

    /// Has neighbours from now on; they stay the same.
    pub fn join(&self, neighbours: Arc<dyn Neighbours>) {
        // A second time is the same cluster.
        let _ = self.neighbours.set(neighbours);
    }

    /// Returns the neighbours.
    pub fn neighbours(&self) -> Option<&Arc<dyn Neighbours>> {
        self.neighbours.get()
    }

    /// Returns the other ones among the first so many places of a log partition's blocks.
    pub fn others(&self, source: &str, partition: LogPartition, count: usize) -> Vec<BlockNode> {
        let Some(neighbours) = self.neighbours.get() else { return Vec::new() };
        let places = neighbours.places(source, partition).into_iter().take(count);
        places.filter(|node| *node != neighbours.me()).collect()
    }

    /// Keeps a part's block that was made here instead of the one before, and lets the other nodes that are to
    /// have it know.
    pub async fn put(&self, part: PartId, made: Made, level: StorageLevel, rows: Arc<Rows>) {
        self.keep(&part, made, level, rows).await;
        self.offer(part, made.version, made.id);
    }

    /// Lets the other nodes that are to have a block know of it; one that isn't here is left out.
    pub fn offer(&self, part: PartId, version: u64, id: BlockId) {
        if self.neighbours.get().is_some() && self.store.find(id) != Found::Nowhere {
            self.made.put(part.clone(), OfferedBlock { part, version, id });
        }
    }

    /// Notes a part's block that was found here.
    pub fn found(&self, part: PartId, made: Made, rows: &Rows) {
        self.parts().entry(part).or_insert(Known { made, memory_bytes: rows.bytes() });
    }

    /// Takes note of what another node offers, where it is wanted.
    pub fn offered(&self, from: BlockNode, blocks: Vec<OfferedBlock>) {
        for block in blocks.into_iter().filter(|block| self.wants(block)) {
            self.offered.put(block.part.clone(), (from, block));
        }
    }

    /// Fetches a part's block from the first of these nodes that has it, and keeps it.
    pub async fn fetch(
        &self,
        from: &[BlockNode],
        wanted: &OfferedBlock,
        level: StorageLevel,
    ) -> Option<Arc<Rows>> {
        for node in from {
            match self.fetch_from(*node, wanted, level).await {
                Ok(Some(rows)) => return Some(rows),
                Ok(None) => {}
                Err(error) => tell_unfetched(*node, wanted.id, &error),
            }
        }
        None
    }

    /// Fetches a part's block from a node, and keeps it; none when that doesn't have it, or not as it was put. Says why
    /// when it can't be asked.
    async fn fetch_from(
        &self,
        node: BlockNode,
        wanted: &OfferedBlock,
        level: StorageLevel,
    ) -> Result<Option<Arc<Rows>>, String> {
        let neighbours = self.neighbours.get().ok_or("this node knows no other one")?;
        let Some(bytes) = neighbours.fetch(node, wanted.id).await? else { return Ok(None) };
        let made = Made { id: wanted.id, version: wanted.version, file_bytes: bytes.len() as u64 };
        match BlockStore::decoded(wanted.id, bytes).await {
            Ok(rows) => {
                self.keep(&wanted.part, made, level, Arc::clone(&rows)).await;
                Ok(Some(rows))
            }
            Err(what) => {
                tell_damaged(node, wanted.id, &what);
                Ok(None)
            }
        }
    }

    /// Returns a block that is on one node, this one or another; none when that doesn't have it, or not as it was
    /// put. Says why when the node can't be asked. Keeps nothing of it here.
    pub async fn at(&self, node: BlockNode, id: BlockId) -> Result<Option<Arc<Rows>>, String> {
        let neighbours = self.neighbours.get().ok_or("this node knows no other one")?;
        if node == neighbours.me() {
            return Ok(self.store.get(id, StorageLevel::MemoryDisk, Reading::Once).await);
        }
        let Some(bytes) = neighbours.fetch(node, id).await? else { return Ok(None) };
        let decoded = BlockStore::decoded(id, bytes).await;
        Ok(decoded.inspect_err(|what| tell_damaged(node, id, what)).ok())
    }

    /// Lets nodes, this one among them, remove blocks that nobody will ask for again. One that can't be told keeps
    /// them until it needs the room.
    pub async fn forget(&self, nodes: &[BlockNode], blocks: &[BlockId]) {
        let Some(neighbours) = self.neighbours.get() else { return };
        let forget = |node: BlockNode| async move {
            if node == neighbours.me() {
                blocks.iter().for_each(|id| self.store.remove(*id));
            } else if let Err(error) = neighbours.forget(node, blocks.to_vec()).await {
                tracing::debug!(%node, error, "a node can't be told what to forget");
            }
        };
        join_all(nodes.iter().copied().map(forget)).await;
    }

    /// Offers what is made here and fetches what others offer. Never ends; may be dropped at any point.
    pub async fn copy(&self, keeping: &dyn Keeping) {
        tokio::join!(self.offer_made(keeping), self.fetch_offered(keeping));
    }

    /// Returns what this node has of the blocks of a dataset that are its own to work on; copies of others' are not.
    pub fn share(&self, source: &str) -> Share {
        let mut share = Share::default();
        let parts = self.parts();
        let is_mine = |part: &PartId| {
            let neighbours = self.neighbours.get();
            neighbours.is_none_or(|to| to.places(source, part.partition).first() == Some(&to.me()))
        };
        let mine = parts.iter().filter(|(part, _)| part.source == source && is_mine(part));
        for (_, known) in mine.filter(|(_, known)| self.store.find(known.made.id) != Found::Nowhere) {
            share.blocks += 1;
            share.file_bytes += known.made.file_bytes;
            share.memory_bytes += known.memory_bytes;
        }
        share
    }

    async fn offer_made(&self, keeping: &dyn Keeping) {
        loop {
            let made = self.made.take().await;
            let Some(neighbours) = self.neighbours.get() else { continue };
            let mut replicas: BTreeMap<String, usize> = BTreeMap::new();
            let mut offers: BTreeMap<BlockNode, Vec<OfferedBlock>> = BTreeMap::new();
            for (PartId { source, partition, .. }, block) in made {
                let decide = || keeping.replicas(&source).into();
                let replicas = *replicas.entry(source.clone()).or_insert_with(decide);
                for to in self.others(&source, partition, replicas) {
                    offers.entry(to).or_default().push(block.clone());
                }
            }
            for (to, blocks) in offers {
                if let Err(error) = neighbours.offer(to, blocks.clone()).await {
                    tracing::debug!(%to, error, "blocks can't be offered");
                    blocks.into_iter().for_each(|block| self.made.put_back(block.part.clone(), block));
                }
            }
        }
    }

    async fn fetch_offered(&self, keeping: &dyn Keeping) {
        loop {
            for (from, block) in self.offered.take().await.into_values() {
                let level = keeping.level(&block.part.source).filter(|level| *level != StorageLevel::None);
                let Some(level) = level.filter(|_| self.wants(&block)) else { continue };
                if let Err(error) = self.fetch_from(from, &block, level).await {
                    tell_unfetched(from, block.id, &error);
                    // One that the map has no longer offers again what it has, once it is back.
                    if self.has_place(from, &block.part) {
                        self.offered.put_back(block.part.clone(), (from, block));
                    }
                }
            }
        }
    }

    /// Says whether a node is among those that are to keep a part's blocks, all that are there being among them.
    fn has_place(&self, node: BlockNode, part: &PartId) -> bool {
        let neighbours = self.neighbours.get();
        neighbours.is_some_and(|all| all.places(&part.source, part.partition).contains(&node))
    }

    /// Keeps a part's block, if it is no older than the one that is known.
    async fn keep(&self, part: &PartId, made: Made, level: StorageLevel, rows: Arc<Rows>) {
        let before = {
            let mut parts = self.parts();
            let before = parts.get(part).map(|known| known.made);
            if before.is_some_and(|before| before.version > made.version) {
                return;
            }
            parts.insert(part.clone(), Known { made, memory_bytes: rows.bytes() });
            before.filter(|before| before.id != made.id)
        };
        if let Some(before) = before {
            self.store.remove(before.id);
        }
        self.store.put(made.id, level, rows).await;
    }

    fn wants(&self, offered: &OfferedBlock) -> bool {
        let known = self.parts().get(&offered.part).map(|known| known.made.version);
        known.is_none_or(|known| known <= offered.version) && self.store.find(offered.id) == Found::Nowhere
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<PartId, Known>> {
        self.parts.lock().expect("no panic while it is held")
    }
}

fn tell_unfetched(from: BlockNode, id: BlockId, error: &str) {
    tracing::debug!(%from, block = %id.0, error, "a block can't be fetched");
}

fn tell_damaged(from: BlockNode, id: BlockId, what: &str) {
    tracing::warn!(%from, block = %id.0, what, "a block that was fetched is damaged, and not used");
}
