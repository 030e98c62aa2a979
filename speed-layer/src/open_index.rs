//! Opens the index of one log partition, or builds it anew.
//!
//! ```text
//!   on disk, whole, not behind the log's start ──▶ opened
//!   else: newest-version table at a floor + the log from the floor ──▶ built
//! ```
//!
//! The floor chosen is the greatest archived cut at or below the lowest base of
//! the live view partitions, so that every one of them can be fed at once. Where
//! only later cuts are kept, the view partitions below wait until they adopt one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::TryStreamExt;
use sanso_dataset::{Dataset, Manifest};
use sanso_log::Log;
use sanso_state::{LogPartition, Offset};
use sanso_view::Source;

use crate::error::{Error, Result};
use crate::newest::{NewestIndex, Version};
use crate::rocks::{RocksIndex, RocksShare};

/// What is needed to open an index.
pub(crate) struct IndexPlace {
    pub(crate) dir: PathBuf,
    pub(crate) share: RocksShare,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) dataset: Dataset,
    pub(crate) source: Arc<Source>,
    pub(crate) partition: LogPartition,
}

impl IndexPlace {
    fn path(&self) -> PathBuf {
        index_path(&self.dir, &self.source.name, self.partition)
    }

    /// Opens the index; none when there is none that serves. Refuses a log that ends before what was
    /// read of it: it lost its end, and what came next would take the place of what is gone. Blocks
    /// on the disk.
    pub(crate) async fn open(&self) -> Result<Option<RocksIndex>> {
        let (topic, partition) = (&self.source.topic, self.partition.0);
        let start = self.log.start_offset(topic, partition).await?;
        let end = self.log.end_offset(topic, partition).await?;
        let lost = |by, position| {
            let topic = topic.clone();
            Err(Error::Lost { topic, partition, end, by, position, index: self.path() })
        };
        // A manifest that can't be read is the batch layer's to report.
        if let Ok(Some(manifest)) = self.dataset.manifest(&self.source.name).await
            && manifest.cut.at(self.partition) > end
        {
            return lost("the master dataset", manifest.cut.at(self.partition));
        }
        match RocksIndex::open(&self.path(), &declaration(&self.source), &self.share)? {
            Some(index) if index.position() > end => lost("the index", index.position()),
            Some(index) if index.position() >= start => Ok(Some(index)),
            _ => Ok(None),
        }
    }

    /// Builds the index anew. `base`: the lowest base cut of the live view partitions. Blocks on the
    /// disk.
    pub(crate) async fn build(&self, base: Offset) -> Result<RocksIndex> {
        let start = self.log.start_offset(&self.source.topic, self.partition.0).await?;
        let manifest = self.base_manifest(base, start).await?;
        let floor = manifest.as_ref().map_or(0, |manifest| manifest.cut.at(self.partition));
        if floor < start {
            let (topic, partition) = (self.source.topic.clone(), self.partition.0);
            return Err(Error::Gap { topic, partition, start, floor });
        }
        let mut build = RocksIndex::build(&self.path(), &self.share)?;
        let mut max_event_us = None;
        if let Some(manifest) = &manifest {
            max_event_us = manifest.watermarks.get(self.partition.index()).copied().flatten();
            let mut batches = std::pin::pin!(self.dataset.newest_stream(manifest, self.partition));
            while let Some(rows) = batches.try_next().await? {
                build.add(base_versions(&self.source, &rows))?;
            }
        }
        build.finish(&declaration(&self.source), floor, max_event_us)
    }

    /// Chooses the version of the newest-version table to build upon.
    async fn base_manifest(&self, base: Offset, start: Offset) -> Result<Option<Arc<Manifest>>> {
        let newest = self.dataset.manifest(&self.source.name).await?;
        let mut next = newest.clone();
        while let Some(manifest) = next {
            let cut = manifest.cut.at(self.partition);
            if cut <= base && cut >= start {
                return Ok(Some(manifest));
            }
            next = self.dataset.manifest_if_any(&self.source.name, manifest.version - 1).await?;
        }
        // No kept version is low enough: from the log's first offset, if it still has it.
        Ok(if start == 0 { None } else { newest })
    }
}

/// Returns the directory of one log partition's index.
pub(crate) fn index_path(dir: &Path, source: &str, partition: LogPartition) -> PathBuf {
    dir.join("index").join(source).join(partition.to_string())
}

/// Names all of a source's declaration that decides what its index holds.
pub(crate) fn declaration(source: &Source) -> String {
    format!(
        "{} {} {} {:?} {} {:?} {:?} {} {:?}",
        source.topic,
        source.partitions,
        source.segment_size,
        source.columns,
        source.key_column,
        source.identity_columns,
        source.version_column,
        source.event_time_column,
        source.ignored_columns,
    )
}

/// Turns rows of the newest-version table into entries of an index.
pub(crate) fn base_versions(source: &Source, archived: &RecordBatch) -> Vec<(Bytes, Version)> {
    let rows = sanso_dataset::source_columns(archived);
    let offsets = sanso_dataset::offsets(archived);
    let versions = source.versions(&rows);
    let contents = source.contents(&rows);
    let encoded = source.encode_rows(&rows);
    let identities = source.identities(&rows);
    let entries = identities.into_iter().zip(encoded).enumerate().map(|(at, (identity, row))| {
        let offset = offsets.value(at);
        let version = versions[at].unwrap_or(offset as i64);
        (identity, Version { offset, version, content: *contents[at].as_bytes(), row })
    });
    entries.collect()
}
