//! Blocks to put, and a store to put them into.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use sanso_block::{BlockConfig, BlockId, BlockStore, Rows};
use sanso_state::Fingerprint;

/// Rows in a block of these tests; each a number that nothing makes smaller.
const NUMBERS: u64 = 1000;

pub(crate) fn id(n: u64) -> BlockId {
    BlockId(Fingerprint::of(&n.to_le_bytes()))
}

/// The rows of block `n`: of all the same weight, of each another content.
pub(crate) fn rows(n: u64) -> Arc<Rows> {
    let number = |i: u64| (n * NUMBERS + i).wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values((0..NUMBERS).map(number)));
    Arc::new(Rows::new(vec![RecordBatch::try_from_iter([("n", column)]).expect("one column")]))
}

/// The most that one block weighs in memory; read from a file it is a little heavier.
pub(crate) fn weight() -> u64 {
    rows(0).bytes() + 100
}

/// Opens a store with room for so many blocks in memory and so many bytes on disk.
pub(crate) fn open(in_memory: u64, disk_bytes_max: u64, dirs: &[&Path]) -> BlockStore {
    let spill_dirs = dirs.iter().map(PathBuf::from).collect();
    let config = BlockConfig { memory_bytes_max: in_memory * weight(), disk_bytes_max, spill_dirs };
    BlockStore::open(&config).expect("open the store")
}

/// Lists the files of blocks in a spill directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir.join("sanso-blocks")).expect("list");
    let paths = listed.map(|entry| entry.expect("an entry").path());
    let mut blocks: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "block")).collect();
    blocks.sort();
    blocks
}
