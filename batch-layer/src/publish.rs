//! Batch views: computed, published, loaded.
//!
//! A published version names the manifest it was made from by fingerprint, so a view is loaded only
//! when it is of the version in force; anything else, or anything damaged, is computed again from the
//! newest-version table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::try_join_all;
use sanso_dataset::{
    BlockFile, Dataset, DatasetError, Manifest, NewestFile, PublishedBlock, PublishedView, ViewId,
};
use sanso_state::{Block, Extension, Groups, LogPartition, Watermark};
use sanso_view::View;

use crate::archive::blocking;
use crate::contribution::{Contribution, Lifting};
use crate::error::{BatchError, Result};

/// Most files beside a block: each costs a request when the view is loaded.
const ADDED_MAX: usize = 16;

/// A view at a version, as loaded or published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The version; 0 when nothing is archived yet.
    pub(crate) version: u64,
    /// One block for each view partition.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Their files; none for version 0.
    files: Vec<PublishedBlock>,
}

impl Published {
    /// Returns the empty beginning of a view.
    pub(crate) fn beginning(view: &View) -> Self {
        let block = Arc::new(Block::empty(view.fingerprint, view.source.partitions));
        Self { version: 0, blocks: vec![block; view.partitions as usize], files: Vec::new() }
    }
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
    assert_eq!(before.version + 1, manifest.version, "contributions extend the version before");
    let extension = |index: usize| {
        let mut groups = Groups::new();
        added.iter().for_each(|contribution| groups.combine(&contribution.parts[index]));
        Extension { of: before.version, added: Arc::new(block_of(view, manifest, groups)) }
    };
    (0..before.blocks.len()).map(extension).collect()
}

/// Returns a version's blocks from those of the version before. Pure.
pub(crate) fn extended(before: &Published, by: &[Extension]) -> Vec<Arc<Block>> {
    let extended = |(block, extension): (&Arc<Block>, &Extension)| {
        let mut block = Block::clone(block);
        block.extend(&extension.added);
        Arc::new(block)
    };
    before.blocks.iter().zip(by).map(extended).collect()
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

/// Writes what is new of a version's blocks, then the version. `since`: the version before, if it was
/// published, and what this one adds to it.
pub(crate) async fn publish(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
    blocks: Vec<Arc<Block>>,
    since: Option<(&Published, &[Extension])>,
) -> Result<(Published, BlockCounts)> {
    let mut files = Vec::with_capacity(blocks.len());
    let mut counts = BlockCounts::default();
    for (index, block) in blocks.iter().enumerate() {
        let held = since.and_then(|(before, by)| Some((before.files.get(index)?.clone(), &by[index].added)));
        let put = async |block| dataset.put_block(view_id(view), index as u32, block).await;
        files.push(match held {
            Some((file, added)) if added.groups.is_empty() => {
                counts.carried += 1;
                file
            }
            Some((mut file, added)) if is_worth_adding(&file, added) => {
                counts.written += 1;
                file.added.push(put(added).await?);
                file
            }
            _ => {
                counts.written += 1;
                PublishedBlock { whole: put(block).await?, added: Vec::new() }
            }
        });
    }
    dataset.publish(&document(view, manifest, files.clone())).await?;
    Ok((Published { version: manifest.version, blocks, files }, counts))
}

/// Publishes a version whose blocks are written, one file for each view partition.
pub(crate) async fn publish_files(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
    files: Vec<BlockFile>,
) -> Result<()> {
    let files = files.into_iter().map(|whole| PublishedBlock { whole, added: Vec::new() }).collect();
    Ok(dataset.publish(&document(view, manifest, files)).await?)
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

/// Loads a view at the version in force; None when it is not published there, or damaged.
pub(crate) async fn load(dataset: &Dataset, view: &View, manifest: &Manifest) -> Result<Option<Published>> {
    match load_blocks(dataset, view, manifest).await {
        Err(error @ (DatasetError::Damaged { .. } | DatasetError::Missing { .. })) => {
            tracing::warn!(view = view.name, %error, "a published view is recomputed");
            Ok(None)
        }
        loaded => Ok(loaded?),
    }
}

/// Loads a view that was published at the version in force just before.
pub(crate) async fn published_at(dataset: &Dataset, view: &View, manifest: &Manifest) -> Result<Published> {
    let lost = || {
        let path = format!("{} at version {}", view.name, manifest.version);
        BatchError::Dataset(DatasetError::Missing { path })
    };
    load_blocks(dataset, view, manifest).await?.ok_or_else(lost)
}

async fn load_blocks(
    dataset: &Dataset,
    view: &View,
    manifest: &Manifest,
) -> Result<Option<Published>, DatasetError> {
    let id = view_id(view);
    let document = match dataset.published(id, manifest.version).await {
        Err(DatasetError::Missing { .. }) => return Ok(None),
        document => document?,
    };
    if document.made_from != manifest.fingerprint() || document.blocks.len() != view.partitions as usize {
        return Ok(None);
    }
    let mut blocks = Vec::with_capacity(document.blocks.len());
    for index in 0..view.partitions {
        blocks.push(Arc::new(dataset.read_block(id, &document, index).await?));
    }
    Ok(Some(Published { version: manifest.version, blocks, files: document.blocks }))
}

/// Lifts rows of the newest-version table into views of one source, in one pass over some log
/// partitions' files: as many files at a time as there are processors, and of each only the columns
/// that a view reads. Returns for each view its groups by view partition.
pub(crate) async fn lift(
    dataset: &Dataset,
    views: &[Arc<View>],
    manifest: &Manifest,
    partitions: &[LogPartition],
) -> Result<Vec<Vec<Groups>>> {
    let columns: BTreeSet<usize> = views.iter().flat_map(|view| view.source_columns()).collect();
    let columns = Vec::from_iter(columns);
    let files = manifest.newest.iter().filter(|file| partitions.contains(&file.partition));
    let files: Vec<&NewestFile> = files.collect();
    let next = AtomicUsize::new(0);
    let lift_some = async || {
        let mut lifted: Vec<Lifting> = views.iter().map(|view| Lifting::new(view)).collect();
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            lifted = lift_file(dataset, views, manifest, file, &columns, lifted).await?;
        }
        Ok::<_, BatchError>(lifted)
    };
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = try_join_all((0..at_once).map(|_| lift_some().boxed())).await?;
    let total = blocking(move || parts.into_iter().reduce(combined)).await.unwrap_or_default();
    Ok(total.into_iter().map(Lifting::finish).collect())
}

/// Returns a view's blocks from groups by view partition.
pub(crate) fn blocks(view: &View, manifest: &Manifest, parts: Vec<Groups>) -> Vec<Arc<Block>> {
    parts.into_iter().map(|groups| Arc::new(block_of(view, manifest, groups))).collect()
}

fn combined(mut total: Vec<Lifting>, more: Vec<Lifting>) -> Vec<Lifting> {
    total.iter_mut().zip(&more).for_each(|(total, more)| total.combine(more));
    total
}

/// Adds one file's rows to what is lifted for each view. `columns`: those that any view reads.
async fn lift_file(
    dataset: &Dataset,
    views: &[Arc<View>],
    manifest: &Manifest,
    file: &NewestFile,
    columns: &[usize],
    mut lifted: Vec<Lifting>,
) -> Result<Vec<Lifting>> {
    let mut batches = dataset.read_newest_columns(&manifest.source, file, columns).await?;
    let mine = |view: &Arc<View>| {
        let places = view.source_columns().map(|column| columns.partition_point(|other| *other < column));
        (Arc::clone(view), places.collect::<Vec<_>>())
    };
    let views: Vec<_> = views.iter().map(mine).collect();
    let lift = move || {
        batches.try_for_each(|rows| {
            let rows = rows?;
            for ((view, places), lifting) in views.iter().zip(&mut lifted) {
                let columns: Vec<_> = places.iter().map(|place| Arc::clone(rows.column(*place))).collect();
                lifting.take(view, &view.lift_columns(&columns, rows.num_rows()), |_| 1);
            }
            Ok::<_, DatasetError>(())
        })?;
        Ok(lifted)
    };
    blocking(lift).await
}
