//! The node's blocks: opened by its settings, used by its dataset, shown on the board of limits.

use std::path::Path;

use anyhow::Context;
use sanso_batch::BatchConfig;
use sanso_block::{BlockConfig, BlockStore};
use sanso_catalog::{Limit, Limits, Registered};
use sanso_dataset::Dataset;
use sanso_view::Application;

/// Opens the store; in the data folder where no spill directory is named.
pub(crate) fn open(batch: &BatchConfig, data: &Path) -> anyhow::Result<BlockStore> {
    let mut spill_dirs = batch.spill_dirs.clone();
    if spill_dirs.is_empty() {
        spill_dirs.push(data.to_owned());
    }
    let config = BlockConfig {
        memory_bytes_max: batch.blocks_memory_bytes_max,
        disk_bytes_max: batch.blocks_disk_bytes_max,
        spill_dirs,
    };
    BlockStore::open(&config).context("open the store of blocks")
}

/// Lets a dataset keep the sources' tables as they declare.
pub(crate) fn keep(dataset: Dataset, store: &BlockStore, application: &Application) -> Dataset {
    let dataset = dataset.with_blocks(store.clone());
    application.sources.iter().for_each(|source| dataset.keep_table(&source.name, source.storage));
    dataset
}

/// Shows the store's bounds.
pub(crate) fn register(limits: &Limits, batch: &BatchConfig, store: &BlockStore) -> Vec<Registered> {
    let limit = |name, max, setting, then| Limit { name, unit: "bytes", max, setting, then };
    let memory = limit(
        "batch.blocks_memory",
        batch.blocks_memory_bytes_max,
        "batch.blocks_memory_bytes_max",
        "the least recently used go to disk, or are read again",
    );
    let disk = limit(
        "batch.blocks_disk",
        batch.blocks_disk_bytes_max,
        "batch.blocks_disk_bytes_max",
        "the least recently used are read again",
    );
    let (of_memory, of_disk) = (store.clone(), store.clone());
    vec![
        limits.register(memory, move || of_memory.usage().memory_bytes),
        limits.register(disk, move || of_disk.usage().disk_bytes),
    ]
}
