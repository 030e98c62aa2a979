//! The entries that a replica keeps of a partition's log.
//!
//! ```text
//!             base                     end
//!   dropped ────┼───┬───┬───┬───┬───────┤
//!               │ kept entries          │
//! ```

use std::collections::VecDeque;

use crate::cluster::ids::{Epoch, Position};
use crate::cluster::protocol::Logged;

/// Entries `(base, end]` of one life of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Entries<Op> {
    base: Position,
    kept: VecDeque<Logged<Op>>,
}

impl<Op: Clone> Entries<Op> {
    /// Creates a log whose next entry follows `base`.
    pub(crate) fn after(base: Position) -> Self {
        Self { base, kept: VecDeque::new() }
    }

    /// Returns the position of the entry before the first that is kept.
    pub(crate) fn base(&self) -> Position {
        self.base
    }

    /// Returns the number of the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.base.seq + self.kept.len() as u64
    }

    /// Returns the position of an entry that is kept, or of the last one dropped.
    pub(crate) fn position(&self, seq: u64) -> Option<Position> {
        if seq == self.base.seq {
            return Some(self.base);
        }
        let index = seq.checked_sub(self.base.seq + 1)?;
        let entry = self.kept.get(index as usize)?;
        Some(Position { epoch: entry.epoch, seq, ..self.base })
    }

    /// Returns the operation of an entry that is kept.
    pub(crate) fn op(&self, seq: u64) -> &Op {
        &self.kept[(seq - self.base.seq - 1) as usize].op
    }

    /// Returns the entries `(from, to]`, which are kept.
    pub(crate) fn between(&self, from: u64, to: u64) -> Vec<Logged<Op>> {
        self.kept.range((from - self.base.seq) as usize..(to - self.base.seq) as usize).cloned().collect()
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, epoch: Epoch, op: Op) {
        self.kept.push_back(Logged { epoch, op });
    }

    /// Drops the entry `seq` and all after it.
    pub(crate) fn take_back(&mut self, seq: u64) {
        self.kept.truncate((seq - self.base.seq - 1) as usize);
    }

    /// Drops the oldest entries, so that at most `kept_max` up to `seq` are kept.
    pub(crate) fn drop_before(&mut self, seq: u64, kept_max: usize) {
        while seq - self.base.seq > kept_max as u64 {
            let Some(entry) = self.kept.pop_front() else { return };
            self.base = Position { epoch: entry.epoch, seq: self.base.seq + 1, ..self.base };
        }
    }
}
