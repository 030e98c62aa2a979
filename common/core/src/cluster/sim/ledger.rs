//! What simulated partitions hold: how far each writer has come, by
//! compare-and-apply as a view partition takes deltas, and a digest of all
//! writes in order, by which two histories are told apart.

use super::world::mix;
use crate::cluster::State;

/// Writers of a simulated cluster.
pub(super) const WRITERS: usize = 6;

/// A writer's `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) writer: usize,
    pub(super) from: u64,
    pub(super) to: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) applied: [u64; WRITERS],
    pub(super) digest: u64,
}

impl State for Ledger {
    type Op = Write;
    /// Where the writer stands now, and whether this write brought it there.
    type Outcome = (bool, u64);

    fn is_again(write: &Write, other: &Write) -> bool {
        write == other
    }

    fn apply(&mut self, write: &Write) -> (bool, u64) {
        let applied = &mut self.applied[write.writer];
        let accepted = *applied == write.from;
        if accepted {
            *applied = write.to;
        }
        for part in [write.writer as u64, write.from, write.to] {
            self.digest = mix(self.digest ^ part);
        }
        (accepted, *applied)
    }
}
