//! What outlives every process: the log, the dataset, and the disks that the nodes' indexes are on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use sanso_batch::advance::Advanced;
use sanso_core::PartitionId;
use sanso_speed::{Commit, MemoryIndex, NewestIndex, Version as RowVersion};
use sanso_state::{Block, Cut, Delta, Fingerprint, Offset, SegmentId};
use sanso_view::View;

use super::mutant::Mutant;
use crate::Declared;
use crate::history::{History, PARTITIONS};

/// A version of the master dataset with its views.
pub(super) struct DatasetVersion {
    pub(super) number: u64,
    pub(super) cut: Vec<Offset>,
    /// The newest-version table, by log partition.
    pub(super) tables: Vec<Option<Advanced>>,
    /// What each view partition stands on.
    pub(super) blocks: BTreeMap<PartitionId, Arc<Block>>,
    /// What each segment since the version before adds to each view partition.
    pub(super) contributions: Vec<(SegmentId, Fingerprint, Vec<sanso_state::Groups>)>,
}

/// The world outside of the processes.
pub(super) struct Outside {
    pub(super) declared: Arc<Declared>,
    pub(super) history: History,
    /// Never empty.
    pub(super) versions: Vec<Rc<DatasetVersion>>,
    pub(super) rng: StdRng,
    pub(super) mutant: Option<Mutant>,
    disks: BTreeMap<(u16, u32), Disk>,
}

/// What one node keeps of one log partition.
#[derive(Clone, Default)]
pub(super) struct Disk {
    index: Rc<RefCell<MemoryIndex>>,
    /// Whether the index answers as of the newest offset, on purpose.
    latest: bool,
    /// What was sent last to each view partition; looked at by a mutant only.
    pub(super) sent: Rc<RefCell<BTreeMap<PartitionId, Delta>>>,
}

impl Outside {
    pub(super) fn new(
        declared: Arc<Declared>,
        views: &[Arc<View>],
        rng: StdRng,
        mutant: Option<Mutant>,
    ) -> Self {
        let empty = |view: &Arc<View>| {
            let block = Arc::new(Block::empty(view.fingerprint, PARTITIONS));
            let fingerprint = view.fingerprint;
            (0..view.partitions)
                .map(move |index| (PartitionId { view: fingerprint, index }, Arc::clone(&block)))
        };
        let first = DatasetVersion {
            number: 0,
            cut: vec![0; PARTITIONS as usize],
            tables: vec![None; PARTITIONS as usize],
            blocks: views.iter().flat_map(|view| empty(view).collect::<Vec<_>>()).collect(),
            contributions: Vec::new(),
        };
        Self {
            history: History::new(Arc::clone(&declared.source)),
            declared,
            versions: vec![Rc::new(first)],
            rng,
            mutant,
            disks: BTreeMap::new(),
        }
    }

    /// Returns the newest version.
    pub(super) fn newest(&self) -> Rc<DatasetVersion> {
        Rc::clone(self.versions.last().expect("there is the empty one"))
    }

    /// Adds the version after the newest; another one of a number that is taken is refused.
    pub(super) fn commit(&mut self, version: DatasetVersion) -> bool {
        let twice = self.mutant == Some(Mutant::VersionTwice);
        if version.number != self.newest().number + 1 && !twice {
            return false;
        }
        self.versions.push(Rc::new(version));
        true
    }

    /// Draws the cut of a next version: whole segments, for some log partitions none.
    pub(super) fn next_cut(&mut self) -> Vec<Offset> {
        let size = self.declared.source.segments().size();
        let last = self.newest().cut.clone();
        let ends: Vec<Offset> = (0..PARTITIONS).map(|l| self.history.end(l) / size).collect();
        let draw = |(last, end): (&Offset, Offset)| self.rng.random_range(last / size..=end) * size;
        last.iter().zip(ends).map(draw).collect()
    }

    /// Returns what a node has on its disk for a log partition.
    pub(super) fn disk(&mut self, node: u16, partition: u32) -> Disk {
        let latest = self.mutant == Some(Mutant::IndexLatest);
        let disk = self.disks.entry((node, partition)).or_default();
        disk.latest = latest;
        disk.clone()
    }

    /// What a killed process leaves on its node: of the index what was written, an earlier whole
    /// state, or nothing that can be read, so that it is to be built anew.
    pub(super) fn crash(&mut self, node: u16) {
        let size = self.declared.source.segments().size();
        for partition in 0..PARTITIONS {
            let Some(disk) = self.disks.get(&(node, partition)) else { continue };
            let mut index = disk.index.borrow_mut();
            let (floor, position) = (index.floor(), index.position());
            match self.rng.random_range(0..10) {
                0..5 => {
                    let whole = position - position % size;
                    let kept = self.rng.random_range(0..=(whole.saturating_sub(floor)) / size) * size;
                    let to = if whole > floor { whole - kept } else { floor };
                    index.truncate(to.max(floor));
                }
                5..7 => *index = MemoryIndex::new(),
                _ => {}
            }
        }
    }

    /// Builds an index anew, from the newest version whose cut is not beyond `base`.
    pub(super) fn rebuild(&self, partition: u32, base: Offset) -> MemoryIndex {
        let cuts = self.versions.iter().rev().map(|version| version.cut[partition as usize]);
        let floor = cuts.into_iter().find(|cut| *cut <= base).unwrap_or(0);
        MemoryIndex::based(floor, None, self.history.base(partition, floor))
    }

    /// Loses the end of the log, which no log may.
    pub(super) fn lose_end(&mut self) {
        self.history.lose_end();
    }
}

impl DatasetVersion {
    /// Says whether this may come after a version: the next number, and no offset taken back.
    pub(super) fn follows(&self, before: &Self) -> bool {
        self.number == before.number + 1 && self.cut.iter().zip(&before.cut).all(|(now, then)| now >= then)
    }

    /// The cut, as a block has it.
    pub(super) fn cut(&self) -> Cut {
        Cut::new(self.cut.clone())
    }
}

impl Disk {
    pub(super) fn is_empty(&self) -> bool {
        self.index.borrow().position() == 0
    }

    pub(super) fn replace(&self, by: MemoryIndex) {
        *self.index.borrow_mut() = by;
    }
}

/// The index stays where it is when its process is gone.
impl NewestIndex for Disk {
    fn floor(&self) -> Offset {
        self.index.borrow().floor()
    }

    fn position(&self) -> Offset {
        self.index.borrow().position()
    }

    fn counts(&self) -> sanso_catalog::RecordCounts {
        self.index.borrow().counts()
    }

    fn max_event_us(&self) -> Option<i64> {
        self.index.borrow().max_event_us()
    }

    fn checkpoint(&self, offset: Offset) -> Result<Option<i64>, sanso_speed::Error> {
        self.index.borrow().checkpoint(offset)
    }

    fn as_of(&self, questions: &[(&[u8], Offset)]) -> Result<Vec<Option<RowVersion>>, sanso_speed::Error> {
        if self.latest {
            let latest: Vec<(&[u8], Offset)> = questions.iter().map(|(key, _)| (*key, Offset::MAX)).collect();
            return self.index.borrow().as_of(&latest);
        }
        self.index.borrow().as_of(questions)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), sanso_speed::Error> {
        self.index.borrow_mut().commit(commit)
    }

    fn collapse(&mut self, floor: Offset) -> Result<(), sanso_speed::Error> {
        self.index.borrow_mut().collapse(floor)
    }
}
