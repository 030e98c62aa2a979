//! The exchange between the two stages of a job that computes views from all rows.
//!
//! ```text
//!   Split 0 ──▶ pieces of v0 │ v1 │ v2        at the node that split
//!   Split 1 ──▶ pieces of v0 │ v1 │ v2
//!                          ▼    ▼    ▼
//!                   Combine 0   1    2  ──▶ the block of each view partition, in the dataset
//! ```
//!
//! A piece that can't be had is named by the task that gave it, which is then done again, and no other.
//! In memory: of who splits, what it lifted and one piece; of who combines, one view partition and one piece.

use std::collections::BTreeSet;
use std::sync::Arc;

use sanso_block::BlockNode;
use sanso_dataset::{BlockFile, Dataset, Piece, PieceId, Sought};
use sanso_lineage::WorkerId;
use sanso_state::{Groups, decode_groups, encode_groups};
use sanso_view::View;

use crate::archive::blocking;
use crate::error::{BatchError, Result};
use crate::publish::{block_of, view_id};
use crate::task::Task;

/// Keeps what a task lifted as pieces: at this node, where others can fetch them. Into the dataset where that can't
/// be, or they are to be safe. Returns who keeps them.
pub(crate) async fn handed_out(
    task: &Task,
    dataset: &Dataset,
    lifted: Vec<(Arc<View>, Vec<Groups>)>,
    safely: bool,
) -> Result<Option<WorkerId>> {
    let mut pieces = Vec::new();
    for (view, parts) in lifted {
        for (index, groups) in (0..).zip(parts) {
            let id = PieceId::new(task.fingerprint(), view.fingerprint, index);
            pieces.push((id, Arc::clone(&view), Arc::new(groups)));
        }
    }
    let ids: Vec<PieceId> = pieces.iter().map(|(id, ..)| *id).collect();
    if let Some(me) = dataset.keeps_pieces().filter(|_| !safely) {
        for (id, view, groups) in &pieces {
            dataset.keep_piece(*id, &encoded(view, groups).await).await;
        }
        // The last ones may have driven out the first ones.
        if dataset.has_pieces(&ids) {
            return Ok(Some(WorkerId(me.0)));
        }
        tracing::debug!(task = task.name(), "there is no room for the pieces here: they go to the dataset");
        dataset.forget_pieces(&[me], &ids).await;
    }
    let (source, version) = (&task.source().name, task.version());
    for (id, view, groups) in pieces {
        dataset.put_piece(source, version, id, &encoded(&view, &groups).await).await?;
    }
    Ok(None)
}

async fn encoded(view: &Arc<View>, groups: &Arc<Groups>) -> Piece {
    let (view, groups) = (Arc::clone(view), Arc::clone(groups));
    blocking(move || Piece::new(encode_groups(&view.kinds, &groups))).await
}

/// Combines the pieces of one view partition, one after the other, and writes its block.
pub(crate) async fn combined(task: &Task, dataset: &Dataset, index: u32) -> Result<BlockFile> {
    let (source, version) = (&task.source().name, task.version());
    let [view] = task.views() else { panic!("a view partition is of one view") };
    let mut groups = Groups::new();
    let mut lacks = Vec::new();
    let mut unreachable = BTreeSet::new();
    for (of, held_by) in task.inputs().collect::<Vec<_>>() {
        let id = PieceId::new(of, view.fingerprint, index);
        let sought = match held_by {
            Some(worker) if unreachable.contains(&worker) => Sought::Unreachable,
            held_by => dataset.piece(source, version, id, held_by.map(|worker| BlockNode(worker.0))).await?,
        };
        if let (Sought::Unreachable, Some(worker)) = (&sought, held_by) {
            unreachable.insert(worker);
        }
        let Sought::Found(piece) = sought else {
            lacks.push(of);
            continue;
        };
        let (view, so_far) = (Arc::clone(view), std::mem::take(&mut groups));
        match blocking(move || with(&view, so_far, &piece)).await {
            Some(more) => groups = more,
            None => lacks.push(of),
        }
    }
    if !lacks.is_empty() {
        return Err(BatchError::Lacks { task: task.name(), of: lacks });
    }
    let block = Arc::new(block_of(view, task.stands_on(), groups));
    Ok(dataset.put_block(view_id(view), index, &block).await?)
}

/// Adds a piece to groups; none when it is not what was encoded.
fn with(view: &View, mut groups: Groups, piece: &Piece) -> Option<Groups> {
    let more = decode_groups(&view.kinds, piece.bytes()?).ok()?;
    groups.combine(&more);
    Some(groups)
}
