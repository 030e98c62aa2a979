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
    /// What each of those weighs, and all together.
    weights: VecDeque<usize>,
    weight: usize,
}

impl<Op: Clone> Entries<Op> {
    /// Creates a log whose next entry follows `base`.
    pub(crate) fn after(base: Position) -> Self {
        Self { base, kept: VecDeque::new(), weights: VecDeque::new(), weight: 0 }
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

    /// Returns the largest number up to `to` so that the entries after `from` weigh no more than
    /// `weight_max` together; the next one, whatever it weighs.
    pub(crate) fn within(&self, from: u64, to: u64, weight_max: usize) -> u64 {
        let mut left = weight_max;
        let first = (from - self.base.seq) as usize;
        let fits = self.weights.range(first..(to - self.base.seq) as usize).take_while(|weight| {
            let fits = **weight <= left;
            left = left.saturating_sub(**weight);
            fits
        });
        to.min(from + (fits.count() as u64).max(1))
    }

    /// Returns what the entries `(from, to]`, which are kept, weigh together.
    pub(crate) fn weight_between(&self, from: u64, to: u64) -> usize {
        self.weights.range((from - self.base.seq) as usize..(to - self.base.seq) as usize).sum()
    }

    /// Returns the entries `(from, to]`, which are kept.
    pub(crate) fn between(&self, from: u64, to: u64) -> Vec<Logged<Op>> {
        self.kept.range((from - self.base.seq) as usize..(to - self.base.seq) as usize).cloned().collect()
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, epoch: Epoch, op: Op, weight: usize) {
        self.kept.push_back(Logged { epoch, op });
        self.weights.push_back(weight);
        self.weight += weight;
    }

    /// Drops the entry `seq` and all after it.
    pub(crate) fn take_back(&mut self, seq: u64) {
        let kept = (seq - self.base.seq - 1) as usize;
        self.weight -= self.weights.range(kept..).sum::<usize>();
        self.kept.truncate(kept);
        self.weights.truncate(kept);
    }

    /// Drops the oldest entries up to `seq`, so that at most `kept_max` of them are kept, and all
    /// together weigh at most `weight_max`.
    pub(crate) fn drop_before(&mut self, seq: u64, kept_max: usize, weight_max: usize) {
        let too_many = |held: &Self| seq - held.base.seq > kept_max as u64;
        let too_heavy = |held: &Self| seq > held.base.seq && held.weight > weight_max;
        while too_many(self) || too_heavy(self) {
            let Some(entry) = self.kept.pop_front() else { return };
            self.weight -= self.weights.pop_front().unwrap_or(0);
            self.base = Position { epoch: entry.epoch, seq: self.base.seq + 1, ..self.base };
        }
    }
}
