//! What goes into a view partition's ordered log, and what comes of it.

use std::fmt;
use std::sync::Arc;

use crate::fingerprint::Fingerprint;
use crate::group::{GroupId, GroupState};
use crate::groups::Groups;
use crate::position::{Cut, LogPartition, Offset, SegmentId};

/// What readings `[from, to)` of one log partition add to and retract from the
/// part of a view that one view partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The view's version.
    pub view: Fingerprint,
    /// The log partition.
    pub partition: LogPartition,
    /// The first offset covered.
    pub from: Offset,
    /// The first offset no longer covered; equal to `from` in a heartbeat.
    pub to: Offset,
    /// The groups changed.
    pub groups: Groups,
    /// The log partition's watermark at `to`, in microseconds.
    pub watermark_us: Option<i64>,
    /// Whether the log partition has been quiet long enough not to hold the
    /// view's watermark back.
    pub idle: bool,
}

/// One view partition's share of a published batch version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The view's version.
    pub view: Fingerprint,
    /// The number of the batch version; 0 is the empty beginning.
    pub version: u64,
    /// The offsets below which batch covers everything.
    pub cut: Cut,
    /// The log partitions' watermarks at the cut, in microseconds.
    pub watermarks_us: Vec<Option<i64>>,
    /// The groups.
    pub groups: Groups,
}

impl Block {
    /// Creates the empty block that a view starts from when nothing is archived.
    pub fn empty(view: Fingerprint, partitions: u32) -> Self {
        Self {
            view,
            version: 0,
            cut: Cut::zero(partitions),
            watermarks_us: vec![None; partitions as usize],
            groups: Groups::new(),
        }
    }

    /// Returns the block with other groups.
    #[must_use]
    pub fn with_groups(&self, groups: Groups) -> Self {
        let Self { view, version, cut, watermarks_us, groups: _ } = self;
        let (cut, watermarks_us) = (cut.clone(), watermarks_us.clone());
        Self { view: *view, version: *version, cut, watermarks_us, groups }
    }

    /// Becomes the block of a newer version, told by the groups that it adds.
    pub fn extend(&mut self, added: &Block) {
        self.groups.combine(&added.groups);
        self.version = added.version;
        self.cut.clone_from(&added.cut);
        self.watermarks_us.clone_from(&added.watermarks_us);
    }
}

/// A batch version's share, told by what it adds to an older version's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The number of the older version.
    pub of: u64,
    /// The block, but with only the groups that it adds to the older version's: the two sums are its
    /// groups.
    pub added: Arc<Block>,
}

/// One entry of a view partition's ordered log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Merges a delta by compare-and-apply.
    Delta(Delta),
    /// Adopts a newer batch version.
    Adopt(Arc<Block>),
    /// Adopts a newer batch version told by what it adds to an older one.
    Extend(Extension),
    /// Replaces a complete segment's groups after the audit found a difference.
    Rebuild(SegmentId, Groups),
}

/// What became of an [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The delta is merged; `applied[l]` is now this.
    Accepted {
        /// The new `applied[l]`.
        applied: Offset,
    },
    /// The delta does not continue what is applied; resume at `applied`.
    Refused {
        /// The delta's own `from`, so that the sender can tell a stale refusal.
        from: Offset,
        /// The current `applied[l]`.
        applied: Offset,
    },
    /// The entry is of another view version, or malformed (crosses a segment
    /// boundary, names an unknown log partition); never to be sent again.
    Invalid(&'static str),
    /// The batch version is adopted.
    Adopted,
    /// The batch version is not newer than the one held.
    Stale,
    /// The segment's groups are replaced.
    Rebuilt,
    /// The segment is not held (covered by batch, or incomplete); of an extension: another version
    /// than the extended one is.
    NotHeld,
}

/// The finished content of a closed window, to be written to an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// The grouping key and the window's start.
    pub group: GroupId,
    /// The window's end in microseconds.
    pub window_end: i64,
    /// The state of the whole window, or none when every row was retracted
    /// after an earlier emission.
    pub state: Option<GroupState>,
    /// Whether the window had closed before the change that caused this.
    pub late: bool,
}

/// A difference the audit found between speed and batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The segment.
    pub segment: SegmentId,
    /// The group.
    pub group: GroupId,
    /// The speed layer's state of the group in this segment.
    pub speed: Option<GroupState>,
    /// The batch layer's.
    pub batch: Option<GroupState>,
}

/// Which windows a pane belongs to.
pub trait Windows: fmt::Debug + Send + Sync {
    /// Returns the windows `[start, end)` that contain the pane starting at
    /// `pane_start`; empty for a view without windows.
    fn windows_of(&self, pane_start: i64) -> Vec<(i64, i64)>;
}
