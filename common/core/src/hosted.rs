//! What a partition of the cluster holds: view partitions, and the writes to them.
//!
//! View partition `i` of every view lies in partition `i` modulo the cluster's number of
//! partitions, so that replicas are few and each has something of every view.

use std::sync::Arc;

use parking_lot::Mutex;
use sanso_state::{
    Block, Entry, Extension, Fingerprint, GroupId, Groups, Outcome, RunError, RunStore, SegmentId,
    ViewPartition, ViewPartitionConfig, Windows,
};
use tokio::sync::{Notify, broadcast};

use crate::bury::bury;
use crate::cluster::{Partition, State};
use crate::read::{Begun, ReadReply, ReadRequest};
use crate::slots::{Change, Emitted, Slots};
use crate::staging::{BlockPart, Staged, Staging};
use crate::store::PartitionId;

/// An encoding that is longer is freed elsewhere.
const BURIED_BYTES: usize = 256 << 10;

/// Returns the cluster's partition that holds a view partition.
pub fn home_of(id: PartitionId, partitions: u32) -> Partition {
    Partition(id.index % partitions)
}

/// A write to a partition of the cluster.
#[derive(Clone, Debug)]
pub enum Write {
    /// Adds a view partition that stands on a block, unless it is there.
    Create {
        /// Its name.
        id: PartitionId,
        /// What it needs to know of its view.
        config: ViewPartitionConfig,
        /// What it stands on.
        base: Arc<Block>,
    },
    /// Removes all view partitions of a view version.
    Remove(Fingerprint),
    /// An entry of a view partition.
    Enter(PartitionId, Entry),
    /// Some groups of a block that is to be written to a view partition, which need not be there yet.
    Stage(PartitionId, BlockPart),
    /// A write of a block, whose groups were staged.
    WithStaged {
        /// Which block's.
        of: Staging,
        /// In how many parts.
        parts: u32,
        /// The write, with a block without groups.
        write: Box<Write>,
    },
}

impl Write {
    /// Returns the view partition and the block that is written to it; none where there is none.
    pub fn block(&self) -> Option<(PartitionId, &Arc<Block>)> {
        match self {
            Self::Create { id, base, .. } => Some((*id, base)),
            Self::Enter(id, Entry::Adopt(block)) => Some((*id, block)),
            Self::Enter(id, Entry::Extend(extension)) => Some((*id, &extension.added)),
            _ => None,
        }
    }

    /// Returns the write with other groups in its block; none where there is no block.
    #[must_use]
    pub fn with_groups(self, groups: Groups) -> Option<Self> {
        let with = |block: Arc<Block>| Arc::new(block.with_groups(groups));
        match self {
            Self::Create { id, config, base } => Some(Self::Create { id, config, base: with(base) }),
            Self::Enter(id, Entry::Adopt(block)) => Some(Self::Enter(id, Entry::Adopt(with(block)))),
            Self::Enter(id, Entry::Extend(Extension { of, added })) => {
                Some(Self::Enter(id, Entry::Extend(Extension { of, added: with(added) })))
            }
            _ => None,
        }
    }
}

/// What became of a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The view partition is there.
    Created,
    /// The view version is not there any longer.
    Removed,
    /// The entry was applied.
    Entered(Outcome),
    /// The part of a block is there.
    Staged,
    /// What was staged before is not there, or not all of it: the block is to be staged anew.
    NotStaged,
    /// There is no such view partition.
    NotLive,
}

/// A write in its encoding, which is kept for replicas that catch up, and as it was decoded, which
/// is gone once applied: what it holds is in the view partition then.
#[derive(Clone, Debug)]
pub struct Encoded {
    bytes: Arc<[u8]>,
    decoded: Arc<Mutex<Option<Write>>>,
    decode: fn(&[u8]) -> Option<Write>,
}

impl Encoded {
    /// Puts a write and its encoding together; `decode` must give the same write for it at any time.
    pub fn new(write: Write, bytes: Arc<[u8]>, decode: fn(&[u8]) -> Option<Write>) -> Self {
        Self { bytes, decoded: Arc::new(Mutex::new(Some(write))), decode }
    }

    /// Holds a write to a partition that has one replica and will have no other: it is never sent, so
    /// there is nothing to encode. It can be applied once.
    pub fn unsent(write: Write) -> Self {
        Self::new(write, Arc::from([]), |_| None)
    }

    /// Returns the encoding.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Returns the write; none of one that is not sent and was applied before.
    fn take(&self) -> Option<Write> {
        let taken = self.decoded.lock().take();
        let write = taken.or_else(|| (self.decode)(&self.bytes));
        assert!(write.is_some() || self.bytes.is_empty(), "it was made of a write");
        write
    }
}

impl Drop for Encoded {
    fn drop(&mut self) {
        if self.bytes.len() > BURIED_BYTES && Arc::strong_count(&self.bytes) == 1 {
            bury((std::mem::take(&mut self.bytes), std::mem::take(&mut self.decoded)));
        }
    }
}

/// The view partitions in one replica of a partition of the cluster. A clone is a copy.
#[derive(Debug, Default)]
pub struct Hosted(Arc<Slots>);

impl Clone for Hosted {
    fn clone(&self) -> Self {
        Self::with_staged(self.partitions(), self.staged())
    }
}

impl State for Hosted {
    type Op = Encoded;
    type Outcome = Written;

    fn apply(&mut self, op: &Encoded) -> Written {
        // Whoever wrote it and has not heard of it writes again, by compare and apply.
        op.take().map_or(Written::NotLive, |write| self.write(write))
    }

    fn weight(op: &Encoded) -> usize {
        op.bytes.len()
    }

    fn is_again(op: &Encoded, other: &Encoded) -> bool {
        !op.bytes.is_empty() && op.bytes == other.bytes
    }

    fn replace(&mut self, mut by: Self) {
        let by = std::mem::take(&mut by.0);
        let staged = by.staged();
        let partitions = Arc::try_unwrap(by).map_or_else(|shared| shared.copies(), Slots::into_all);
        self.0.replace(partitions, staged);
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            bury(std::mem::take(&mut self.0));
        }
    }
}

impl Hosted {
    fn write(&self, write: Write) -> Written {
        match write {
            Write::Create { id, config, base } => {
                match self.0.get(id) {
                    None => self.0.insert(id, ViewPartition::new(config, base)),
                    Some(_) => bury(base),
                }
                Written::Created
            }
            Write::Remove(view) => {
                self.0.remove(view);
                Written::Removed
            }
            Write::Enter(id, entry) => {
                let Some(slot) = self.0.get(id) else { return Written::NotLive };
                let outcome = slot.apply(entry);
                if outcome == Outcome::Adopted {
                    // Whoever has staged for it, and is gone, does not come back for that.
                    self.0.forget_staged(id);
                }
                Written::Entered(outcome)
            }
            Write::Stage(id, part) => match self.0.stage(id, part) {
                true => Written::Staged,
                false => Written::NotStaged,
            },
            Write::WithStaged { of, parts, write } => {
                let staged = write.block().and_then(|(id, _)| self.0.take_staged(id, of, parts));
                let whole = staged.and_then(|groups| write.with_groups(Arc::unwrap_or_clone(groups)));
                whole.map_or(Written::NotStaged, |write| self.write(write))
            }
        }
    }

    /// Restores what [`Hosted::partitions`] gave, where nothing is staged.
    pub fn of(partitions: Vec<(PartitionId, ViewPartition)>) -> Self {
        Self::with_staged(partitions, Vec::new())
    }

    /// Restores what [`Hosted::partitions`] and [`Hosted::staged`] gave.
    pub fn with_staged(
        partitions: Vec<(PartitionId, ViewPartition)>,
        staged: Vec<(PartitionId, Staged)>,
    ) -> Self {
        let slots = Slots::default();
        slots.replace(partitions, staged);
        Self(Arc::new(slots))
    }

    /// Returns copies of the view partitions, in order.
    pub fn partitions(&self) -> Vec<(PartitionId, ViewPartition)> {
        self.0.copies()
    }

    /// Returns what is staged of blocks that are being written, in order.
    pub fn staged(&self) -> Vec<(PartitionId, Staged)> {
        self.0.staged()
    }

    /// Returns what can be read without the replica's lock: the same view partitions, as they
    /// change.
    pub fn readable(&self) -> Readable {
        Readable(Arc::clone(&self.0))
    }
}

/// Finishes a read; none where the disk keeps it from that, which who keeps the run tells.
pub fn finished(id: PartitionId, begun: Begun<'_>) -> Option<ReadReply> {
    let finished = begun.finish();
    finished
        .inspect_err(|error| tracing::debug!(partition = %id, %error, "a view partition can't be read"))
        .ok()
}

/// How many groups a view partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// In memory, of its base.
    pub base: u64,
    /// In memory, since then.
    pub since: u64,
    /// Not in memory; one that is in several runs counts in each.
    pub elsewhere: u64,
    /// In how many runs those in memory are, besides the block that the newest are in.
    pub runs: usize,
}

/// The view partitions of a replica, for readers, and for who emits their closed windows. Nothing that is
/// done here changes what is replicated.
#[derive(Clone, Debug)]
pub struct Readable(Arc<Slots>);

impl Readable {
    /// Gives view partitions of this process alone.
    pub(crate) fn of(slots: &Arc<Slots>) -> Self {
        Self(Arc::clone(slots))
    }

    /// Lets a view partition emit its windows that close, and tells `waits` when some wait; see
    /// [`ViewPartition::emit`]. Returns the names of the groups that are there, which are to be
    /// offered; none also while not all of them are in memory.
    pub fn emit(
        &self,
        id: PartitionId,
        windows: Arc<dyn Windows>,
        waits: &Arc<Notify>,
    ) -> Option<Vec<GroupId>> {
        self.0.get(id)?.emit(windows, Arc::clone(waits))
    }

    /// Lets a view partition emit nothing any longer.
    pub fn stop_emitting(&self, id: PartitionId) {
        if let Some(slot) = self.0.get(id) {
            slot.stop_emitting();
        }
    }

    /// Lets a view partition that emits emit the windows of these groups, whether they changed or not.
    pub fn offer(&self, id: PartitionId, groups: &[GroupId]) {
        if let Some(slot) = self.0.get(id) {
            slot.offer(|partition| partition.offer(groups));
        }
    }

    /// Lets a view partition that emits emit these windows, given with their ends, also without rows.
    pub fn offer_windows(&self, id: PartitionId, windows: Vec<(GroupId, i64)>) {
        if let Some(slot) = self.0.get(id) {
            slot.offer(|partition| partition.offer_windows(windows));
        }
    }

    /// Takes what a view partition has to emit; none where it emits nothing, as after another copy came in
    /// its place.
    pub fn take_emissions(&self, id: PartitionId) -> Option<Emitted> {
        self.0.get(id)?.take_emissions()
    }

    /// Answers a read; none when there is no such view partition, or its groups on disk can't be read.
    pub fn read(&self, id: PartitionId, request: &ReadRequest) -> Option<ReadReply> {
        finished(id, self.begin(id, request)?)
    }

    /// Begins to answer a read; none when there is no such view partition. What is left may read from disk.
    pub fn begin<'a>(&self, id: PartitionId, request: &'a ReadRequest) -> Option<Begun<'a>> {
        Some(self.0.get(id)?.begin(request))
    }

    /// Writes what a view partition holds of its base in memory as a sorted run, where that is `least` groups or more.
    /// Says whether something was written and is in its place.
    pub fn spill(&self, id: PartitionId, to: &dyn RunStore, least: usize) -> Result<bool, RunError> {
        self.0.get(id).map_or(Ok(false), |slot| slot.spill(to, least))
    }

    /// Reads the base of a view partition into memory. Says whether something was read and is in its place.
    pub fn load(&self, id: PartitionId) -> Result<bool, RunError> {
        self.0.get(id).map_or(Ok(false), |slot| slot.load())
    }

    /// Makes fewer runs of those of a view partition that are in memory. Says whether there were too many.
    pub fn unite(&self, id: PartitionId) -> Result<bool, RunError> {
        self.0.get(id).map_or(Ok(false), |slot| slot.unite())
    }

    /// Returns the batch version that a view partition stands on, where some of that can't be read any longer.
    pub fn lost(&self, id: PartitionId) -> Option<u64> {
        self.0.get(id)?.lost()
    }

    /// Puts the batch version that a view partition stands on, as it was published, in the place of what can't be read.
    /// Says whether it was that version.
    pub fn mend(&self, id: PartitionId, published: &Arc<Block>) -> bool {
        self.0.get(id).is_some_and(|slot| slot.mend(published))
    }

    /// Returns how many groups a view partition holds, and where.
    pub fn group_counts(&self, id: PartitionId) -> GroupCounts {
        self.0.get(id).map(|slot| slot.group_counts()).unwrap_or_default()
    }

    /// Returns the kinds of a view partition's aggregates, by which its states are encoded.
    pub fn config(&self, id: PartitionId) -> Option<ViewPartitionConfig> {
        Some(self.0.get(id)?.with(|partition| partition.config().clone()))
    }

    /// Returns what a view partition stands on, where that is in memory.
    pub fn base(&self, id: PartitionId) -> Option<Arc<Block>> {
        self.0.get(id)?.with(|partition| partition.base().cloned())
    }

    /// Returns what speed holds of a segment: none when there is no such view partition, and none
    /// within when the segment is not held complete.
    pub fn segment(&self, id: PartitionId, segment: SegmentId) -> Option<Option<Groups>> {
        Some(self.0.get(id)?.with(|partition| partition.complete_segment(segment)))
    }

    /// Subscribes to a view partition's changes.
    pub fn changes(&self, id: PartitionId) -> Option<broadcast::Receiver<Arc<Change>>> {
        Some(self.0.get(id)?.subscribe())
    }

    /// Returns how many groups they hold in memory.
    pub fn groups(&self) -> u64 {
        self.0.groups()
    }

    /// Returns their names, in order.
    pub fn list(&self) -> Vec<PartitionId> {
        self.0.list()
    }
}
