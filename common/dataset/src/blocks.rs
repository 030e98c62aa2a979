//! Published view versions: for each a small document, and one block for each view partition.
//!
//! A file holds only groups and is named by its content, so a view partition that a version did
//! not change is carried by reference, and of one that it changed little only what it adds is written.
//! The document is written after its files, in one step.
//! Everything here can be recomputed from the newest-version table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use sanso_state::{AggregateKind, Block, Cut, Fingerprint, Groups, decode_groups, encode_groups};
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, blocking};
use crate::error::{DatasetError, RECOMPUTE, Result};
use crate::layout::{Layout, join, version_of};
use crate::manifest::{seal, unseal};

/// Names a view version and says how its groups are encoded.
#[derive(Clone, Copy, Debug)]
pub struct ViewId<'a> {
    /// The source.
    pub source: &'a str,
    /// The view's name.
    pub name: &'a str,
    /// The view's version.
    pub fingerprint: Fingerprint,
    /// The view's aggregates.
    pub kinds: &'a Arc<[AggregateKind]>,
}

/// One published version of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedView {
    /// The source.
    pub source: String,
    /// The view's name.
    pub view: String,
    /// The view's version.
    pub fingerprint: Fingerprint,
    /// The number of the dataset's version that this is the view of.
    pub version: u64,
    /// The fingerprint of that version's manifest.
    pub made_from: Fingerprint,
    /// That version's cut.
    pub cut: Cut,
    /// The log partitions' watermarks at the cut, in microseconds.
    pub watermarks_us: Vec<Option<i64>>,
    /// The blocks, one for each view partition, in order.
    pub blocks: Vec<PublishedBlock>,
}

/// One view partition's groups at a version: the sum of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedBlock {
    /// All groups at some version.
    pub whole: BlockFile,
    /// What versions since have added, oldest first.
    pub added: Vec<BlockFile>,
}

impl PublishedBlock {
    /// Returns the files, the oldest first.
    pub fn files(&self) -> impl Iterator<Item = &BlockFile> {
        std::iter::once(&self.whole).chain(&self.added)
    }
}

/// A file of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFile {
    /// The number of groups.
    pub groups: u64,
    /// The file's size.
    pub bytes: u64,
    /// The fingerprint of the file's bytes.
    pub content: Fingerprint,
    /// The file, relative to the folder of the view's version.
    pub path: String,
}

impl Dataset {
    /// Writes groups of one view partition and returns what a published version lists of them.
    /// Idempotent: the file is named by its content.
    pub async fn put_block(&self, view: ViewId<'_>, index: u32, block: &Arc<Block>) -> Result<BlockFile> {
        let (kinds, encoded) = (Arc::clone(view.kinds), Arc::clone(block));
        let bytes = Bytes::from(blocking(move || encode_groups(&kinds, &encoded.groups)).await);
        let content = Fingerprint::of(&bytes);
        let path = Layout::block(index, content);
        let file = BlockFile { groups: block.groups.len() as u64, bytes: bytes.len() as u64, content, path };
        self.put(&join(self.layout().view(view.source, view.name, view.fingerprint), &file.path), bytes)
            .await?;
        Ok(file)
    }

    /// Makes a view's version loadable, in one step. All its blocks must have been written before.
    /// A version that exists is replaced: it was recomputed, and is equal unless it was damaged.
    pub async fn publish(&self, published: &PublishedView) -> Result<()> {
        let PublishedView { source, view, fingerprint, version, .. } = published;
        let path = self.layout().published_version(source, view, *fingerprint, *version);
        self.put(&path, seal(published)).await
    }

    /// Returns the versions of a view that the store lists, oldest first. A listing may lag behind
    /// what was written and deleted; [`Dataset::published`] says whether a version is there.
    pub async fn published_versions(&self, view: ViewId<'_>) -> Result<Vec<u64>> {
        let folder = self.layout().published(view.source, view.name, view.fingerprint);
        let listed = self.list(&folder).await?;
        let mut versions: Vec<u64> = listed.iter().filter_map(|file| version_of(&file.location)).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Returns one published version of a view.
    pub async fn published(&self, view: ViewId<'_>, version: u64) -> Result<PublishedView> {
        let path = self.layout().published_version(view.source, view.name, view.fingerprint, version);
        let bytes = self.get(&path).await?;
        let published: PublishedView = unseal(&path, &bytes, RECOMPUTE)?;
        if published.version != version || published.fingerprint != view.fingerprint {
            return Err(DatasetError::damaged(path, "it is another view's or version's", RECOMPUTE));
        }
        Ok(published)
    }

    /// Reads one view partition's block. Refuses damaged files.
    pub async fn read_block(&self, view: ViewId<'_>, published: &PublishedView, index: u32) -> Result<Block> {
        let mut files = published.blocks[index as usize].files();
        let mut groups = match files.next() {
            Some(whole) => self.read_groups(view, whole).await?,
            None => Groups::new(),
        };
        for file in files {
            groups.combine(&self.read_groups(view, file).await?);
        }
        Ok(Block {
            view: view.fingerprint,
            version: published.version,
            cut: published.cut.clone(),
            watermarks_us: published.watermarks_us.clone(),
            groups,
        })
    }

    async fn read_groups(&self, view: ViewId<'_>, file: &BlockFile) -> Result<Groups> {
        let path = join(self.layout().view(view.source, view.name, view.fingerprint), &file.path);
        let bytes = self.get_checked(&path, file.content, RECOMPUTE).await?;
        let kinds = Arc::clone(view.kinds);
        let decoded = blocking(move || decode_groups(&kinds, &bytes)).await;
        decoded.map_err(|e| DatasetError::undecodable(path, &e))
    }

    /// Deletes the published versions of a view that are `keep` or more below `newest`, and the blocks
    /// that none of those kept lists. Returns how many files it deleted. A damaged version counts as
    /// listing none. A listing that lags leaves files to the next time.
    ///
    /// Only the process that publishes the view may call it, and not while it publishes.
    pub async fn remove_unpublished(&self, view: ViewId<'_>, newest: u64, keep: usize) -> Result<u64> {
        let first = (newest + 1).saturating_sub(keep.max(1) as u64);
        let folder = self.layout().view(view.source, view.name, view.fingerprint);
        let mut listed = BTreeSet::new();
        for version in first..=newest {
            match self.published(view, version).await {
                Ok(published) => {
                    let files = published.blocks.iter().flat_map(PublishedBlock::files);
                    listed.extend(files.map(|file| join(folder.clone(), &file.path)));
                }
                Err(DatasetError::Damaged { .. } | DatasetError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let versions = self.published_versions(view).await?;
        let gone = versions.into_iter().filter(|version| *version < first);
        let mut deleted = 0;
        for version in gone {
            let path = self.layout().published_version(view.source, view.name, view.fingerprint, version);
            self.delete(&path).await?;
            deleted += 1;
        }
        for file in self.list(&folder.join("blocks")).await? {
            if !listed.contains(&file.location) {
                self.delete(&file.location).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Deletes the view versions of a source whose newest published version is below `version`:
    /// those of views that were changed or dropped. Returns how many files it deleted. Those in `live`
    /// stay, however little of them is listed.
    pub async fn remove_views_before(&self, source: &str, version: u64, live: &[ViewId<'_>]) -> Result<u64> {
        let root = self.layout().views(source);
        let depth = root.parts_count() + 2;
        let mut views: BTreeMap<Path, (Option<u64>, Vec<Path>)> = BTreeMap::new();
        for file in self.list(&root).await? {
            let folder: Path = file.location.parts().take(depth).collect();
            let (newest, files) = views.entry(folder).or_default();
            *newest = (*newest).max(version_of(&file.location));
            files.push(file.location);
        }
        for view in live {
            views.remove(&self.layout().view(source, view.name, view.fingerprint));
        }
        let stale = views.into_values().filter(|(newest, _)| newest.is_some_and(|newest| newest < version));
        let mut deleted = 0;
        for path in stale.flat_map(|(_, files)| files) {
            self.delete(&path).await?;
            deleted += 1;
        }
        Ok(deleted)
    }
}
