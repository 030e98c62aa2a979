//! View partitions in memory: one writer each, any number of readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use sanso_state::{
    Block, Emission, Entry, Fingerprint, GroupId, Groups, Offset, Outcome, RunError, RunStore, SortedRun,
    ViewPartition, Windows,
};
use tokio::sync::{Notify, broadcast};

use crate::bury::bury;
use crate::hosted::GroupCounts;
use crate::read::{Begun, ReadRequest};
use crate::staging::{BlockPart, Staged, Stages, Staging};
use crate::store::PartitionId;

/// How many changes a slow subscriber may lag behind before it must re-read.
const CHANGES_MAX: usize = 256;

/// What one accepted entry changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// The groups touched.
    pub groups: Vec<GroupId>,
    /// Offsets applied after it.
    pub applied: Vec<Offset>,
}

/// One view partition.
#[derive(Debug)]
pub(crate) struct Slot {
    partition: RwLock<ViewPartition>,
    /// Groups held, told here so that counting them waits for nobody.
    groups: AtomicU64,
    changes: broadcast::Sender<Arc<Change>>,
    /// Told when emissions wait.
    emits_to: Mutex<Option<Arc<Notify>>>,
}

/// What was taken of a view partition that emits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Windows that have closed, or changed after that, oldest first.
    pub emissions: Vec<Emission>,
    /// The offsets applied: the last emission of a window is its content at these.
    pub applied: Vec<Offset>,
}

impl Slot {
    pub(crate) fn new(partition: ViewPartition) -> Self {
        Self {
            groups: AtomicU64::new(groups_of(&partition)),
            partition: RwLock::new(partition),
            changes: broadcast::Sender::new(CHANGES_MAX),
            emits_to: Mutex::default(),
        }
    }

    /// Applies an entry, and tells subscribers and who emits of it.
    pub(crate) fn apply(&self, entry: Entry) -> Outcome {
        let touched = match &entry {
            Entry::Delta(delta) if self.changes.receiver_count() > 0 => ids(&delta.groups),
            Entry::Rebuild(_, groups) if self.changes.receiver_count() > 0 => ids(groups),
            _ => Vec::new(),
        };
        let mut partition = self.partition.write();
        // Held, so that it is not freed here.
        let before = matches!(entry, Entry::Adopt(_)).then(|| partition.replaceable());
        let outcome = partition.apply(entry);
        let applied = partition.applied().to_vec();
        let emits = partition.has_emissions();
        self.groups.store(groups_of(&partition), Ordering::Relaxed);
        drop(partition);
        if emits && let Some(waits) = &*self.emits_to.lock() {
            waits.notify_one();
        }
        if let Some(before) = before {
            bury(before);
        }
        let changed = matches!(outcome, Outcome::Accepted { .. } | Outcome::Rebuilt);
        if changed && !touched.is_empty() {
            // An error only says that nobody listens any longer.
            let _ = self.changes.send(Arc::new(Change { groups: touched, applied }));
        }
        outcome
    }

    pub(crate) fn into_inner(self) -> ViewPartition {
        self.partition.into_inner()
    }

    /// Puts another copy of the view partition in place of this one.
    pub(crate) fn replace(&self, partition: ViewPartition) {
        self.groups.store(groups_of(&partition), Ordering::Relaxed);
        bury(std::mem::replace(&mut *self.partition.write(), partition));
    }

    /// Begins to answer a read; groups and progress are of one instant.
    pub(crate) fn begin<'a>(&self, request: &'a ReadRequest) -> Begun<'a> {
        Begun::of(&self.partition.read(), request)
    }

    /// Writes what of the base is in memory as a run, where it is `least` groups or more. Says whether something was written and
    /// is in its place.
    pub(crate) fn spill(&self, to: &dyn RunStore, least: usize) -> Result<bool, RunError> {
        let moving =
            self.change(|partition| Some((partition.to_spill(least)?, Arc::clone(partition.kinds()))));
        let Some((moving, kinds)) = moving else { return Ok(false) };
        let run = moving.write(&kinds, to)?;
        let spilled = self.change(|partition| partition.spilled(&moving, &run));
        // What nobody holds any longer is deleted, which takes its time.
        bury((moving, run));
        Ok(spilled)
    }

    /// Reads all of the base into memory. Says whether something was read and is in its place.
    pub(crate) fn load(&self) -> Result<bool, RunError> {
        let Some(moving) = self.change(ViewPartition::to_load) else { return Ok(false) };
        let mut groups = moving.read()?;
        let loaded = self.change(|partition| partition.loaded(&moving, &mut groups));
        bury((moving, groups));
        Ok(loaded)
    }

    /// Makes fewer runs of those in memory. Says whether there were too many.
    pub(crate) fn unite(&self) -> Result<bool, RunError> {
        let Some(moving) = self.with(ViewPartition::to_unite) else { return Ok(false) };
        let run: Arc<dyn SortedRun> = Arc::new(moving.read()?);
        let united = self.change(|partition| partition.spilled(&moving, &run));
        bury((moving, run));
        Ok(united)
    }

    /// Returns the batch version that it stands on, where some of that can't be read any longer.
    pub(crate) fn lost(&self) -> Option<u64> {
        self.with(|partition| partition.has_lost_a_run().then(|| partition.version()))
    }

    /// Puts what was published of its base in the place of that; see [`ViewPartition::mend`].
    pub(crate) fn mend(&self, published: &Arc<Block>) -> bool {
        let before = self.with(ViewPartition::replaceable);
        let mended = self.change(|partition| partition.mend(published));
        bury(before);
        mended
    }

    fn change<T>(&self, change: impl FnOnce(&mut ViewPartition) -> T) -> T {
        let mut partition = self.partition.write();
        let changed = change(&mut partition);
        self.groups.store(groups_of(&partition), Ordering::Relaxed);
        changed
    }

    pub(crate) fn group_counts(&self) -> GroupCounts {
        self.with(|partition| {
            let (base, since) = partition.group_counts();
            let (elsewhere, runs) = (partition.run_groups(), partition.runs_in_memory());
            GroupCounts { base: base as u64, since: since as u64, elsewhere, runs }
        })
    }

    /// Returns how many groups it holds in memory.
    pub(crate) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// Looks at the view partition.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&ViewPartition) -> T) -> T {
        look(&self.partition.read())
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }

    /// Begins to emit, and tells `waits` of emissions; returns the names of the groups that are there. None while
    /// not all of them are in memory.
    pub(crate) fn emit(&self, windows: Arc<dyn Windows>, waits: Arc<Notify>) -> Option<Vec<GroupId>> {
        *self.emits_to.lock() = Some(waits);
        let emits = self.partition.write().emit(windows);
        // What is added before they are listed is listed too.
        emits.then(|| self.with(ViewPartition::group_ids))
    }

    pub(crate) fn stop_emitting(&self) {
        *self.emits_to.lock() = None;
        self.partition.write().stop_emitting();
    }

    /// Changes what is to be emitted.
    pub(crate) fn offer(&self, offer: impl FnOnce(&mut ViewPartition)) {
        offer(&mut self.partition.write());
    }

    /// Takes what waits; none where nothing is emitted (any longer: another copy has come in its place).
    pub(crate) fn take_emissions(&self) -> Option<Emitted> {
        let mut partition = self.partition.write();
        partition
            .is_emitting()
            .then(|| Emitted { emissions: partition.take_emissions(), applied: partition.applied().to_vec() })
    }
}

/// Some view partitions by their names.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    by_id: RwLock<BTreeMap<PartitionId, Arc<Slot>>>,
    /// What no reader sees.
    stages: Mutex<Stages>,
    /// Groups staged, told here as those of a [`Slot`] are.
    staged_groups: AtomicU64,
}

impl Slots {
    /// Adds or replaces a view partition.
    pub(crate) fn insert(&self, id: PartitionId, partition: ViewPartition) {
        self.by_id.write().insert(id, Arc::new(Slot::new(partition)));
    }

    /// Removes all partitions of a view version.
    pub(crate) fn remove(&self, view: Fingerprint) {
        self.change_stages(|stages| stages.forget_view(view));
        let mut mine = self.by_id.write();
        mine.extract_if(.., |id, _| id.view == view).for_each(bury);
    }

    /// Takes a part of a block; says whether all parts before it are there.
    pub(crate) fn stage(&self, id: PartitionId, part: BlockPart) -> bool {
        self.change_stages(|stages| stages.add(id, part))
    }

    /// Takes the groups of a block, if so many parts of it have come.
    pub(crate) fn take_staged(&self, id: PartitionId, of: Staging, parts: u32) -> Option<Arc<Groups>> {
        self.change_stages(|stages| stages.take(id, of, parts))
    }

    /// Forgets what is staged for a view partition.
    pub(crate) fn forget_staged(&self, id: PartitionId) {
        self.change_stages(|stages| stages.forget(id));
    }

    /// Returns what is staged, in order.
    pub(crate) fn staged(&self) -> Vec<(PartitionId, Staged)> {
        self.stages.lock().list()
    }

    fn change_stages<T>(&self, change: impl FnOnce(&mut Stages) -> T) -> T {
        let mut stages = self.stages.lock();
        let changed = change(&mut stages);
        self.staged_groups.store(stages.groups(), Ordering::Relaxed);
        changed
    }

    /// Returns the names, in order.
    pub(crate) fn list(&self) -> Vec<PartitionId> {
        self.by_id.read().keys().copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.read().is_empty() && self.stages.lock().is_empty()
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<Arc<Slot>> {
        self.by_id.read().get(&id).cloned()
    }

    /// Returns copies of all, in order; these emit nothing.
    pub(crate) fn copies(&self) -> Vec<(PartitionId, ViewPartition)> {
        self.by_id.read().iter().map(|(id, slot)| (*id, slot.with(ViewPartition::copy))).collect()
    }

    /// Makes these exactly `others`. Who subscribed to one that stays goes on.
    pub(crate) fn replace(
        &self,
        others: Vec<(PartitionId, ViewPartition)>,
        staged: Vec<(PartitionId, Staged)>,
    ) {
        self.change_stages(|stages| bury(std::mem::replace(stages, Stages::of(staged))));
        let mut mine = self.by_id.write();
        mine.extract_if(.., |id, _| !others.iter().any(|(other, _)| other == id)).for_each(bury);
        for (id, partition) in others {
            match mine.get(&id) {
                Some(held) => held.replace(partition),
                None => _ = mine.insert(id, Arc::new(Slot::new(partition))),
            }
        }
    }

    /// Gives all away, in order.
    pub(crate) fn into_all(self) -> Vec<(PartitionId, ViewPartition)> {
        let held = self.by_id.into_inner().into_iter();
        held.map(|(id, slot)| {
            let partition =
                Arc::try_unwrap(slot).map_or_else(|slot| slot.with(ViewPartition::copy), Slot::into_inner);
            (id, partition)
        })
        .collect()
    }

    /// Returns how many groups all hold in memory, in their bases and since, and in blocks that are staged.
    pub(crate) fn groups(&self) -> u64 {
        let held: u64 = self.by_id.read().values().map(|slot| slot.groups()).sum();
        held + self.staged_groups.load(Ordering::Relaxed)
    }
}

fn groups_of(partition: &ViewPartition) -> u64 {
    let (base, since) = partition.group_counts();
    (base + since) as u64
}

fn ids(groups: &Groups) -> Vec<GroupId> {
    groups.ids().collect()
}
