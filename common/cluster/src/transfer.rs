//! The state of a replica on its way to another one: cut into pieces there, put together again here. Pure.
//!
//! ```text
//!   piece 0           │ piece 1      │ piece 2                            │ piece 3
//!   view, base        │ base         │ base, segment, segment, view, base │ segment, end
//! ```
//!
//! A view partition begins with all that it holds but its groups; then come the groups of its base, in order, and those of
//! each segment. Behind the view partitions comes what is staged of blocks that are being written in parts. Pieces are
//! numbered, and the last one says that the state is whole. What is cut out of its turn, or is not of the transfer that is
//! under way, ends that: the core asks again.
//!
//! A node takes a state only for a replica that it holds, from that replica's primary, by the map that it knows. So there is
//! at most one transfer on its way for each partition, and what the map no longer wants is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::cluster::{ClusterMap, Epoch, Instance, Message, NodeId, Partition, Position, Replication};
use sanso_core::{Hosted, PartitionId, Staged, Staging};
use sanso_state::{
    AggregateKind, Block, Cut, Groups, Offset, RunError, RunGroups, SegmentId, Segments, Snapshot, SortedRun,
    ViewPartition, ViewPartitionConfig, decode_groups, encode_groups, encode_some,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::wire::{self, Name};

/// What the groups in a piece take, encoded; more only by the last of them. Small against the state and against what waits
/// for a connection, large against what a message costs.
pub const PIECE_BYTES: usize = 4 << 20;

/// A state's way from one replica to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The partition.
    pub partition: Partition,
    /// The epoch in which it is sent.
    pub epoch: Epoch,
    /// When the sender became a holder; see [`sanso_core::cluster::Holder`].
    pub from_since: u64,
    /// When the receiver did.
    pub to_since: u64,
    /// Tells it from all others of the sender's life.
    pub number: u64,
}

impl Transfer {
    /// Says whether a map has these two as primary and holder, as they were when it began.
    pub(crate) fn is_wanted(&self, map: &ClusterMap, from: NodeId, to: NodeId) -> bool {
        let Some(assignment) = map.partitions.get(self.partition.0 as usize) else { return false };
        let is = |node, since| {
            move |holder: &sanso_core::cluster::Holder| (holder.instance.node, holder.since) == (node, since)
        };
        assignment.epoch == self.epoch
            && assignment.primary.as_ref().is_some_and(is(from, self.from_since))
            && assignment.holders().any(|holder| is(to, self.to_since)(&holder))
    }

    /// Makes what one replica says to the other.
    pub(crate) fn message(self, message: Replication<Hosted>) -> Message<Hosted> {
        let Self { partition, epoch, from_since, to_since, number: _ } = self;
        Message::Replication { partition, epoch, from_since, to_since, message }
    }
}

/// A piece of a state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Piece {
    pub(crate) of: Transfer,
    /// Counts the transfer's pieces, from 0.
    pub(crate) number: u64,
    pub(crate) parts: Vec<Part>,
}

/// What a piece has some of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// A view partition begins.
    View(Outline),
    /// Groups of its base.
    Base { groups: ByteBuf },
    /// Groups of a segment.
    Segment { segment: SegmentId, groups: ByteBuf },
    /// What is staged of a block begins.
    Stage { id: Name, kinds: Vec<AggregateKind>, of: Staging, parts: u32 },
    /// Groups of it.
    Staged { groups: ByteBuf },
    /// The state is whole.
    End { at: Position },
}

/// All that a view partition holds but its groups.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outline {
    id: Name,
    kinds: Vec<AggregateKind>,
    segment_offsets: Segments,
    version: u64,
    cut: Cut,
    cut_watermarks_us: Vec<Option<i64>>,
    applied: Vec<Offset>,
    watermarks_us: Vec<Option<i64>>,
    idle: Vec<bool>,
    closed_until_us: i64,
    late_groups: u64,
}

impl Outline {
    fn of(id: PartitionId, partition: &ViewPartition) -> Self {
        let (config, outline) = (partition.config(), partition.outline());
        Self {
            id: id.into(),
            kinds: config.kinds.to_vec(),
            segment_offsets: config.segments,
            version: outline.base.version,
            cut: outline.base.cut.clone(),
            cut_watermarks_us: outline.base.watermarks_us.clone(),
            applied: outline.applied,
            watermarks_us: outline.watermarks_us,
            idle: outline.idle,
            closed_until_us: outline.closed_until_us,
            late_groups: outline.late_groups,
        }
    }
}

/// Why a state was not cut to its end.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// No other piece was wanted.
    #[error("nobody wants the rest of it")]
    Unwanted,
    /// What of it is on disk can't be read.
    #[error(transparent)]
    Unreadable(#[from] RunError),
}

/// Cuts a state into pieces whose groups take about so many bytes each, and gives them away one after the other, until one is
/// not wanted. A view partition that has been given away is let go of.
pub fn cut(
    of: Transfer,
    at: Position,
    state: Hosted,
    piece_bytes: usize,
    give: impl FnMut(Piece) -> bool,
) -> Result<(), CutError> {
    let mut cutter = Cutter { of, number: 0, parts: Vec::new(), left: piece_bytes, piece_bytes, give };
    let (partitions, staged) = (state.partitions(), state.staged());
    drop(state);
    for (id, partition) in partitions {
        let outline = Outline::of(id, &partition);
        let bytes = wire::encode(&outline).len();
        cutter.push(Part::View(outline), bytes)?;
        let kinds = partition.kinds();
        cutter.push_groups(kinds, partition.base_groups()?, |groups| Part::Base { groups })?;
        for (&segment, groups) in partition.segments() {
            if groups.is_empty() {
                // It is held all the same.
                let groups = ByteBuf::from(encode_groups(kinds, groups));
                let bytes = groups.len();
                cutter.push(Part::Segment { segment, groups }, bytes)?;
            }
            let groups = groups.read(sanso_state::Part::ALL);
            cutter.push_groups(kinds, groups, |groups| Part::Segment { segment, groups })?;
        }
    }
    for (id, Staged { of, parts, kinds, groups }) in staged {
        let stage = Part::Stage { id: id.into(), kinds: kinds.to_vec(), of, parts };
        let bytes = wire::encode(&stage).len();
        cutter.push(stage, bytes)?;
        cutter.push_groups(&kinds, groups.read(sanso_state::Part::ALL), |groups| Part::Staged { groups })?;
    }
    cutter.parts.push(Part::End { at });
    cutter.give()
}

/// A state that is being cut.
struct Cutter<Give> {
    of: Transfer,
    number: u64,
    /// What is in the next piece.
    parts: Vec<Part>,
    /// How many bytes still fit into it.
    left: usize,
    piece_bytes: usize,
    give: Give,
}

impl<Give: FnMut(Piece) -> bool> Cutter<Give> {
    fn push(&mut self, part: Part, bytes: usize) -> Result<(), CutError> {
        self.parts.push(part);
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 { self.give() } else { Ok(()) }
    }

    fn push_groups(
        &mut self,
        kinds: &[AggregateKind],
        mut groups: RunGroups<'_>,
        part: impl Fn(ByteBuf) -> Part,
    ) -> Result<(), CutError> {
        while let Some(some) = encode_some(kinds, &mut groups, self.left)? {
            let bytes = some.len();
            self.push(part(ByteBuf::from(some)), bytes)?;
        }
        Ok(())
    }

    fn give(&mut self) -> Result<(), CutError> {
        let piece = Piece { of: self.of, number: self.number, parts: std::mem::take(&mut self.parts) };
        (self.number, self.left) = (self.number + 1, self.piece_bytes);
        if (self.give)(piece) { Ok(()) } else { Err(CutError::Unwanted) }
    }
}

/// Why a transfer is dropped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a state that is no state: {0}")]
pub struct TransferError(&'static str);

/// The states on their way to this node.
#[derive(Debug, Default)]
pub struct Transfers(BTreeMap<Partition, Arriving>);

impl Transfers {
    /// Takes the next piece that a node has sent; returns what the core is told once the state is whole. What does not belong to
    /// the transfer under way ends it.
    pub fn take(&mut self, from: Instance, piece: Piece) -> Result<Option<Message<Hosted>>, TransferError> {
        let Piece { of, number, parts } = piece;
        let held = self.0.remove(&of.partition);
        let mut arriving = match (number, held) {
            (0, _) => Arriving::new(from, of),
            (_, Some(held)) if (held.from, held.of, held.next) == (from, of, number) => held,
            (_, Some(_)) => return Err(TransferError("a piece is missing")),
            (_, None) => return Err(TransferError("it has not begun")),
        };
        arriving.next += 1;
        for part in parts {
            arriving.take(part)?;
        }
        let Some(at) = arriving.whole else {
            self.0.insert(of.partition, arriving);
            return Ok(None);
        };
        let state = Hosted::with_staged(arriving.done, arriving.staged);
        Ok(Some(of.message(Replication::Snapshot { at, state })))
    }

    /// Drops what is no longer wanted.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(NodeId, &Transfer) -> bool) {
        self.0.retain(|_, arriving| is_wanted(arriving.from.node, &arriving.of));
    }
}

/// A state that is being put together.
#[derive(Debug)]
struct Arriving {
    from: Instance,
    of: Transfer,
    /// The number of the next piece.
    next: u64,
    done: Vec<(PartitionId, ViewPartition)>,
    open: Option<Open>,
    staged: Vec<(PartitionId, Staged)>,
    /// Its position, once nothing more is to come.
    whole: Option<Position>,
}

/// A view partition that is being put together.
#[derive(Debug)]
struct Open {
    id: PartitionId,
    config: ViewPartitionConfig,
    outline: Snapshot,
    base: Groups,
    segments: BTreeMap<SegmentId, Groups>,
}

impl Arriving {
    fn new(from: Instance, of: Transfer) -> Self {
        Self { from, of, next: 0, done: Vec::new(), open: None, staged: Vec::new(), whole: None }
    }

    fn take(&mut self, part: Part) -> Result<(), TransferError> {
        if self.whole.is_some() {
            return Err(TransferError("something comes after its end"));
        }
        match part {
            Part::View(outline) => {
                self.close()?;
                if !self.staged.is_empty() {
                    return Err(TransferError("a view partition comes after what is staged"));
                }
                let open = Open::new(outline);
                if self.done.last().is_some_and(|(last, _)| *last >= open.id) {
                    return Err(TransferError("view partitions are not in order"));
                }
                self.open = Some(open);
            }
            Part::Base { groups } => self.opened()?.take_base(&groups)?,
            Part::Segment { segment, groups } => self.opened()?.take_segment(segment, &groups)?,
            Part::Stage { id, kinds, of, parts } => {
                self.close()?;
                let id = PartitionId::from(id);
                if self.staged.last().is_some_and(|(last, _)| *last >= id) {
                    return Err(TransferError("what is staged is not in order"));
                }
                let groups = Arc::default();
                self.staged.push((id, Staged { of, parts, kinds: kinds.into(), groups }));
            }
            Part::Staged { groups } => {
                let none = TransferError("groups come before what they are staged for");
                let (_, staged) = self.staged.last_mut().ok_or(none)?;
                let kinds = Arc::clone(&staged.kinds);
                add(Arc::make_mut(&mut staged.groups), &kinds, &groups)?;
            }
            Part::End { at } => {
                self.close()?;
                self.whole = Some(at);
            }
        }
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut Open, TransferError> {
        self.open.as_mut().ok_or(TransferError("groups come before their view partition"))
    }

    fn close(&mut self) -> Result<(), TransferError> {
        if let Some(open) = self.open.take() {
            self.done.push(open.close()?);
        }
        Ok(())
    }
}

impl Open {
    fn new(outline: Outline) -> Self {
        let id = PartitionId::from(outline.id);
        let config = ViewPartitionConfig {
            view: id.view,
            kinds: outline.kinds.into(),
            segments: outline.segment_offsets,
        };
        let base = Block {
            view: id.view,
            version: outline.version,
            cut: outline.cut,
            watermarks_us: outline.cut_watermarks_us,
            groups: Groups::new(),
        };
        let outline = Snapshot {
            base: Arc::new(base),
            applied: outline.applied,
            watermarks_us: outline.watermarks_us,
            idle: outline.idle,
            segments: BTreeMap::new(),
            closed_until_us: outline.closed_until_us,
            late_groups: outline.late_groups,
        };
        Self { id, config, outline, base: Groups::new(), segments: BTreeMap::new() }
    }

    fn take_base(&mut self, groups: &[u8]) -> Result<(), TransferError> {
        if !self.segments.is_empty() {
            return Err(TransferError("groups of a base come after segments"));
        }
        add(&mut self.base, &self.config.kinds, groups)
    }

    fn take_segment(&mut self, segment: SegmentId, groups: &[u8]) -> Result<(), TransferError> {
        if self.segments.last_key_value().is_some_and(|(last, _)| *last > segment) {
            return Err(TransferError("segments are not in order"));
        }
        add(self.segments.entry(segment).or_default(), &self.config.kinds, groups)
    }

    fn close(self) -> Result<(PartitionId, ViewPartition), TransferError> {
        let Self { id, config, outline, base: groups, segments } = self;
        let base = Arc::new(Block { groups, ..Arc::unwrap_or_clone(outline.base) });
        let segments = segments.into_iter().map(|(segment, groups)| (segment, Arc::new(groups))).collect();
        let partition = ViewPartition::restore(config, Snapshot { base, segments, ..outline });
        Ok((id, partition.map_err(TransferError)?))
    }
}

/// Adds groups that are none of those before.
fn add(to: &mut Groups, kinds: &[AggregateKind], encoded: &[u8]) -> Result<(), TransferError> {
    let some = decode_groups(kinds, encoded).map_err(|_| TransferError("groups can't be decoded"))?;
    let all = to.len() + some.len();
    if to.is_empty() {
        *to = some;
    } else {
        to.combine(&some);
    }
    if to.len() == all { Ok(()) } else { Err(TransferError("a group comes twice")) }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
