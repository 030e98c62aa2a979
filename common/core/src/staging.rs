//! Blocks that are written in parts.
//!
//! ```text
//!   part 0 │ delta │ part 1 │ delta │ delta │ part 2 │ the write that the groups belong to
//! ```
//!
//! A block may be hundreds of times as large as other writes. As one write it would hold up all that comes behind it, until
//! each replica has received, decoded and acknowledged it; its parts take turns with what others write. They change nothing that
//! can be read: the write at the end does, at once, with what is staged as the groups of its block.
//!
//! What is staged is replicated like all else, so any replica may become the primary in the middle of it. Of each
//! view partition one block is staged at a time: the one begun last. Whoever finds that his is not there any longer begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_state::{AggregateKind, Fingerprint, Groups};
use serde::{Deserialize, Serialize};

use crate::bury::bury;
use crate::cluster::Instance;
use crate::store::PartitionId;

/// Names the writing of one block, once for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// Who writes.
    pub writer: Instance,
    /// Counts what it writes in parts.
    pub number: u64,
}

/// Some of a block's groups.
#[derive(Clone, Debug)]
pub struct BlockPart {
    /// Which block's.
    pub of: Staging,
    /// Counts the parts, from 0.
    pub number: u32,
    /// The aggregates of the view.
    pub kinds: Arc<[AggregateKind]>,
    /// The groups; none is in another part.
    pub groups: Groups,
}

/// The parts of a block that have come.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    /// Which block's.
    pub of: Staging,
    /// How many parts.
    pub parts: u32,
    /// The aggregates of the view.
    pub kinds: Arc<[AggregateKind]>,
    /// The groups of these parts.
    pub groups: Arc<Groups>,
}

/// What is staged of blocks, by the view partition that they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stages(BTreeMap<PartitionId, Staged>);

impl Stages {
    pub(crate) fn of(staged: impl IntoIterator<Item = (PartitionId, Staged)>) -> Self {
        Self(staged.into_iter().collect())
    }

    /// Takes a part, the next one, or one that has come before. Any other is refused: what comes before it is not here.
    pub(crate) fn add(&mut self, id: PartitionId, part: BlockPart) -> bool {
        let BlockPart { of, number, kinds, groups } = part;
        match self.0.get_mut(&id) {
            Some(staged) if staged.of == of && number < staged.parts => bury(groups),
            Some(staged) if staged.of == of && number == staged.parts => {
                Arc::make_mut(&mut staged.groups).combine(&groups);
                staged.parts += 1;
            }
            _ if number == 0 => {
                let staged = Staged { of, parts: 1, kinds, groups: Arc::new(groups) };
                bury(self.0.insert(id, staged));
            }
            _ => return false,
        }
        true
    }

    /// Takes the groups of a block, if so many parts have come.
    pub(crate) fn take(&mut self, id: PartitionId, of: Staging, parts: u32) -> Option<Arc<Groups>> {
        let is_it = self.0.get(&id).is_some_and(|staged| staged.of == of && staged.parts == parts);
        is_it.then(|| self.0.remove(&id)).flatten().map(|staged| staged.groups)
    }

    /// Forgets what is staged for a view partition.
    pub(crate) fn forget(&mut self, id: PartitionId) {
        if let Some(staged) = self.0.remove(&id) {
            bury(staged);
        }
    }

    /// Forgets what is staged for a view version.
    pub(crate) fn forget_view(&mut self, view: Fingerprint) {
        self.0.extract_if(.., |id, _| id.view == view).for_each(bury);
    }

    pub(crate) fn list(&self) -> Vec<(PartitionId, Staged)> {
        self.0.iter().map(|(id, staged)| (*id, staged.clone())).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many groups are staged.
    pub(crate) fn groups(&self) -> u64 {
        self.0.values().map(|staged| staged.groups.len() as u64).sum()
    }
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;
