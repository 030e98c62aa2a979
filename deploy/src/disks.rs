//! What a node keeps on local disks beside its log and dataset, and does not need: blocks of tables and groups of views.

use std::path::Path;

use anyhow::Context;
use sanso_block::{BlockConfig, BlockStore};
use sanso_catalog::{Limit, Limits, Registered};
use sanso_dataset::Dataset;
use sanso_runs::{DiskRuns, RunsConfig};
use sanso_view::Application;

use crate::config::Settings;

/// The stores of this process. They outlive the node's lives.
#[derive(Clone)]
pub(crate) struct Disks {
    /// Parts of the newest-version tables.
    pub(crate) blocks: BlockStore,
    /// Groups of views.
    pub(crate) runs: DiskRuns,
}

impl Disks {
    /// Opens the stores; in the data folder where no spill directory is named.
    pub(crate) fn open(settings: &Settings, data: &Path) -> anyhow::Result<Self> {
        let (batch, serving) = (&settings.batch, &settings.serving);
        let mut dirs = batch.spill_dirs.clone();
        if dirs.is_empty() {
            dirs.push(data.to_owned());
        }
        let blocks = BlockConfig {
            memory_bytes_max: batch.blocks_memory_bytes_max,
            disk_bytes_max: batch.blocks_disk_bytes_max,
            spill_dirs: dirs.clone(),
        };
        let runs = RunsConfig {
            dirs,
            disk_bytes_max: serving.views_disk_bytes_max,
            cache_bytes: serving.views_cache_bytes_max,
        };
        Ok(Self {
            blocks: BlockStore::open(&blocks).context("open the store of blocks")?,
            runs: DiskRuns::open(&runs).context("open the store of groups")?,
        })
    }

    /// Lets a dataset keep the sources' tables as they declare.
    pub(crate) fn keep(&self, dataset: Dataset, application: &Application) -> Dataset {
        let dataset = dataset.with_blocks(self.blocks.clone());
        application.sources.iter().for_each(|source| dataset.keep_table(&source.name, source.storage));
        dataset
    }

    /// Shows the stores' bounds.
    pub(crate) fn register(&self, limits: &Limits, settings: &Settings) -> Vec<Registered> {
        let (batch, serving) = (&settings.batch, &settings.serving);
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
        let views_disk = limit(
            "serving.views_disk",
            serving.views_disk_bytes_max,
            "serving.views_disk_bytes_max",
            "further groups of views stay in memory",
        );
        let views_cache = limit(
            "serving.views_cache",
            serving.views_cache_bytes_max as u64,
            "serving.views_cache_bytes_max",
            "the least recently used are read again",
        );
        let (of_memory, of_disk) = (self.blocks.clone(), self.blocks.clone());
        let (of_views, of_cache) = (self.runs.clone(), self.runs.clone());
        vec![
            limits.register(memory, move || of_memory.usage().memory_bytes),
            limits.register(disk, move || of_disk.usage().disk_bytes),
            limits.register(views_disk, move || of_views.usage().disk_bytes),
            limits.register(views_cache, move || of_cache.usage().cache_bytes),
        ]
    }
}
