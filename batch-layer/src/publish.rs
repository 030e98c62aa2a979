//! Batch views: computed, published, loaded.
//!
//! A published version names the manifest it was made from by fingerprint, so a view is taken for published only
//! when it is of the version in force; anything else, or anything damaged, is computed again from the
//! newest-version table. Nobody here holds blocks: one is read where it is needed, and let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::try_join_all;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use sanso_dataset::{
    BlockFile, Dataset, DatasetError, Manifest, NewestFile, PublishedBlock, PublishedView, ViewId,
};
use sanso_state::{Block, Extension, Groups, Watermark};
use sanso_view::View;

use crate::archive::blocking;
use crate::contribution::Contribution;
use crate::error::{BatchError, Result};
use crate::lifting::{Liftings, Together};

/// Most files beside a block: each costs a request when the view is loaded.
const ADDED_MAX: usize = 16;

/// A view at a version, as it is published; none for version 0, at which nothing is archived yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published(Option<Arc<PublishedView>>);

impl Published {
    /// Returns the version.
    pub(crate) fn version(&self) -> u64 {
        self.0.as_ref().map_or(0, |document| document.version)
    }

    /// Reads one view partition's block.
    pub(crate) async fn block(
        &self,
        dataset: &Dataset,
        view: &View,
        index: u32,
    ) -> Result<Block, DatasetError> {
        match &self.0 {
            Some(document) => dataset.read_block(view_id(view), document, index).await,
            None => Ok(Block::empty(view.fingerprint, view.source.partitions)),
        }
    }

    fn files(&self, index: usize) -> Option<&PublishedBlock> {
        self.0.as_ref().map(|document| &document.blocks[index])
    }
}

/// Says whether what was published can't be had any longer: then it is to be computed again.
pub(crate) fn is_lost(error: &DatasetError) -> bool {
    matches!(error, DatasetError::Damaged { .. } | DatasetError::Missing { .. })
}

/// How many blocks a publication wrote and how many it carried by reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockCounts {
    /// Blocks written.
    pub(crate) written: u64,
    /// Blocks carried.
    pub(crate) carried: u64,
}

/// Names a view version to the dataset.
pub(crate) fn view_id(view: &View) -> ViewId<'_> {
    ViewId { source: &view.source.name, name: &view.name, fingerprint: view.fingerprint, kinds: &view.kinds }
}

/// Returns what contributions add to each partition of a view: version k told by version k-1. Pure.
///
/// # Panics
/// When the published version is not the one before the manifest's.
pub(crate) fn extensions(
    view: &View,
    before: &Published,
    added: &[Contribution],
    manifest: &Manifest,
) -> Vec<Extension> {
    assert_eq!(before.version() + 1, manifest.version, "contributions extend the version before");
    let extension = |index: usize| {
        let mut groups = Groups::new();
        added.iter().for_each(|contribution| groups.combine(&contribution.parts[index]));
        Extension { of: before.version(), added: Arc::new(block_of(view, manifest, groups)) }
    };
    (0..view.partitions as usize).map(extension).collect()
}

pub(crate) fn block_of(view: &View, manifest: &Manifest, groups: Groups) -> Block {
    Block {
        view: view.fingerprint,
        version: manifest.version,
        cut: manifest.cut.clone(),
        watermarks_us: watermarks_us(view, manifest),
        groups,
    }
}

fn watermarks_us(view: &View, manifest: &Manifest) -> Vec<Option<i64>> {
    let source = &view.source;
    let watermark =
        |max: &Option<i64>| Watermark::new(source.lateness_us, source.ahead_us_max).resume(*max).value();
    manifest.watermarks.iter().map(watermark).collect()
}

/// Publishes what a version adds to the one before. Only a block that is written anew is read for that, one at a time.
pub(crate) async fn publish_extended(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
    before: &Published,
    by: &[Extension],
) -> Result<(Published, BlockCounts)> {
    let mut blocks = Vec::with_capacity(by.len());
    let mut counts = BlockCounts::default();
    for (index, Extension { added, .. }) in by.iter().enumerate() {
        let held = before.files(index).cloned();
        let put = async |block: &Arc<Block>| dataset.put_block(view_id(view), index as u32, block).await;
        blocks.push(match held {
            Some(file) if added.groups.is_empty() => {
                counts.carried += 1;
                file
            }
            Some(mut file) if is_worth_adding(&file, added) => {
                counts.written += 1;
                file.added.push(put(added).await?);
                file
            }
            _ => {
                counts.written += 1;
                let block = Arc::new(before.block(dataset, view, index as u32).await?);
                let whole = put(&extended(block, added).await).await?;
                PublishedBlock { whole, added: Vec::new() }
            }
        });
    }
    Ok((publish(dataset, view, manifest, blocks).await?, counts))
}

/// Returns a block with what a version adds to it: a copy, where others have it too.
async fn extended(mut block: Arc<Block>, added: &Arc<Block>) -> Arc<Block> {
    let added = Arc::clone(added);
    blocking(move || {
        Arc::make_mut(&mut block).extend(&added);
        block
    })
    .await
}

/// Writes a view's groups by view partition, and publishes them.
pub(crate) async fn publish_whole(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
    parts: Vec<Groups>,
) -> Result<Published> {
    let put = async |(index, groups)| {
        let block = Arc::new(block_of(view, manifest, groups));
        dataset.put_block(view_id(view), index, &block).await
    };
    let files = stream::iter((0..).zip(parts)).map(put).buffered(at_once()).try_collect().await?;
    publish_files(dataset, view, manifest, files).await
}

/// Publishes a version whose blocks are written, one file for each view partition.
pub(crate) async fn publish_files(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
    files: Vec<BlockFile>,
) -> Result<Published> {
    let blocks = files.into_iter().map(|whole| PublishedBlock { whole, added: Vec::new() }).collect();
    publish(dataset, view, manifest, blocks).await
}

async fn publish(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
    blocks: Vec<PublishedBlock>,
) -> Result<Published> {
    let document = document(view, manifest, blocks);
    dataset.publish(&document).await?;
    Ok(Published(Some(Arc::new(document))))
}

fn document(view: &View, manifest: &Manifest, blocks: Vec<PublishedBlock>) -> PublishedView {
    PublishedView {
        source: view.source.name.clone(),
        view: view.name.clone(),
        fingerprint: view.fingerprint,
        version: manifest.version,
        made_from: manifest.fingerprint(),
        cut: manifest.cut.clone(),
        watermarks_us: watermarks_us(view, manifest),
        blocks,
    }
}

/// Says whether what a version adds is written beside a block rather than the block anew: as long as
/// reading all files takes little more than reading the block, and writing them much less.
fn is_worth_adding(file: &PublishedBlock, added: &Block) -> bool {
    let since: u64 = file.added.iter().map(|file| file.groups).sum();
    file.added.len() < ADDED_MAX && (since + added.groups.len() as u64) * 2 <= file.whole.groups
}

/// Looks for a view at the version in force; None when it is not published there, or its document is damaged.
pub(crate) async fn find(dataset: &Dataset, view: &View, manifest: &Manifest) -> Result<Option<Published>> {
    let document = match dataset.published(view_id(view), manifest.version).await {
        Err(DatasetError::Missing { .. }) => return Ok(None),
        Err(error) if is_lost(&error) => {
            tracing::warn!(view = view.name, %error, "a published view is recomputed");
            return Ok(None);
        }
        document => document?,
    };
    let is_of =
        document.made_from == manifest.fingerprint() && document.blocks.len() == view.partitions as usize;
    Ok(is_of.then(|| Published(Some(Arc::new(document)))))
}

/// Lifts rows of the newest-version table into views of one source, in one pass over some of its
/// files: as many files at a time as there are processors, and of each only the columns
/// that a view reads. Returns for each view its groups by view partition.
pub(crate) async fn lift(
    dataset: &Dataset,
    views: &[Arc<View>],
    source: &str,
    files: &[&NewestFile],
) -> Result<Vec<Vec<Groups>>> {
    let views = views.to_vec();
    let together = Arc::new(blocking(move || Together::new(&views)).await);
    let next = AtomicUsize::new(0);
    let lift_some = async || {
        let mut lifted = Liftings::new(&together);
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut batches = dataset.read_newest_columns(source, file, together.columns()).await?;
            let lift = move || {
                batches.try_for_each(|rows| rows.map(|rows| lifted.add(&rows)))?;
                Ok::<_, DatasetError>(lifted)
            };
            lifted = blocking(lift).await?;
        }
        Ok::<_, BatchError>(lifted)
    };
    let parts = try_join_all((0..at_once()).map(|_| lift_some().boxed())).await?;
    Ok(blocking(move || parts.into_iter().reduce(combined).map(Liftings::finish)).await.unwrap_or_default())
}

/// As many as there are processors.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn combined(mut total: Liftings, more: Liftings) -> Liftings {
    total.combine(&more);
    total
}
