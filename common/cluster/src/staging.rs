//! Writes of blocks: large ones in parts, so that what others write to the same partition takes its turn between them.

use std::sync::Arc;

use sanso_core::{BlockPart, PartitionId, StoreError, Write};
use sanso_state::{AggregateKind, Block, Groups};

use crate::hub::{Hub, making_room};
use crate::store::ClusterStore;
use crate::wire::{self, PIECES_SINCE, SubmitAnswer};

/// A block of so many groups is one write.
const WHOLE_MAX: usize = 16_384;
/// The groups of a first part. What those of the next ones take is known after it.
const FIRST_GROUPS: usize = 1_024;
/// About what the groups of a part take, encoded. A delta that comes behind one waits for about 10 ms.
const PART_BYTES: usize = 1 << 20;
/// How often a block is begun before it is given up: another node has begun to write one meanwhile.
const TRIES: usize = 3;

impl ClusterStore {
    /// Writes what brings a block.
    pub(crate) async fn write_block(
        &self,
        write: Write,
        kinds: &Arc<[AggregateKind]>,
    ) -> Result<SubmitAnswer, StoreError> {
        let (id, block) =
            write.block().map(|(id, block)| (id, Arc::clone(block))).expect("it brings a block");
        if self.0.is_alone || block.groups.len() <= WHOLE_MAX || !takes_parts(&self.0) {
            let groups = block.groups.len();
            return self.write(id, self.encoded(write, groups, kinds)).await;
        }
        let rest = write.with_groups(Groups::new()).expect("it brings a block");
        for _ in 0..TRIES {
            match self.write_in_parts(id, &block, &rest, kinds).await? {
                SubmitAnswer::NotStaged => tracing::debug!(%id, "a block is staged anew"),
                answer => return Ok(answer),
            }
        }
        let reason = "other blocks for it came between the parts of one".to_owned();
        Err(StoreError::Unreachable { id, reason })
    }

    /// Stages a block's groups, then writes the rest. The answer is the last write's, or that of the part that was not taken.
    async fn write_in_parts(
        &self,
        id: PartitionId,
        block: &Block,
        rest: &Write,
        kinds: &Arc<[AggregateKind]>,
    ) -> Result<SubmitAnswer, StoreError> {
        let of = self.ready(id).await?.0.staging();
        let (mut left, mut number, mut most) = (block.groups.parts(), 0, FIRST_GROUPS);
        while let Some(groups) = making_room(true, || left.take(most)) {
            let count = groups.len();
            let part = Write::Stage(id, BlockPart { of, number, kinds: Arc::clone(kinds), groups });
            let part = making_room(true, || wire::write(part, kinds));
            most = (PART_BYTES * count / part.bytes().len()).max(1);
            match self.write(id, part).await? {
                SubmitAnswer::Staged => number += 1,
                answer => return Ok(answer),
            }
        }
        let whole = Write::WithStaged { of, parts: number, write: Box::new(rest.clone()) };
        self.write(id, wire::write(whole, kinds)).await
    }
}

/// Says whether no node is known that takes a block as a whole only. One that comes later, and is such a node, is not
/// told anything that it takes for something else; it is in sync again once the block is written.
fn takes_parts(hub: &Hub) -> bool {
    let status = hub.peers.get().map(|peers| peers.status()).unwrap_or_default();
    status.values().all(|peer| peer.version.is_none_or(|version| version >= PIECES_SINCE))
}
