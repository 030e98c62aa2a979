//! Pieces: what the tasks of one stage hand to those of the next.
//!
//! ```text
//!   maker ──▶ its node's blocks: memory, then the spill directories ──fetch──▶ who puts them together
//!     └─────▶ dataset, where its node can't keep them ─────────────────read──▶
//! ```
//!
//! A piece is named by its lineage: the task, the view and the view partition. It is kept compressed and under a
//! checksum wherever it leaves memory, and it can be made again, so one that is damaged is as good as lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch};
use arrow::buffer::{Buffer, OffsetBuffer};
use object_store::path::Path;
use sanso_block::{BlockId, BlockNode, BlockStore, Found, Rows};
use sanso_state::{Fingerprint, StorageLevel};

use crate::dataset::Dataset;
use crate::error::{DatasetError, Result};
use crate::kept::Kept;

/// Names what a task gives to one partition of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceId(BlockId);

impl PieceId {
    /// Names a piece by the task's fingerprint, the view's version and the number of the view partition.
    pub fn new(task: Fingerprint, view: Fingerprint, index: u32) -> Self {
        let parts = Fingerprint::builder().part("piece").part(task.as_bytes()).part(view.as_bytes());
        Self(BlockId(parts.part(index.to_le_bytes()).finish()))
    }

    /// Returns the block that holds it on a node.
    pub fn block(self) -> BlockId {
        self.0
    }
}

/// The bytes of a piece.
#[derive(Clone, Debug)]
pub struct Piece(Arc<Rows>);

impl Piece {
    /// Takes bytes as a piece.
    pub fn new(bytes: Vec<u8>) -> Self {
        let offsets = OffsetBuffer::from_lengths([bytes.len()]);
        let column = LargeBinaryArray::new(offsets, Buffer::from_vec(bytes), None);
        let batch = RecordBatch::try_from_iter([("piece", Arc::new(column) as ArrayRef)]);
        Self(Arc::new(Rows::new(vec![batch.expect("one column has one length")])))
    }

    /// Returns its bytes; none where the rows are no piece's.
    pub fn bytes(&self) -> Option<&[u8]> {
        let column = self.0.batches().first()?.columns().first()?.as_binary_opt::<i64>()?;
        (column.len() == 1).then(|| column.value(0))
    }
}

/// What came of asking for a piece.
#[derive(Clone, Debug)]
pub enum Sought {
    /// It is here.
    Found(Piece),
    /// It is not where it was kept, or no longer what was kept.
    Missing,
    /// The node that keeps it can't be asked.
    Unreachable,
}

impl Dataset {
    /// Returns this node, if it can keep pieces where other nodes can fetch them.
    pub fn keeps_pieces(&self) -> Option<BlockNode> {
        Some(self.kept.as_ref()?.blocks.neighbours()?.me())
    }

    /// Keeps a piece among this node's blocks, as long as there is room: [`Dataset::has_pieces`] says.
    pub async fn keep_piece(&self, id: PieceId, piece: &Piece) {
        if let Some(kept) = &self.kept {
            kept.blocks.store().put(id.0, StorageLevel::MemoryDisk, Arc::clone(&piece.0)).await;
        }
    }

    /// Says whether all these pieces are among this node's blocks.
    pub fn has_pieces(&self, pieces: &[PieceId]) -> bool {
        let has = |kept: &Kept| pieces.iter().all(|id| kept.blocks.store().find(id.0) != Found::Nowhere);
        self.kept.as_ref().is_some_and(|kept| has(kept))
    }

    /// Writes a piece of a version to the dataset, for as long as the version is being made. Idempotent.
    pub async fn put_piece(&self, source: &str, version: u64, id: PieceId, piece: &Piece) -> Result<()> {
        let path = self.layout().task_piece(source, version, id.0.0);
        let encoded = BlockStore::encoded(id.0, Arc::clone(&piece.0)).await;
        let encoded = encoded.expect("a column of bytes can be written as Arrow");
        self.put_volatile(&path, encoded).await
    }

    /// Seeks a piece on the node that keeps it; in the dataset where none does.
    pub async fn piece(
        &self,
        source: &str,
        version: u64,
        id: PieceId,
        held_by: Option<BlockNode>,
    ) -> Result<Sought> {
        let found = match held_by {
            Some(node) => match self.piece_at(node, id).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%node, error, "a piece can't be fetched");
                    return Ok(Sought::Unreachable);
                }
            },
            None => self.written_piece(source, version, id).await?,
        };
        Ok(found.map_or(Sought::Missing, |rows| Sought::Found(Piece(rows))))
    }

    async fn piece_at(&self, node: BlockNode, id: PieceId) -> Result<Option<Arc<Rows>>, String> {
        let kept = self.kept.as_ref().ok_or("this node keeps no blocks")?;
        kept.blocks.at(node, id.0).await
    }

    async fn written_piece(&self, source: &str, version: u64, id: PieceId) -> Result<Option<Arc<Rows>>> {
        let path = self.layout().task_piece(source, version, id.0.0);
        let bytes = match self.get(&path).await {
            Err(DatasetError::Missing { .. }) => return Ok(None),
            bytes => bytes?,
        };
        let decoded = BlockStore::decoded(id.0, bytes).await;
        let damaged = |what: &String| tracing::warn!(%path, what, "a piece is damaged, and made again");
        Ok(decoded.inspect_err(damaged).ok())
    }

    /// Removes pieces from nodes that may keep them.
    pub async fn forget_pieces(&self, nodes: &[BlockNode], pieces: &[PieceId]) {
        if let Some(kept) = &self.kept {
            let pieces: Vec<BlockId> = pieces.iter().map(|id| id.0).collect();
            kept.blocks.forget(nodes, &pieces).await;
        }
    }

    /// Removes those pieces of a version that the store lists, which are mostly none. What a listing that lags leaves,
    /// [`Dataset::remove_tasks_until`] removes.
    pub async fn remove_pieces(&self, source: &str, version: u64, pieces: &[PieceId]) -> Result<()> {
        let path = |id: &PieceId| self.layout().task_piece(source, version, id.0.0);
        let paths: BTreeSet<Path> = pieces.iter().map(path).collect();
        for file in self.list(&self.layout().tasks(source, version)).await? {
            if paths.contains(&file.location) {
                self.delete(&file.location).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "readings";

    fn id(task: &[u8], view: &[u8], index: u32) -> PieceId {
        PieceId::new(Fingerprint::of(task), Fingerprint::of(view), index)
    }

    #[test]
    fn a_piece_is_named_by_its_task_its_view_and_the_view_partition() {
        let names = [id(b"a", b"a", 0), id(b"b", b"a", 0), id(b"a", b"b", 0), id(b"a", b"a", 1)];
        assert_eq!(BTreeSet::from(names).len(), names.len());
    }

    #[tokio::test]
    async fn a_piece_in_the_dataset_is_found_as_it_was_or_not_at_all() {
        let dataset = Dataset::in_memory();
        for bytes in [Vec::new(), vec![7; 100_000]] {
            let id = id(b"task", b"view", 3);
            dataset.put_piece(SOURCE, 5, id, &Piece::new(bytes.clone())).await.expect("put");
            let sought = async |id| dataset.piece(SOURCE, 5, id, None).await.expect("read");
            let Sought::Found(found) = sought(id).await else { panic!("it was put") };
            assert_eq!(found.bytes(), Some(bytes.as_slice()));
            assert!(matches!(sought(PieceId(BlockId(Fingerprint::of(b"other")))).await, Sought::Missing));
            let path = dataset.layout().task_piece(SOURCE, 5, id.block().0);
            let mut damaged = dataset.get(&path).await.expect("read").to_vec();
            *damaged.last_mut().expect("not empty") ^= 1;
            dataset.put_volatile(&path, damaged.into()).await.expect("put");
            assert!(matches!(sought(id).await, Sought::Missing));
            dataset.remove_pieces(SOURCE, 5, &[id]).await.expect("removed");
            assert!(matches!(dataset.get(&path).await, Err(DatasetError::Missing { .. })));
        }
    }
}
