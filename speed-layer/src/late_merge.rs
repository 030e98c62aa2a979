//! Late merge, the sender's half: the deltas of one log partition for one view
//! partition, and what a refusal does to them. Pure.
//!
//! ```text
//!     acknowledged   queue (closed)        open        not yet covered
//!   ──────────────┬─────────┬───────────┬───────────┬──────────▶ offsets
//!                head                             next
//! ```
//!
//! The queue and the open delta are contiguous from `head` to `next`. A refusal
//! moves `head` and `next` to where the view partition stands; the reader then
//! goes back if it is beyond, and waits if it is before. It never moves the
//! index (EXACTNESS 2, 4).

use std::collections::VecDeque;

use sanso_core::PartitionId;
use sanso_state::{Delta, Groups, LogPartition, Offset, Outcome};

/// What an outcome means for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the outcome is stale, or says what is known.
    Ignored,
    /// The head moved on.
    Advanced,
    /// Emission starts again here: below the reader's position it must read again.
    Resumed(Offset),
    /// The view partition will never take this; the sender is of another world.
    Invalid(&'static str),
}

/// The deltas of one log partition for one view partition.
#[derive(Clone, Debug)]
pub struct Target {
    id: PartitionId,
    partition: LogPartition,
    next: Offset,
    open_from: Offset,
    open: Groups,
    queue: VecDeque<Delta>,
    /// Whether the open delta is closed as soon as nothing waits.
    due: bool,
    watermark_us: Option<i64>,
}

impl Target {
    /// Creates a target whose view partition has applied everything below `applied`.
    pub fn new(id: PartitionId, partition: LogPartition, applied: Offset) -> Self {
        Self {
            id,
            partition,
            next: applied,
            open_from: applied,
            open: Groups::new(),
            queue: VecDeque::new(),
            due: false,
            watermark_us: None,
        }
    }

    /// Returns the first offset that its deltas don't cover yet.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Returns the first offset not known to be applied.
    pub fn head(&self) -> Offset {
        self.queue.front().map_or(self.open_from, |delta| delta.from)
    }

    /// Returns the closed deltas waiting for acknowledgement, oldest first.
    pub fn queue(&self) -> &VecDeque<Delta> {
        &self.queue
    }

    /// Says whether nothing is open or waits.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.open_from == self.next
    }

    /// Returns the open delta's groups, to add effects of offsets at or above [`Target::next`].
    pub(crate) fn open_mut(&mut self) -> &mut Groups {
        &mut self.open
    }

    /// Covers the offsets below `to`, whose effects have been added. A target
    /// that is further already stays.
    pub(crate) fn cover(&mut self, to: Offset, watermark_us: Option<i64>) {
        if to > self.next {
            self.next = to;
            self.watermark_us = self.watermark_us.max(watermark_us);
        }
    }

    /// Closes the open delta once nothing waits before it, which may be now. So who takes long is sent the
    /// more at a time.
    pub(crate) fn flush(&mut self, idle: bool) {
        self.due = true;
        self.close_if_due(idle);
    }

    fn close_if_due(&mut self, idle: bool) {
        if self.due && self.queue.is_empty() {
            self.close(idle);
        }
    }

    /// Closes the open delta, if it covers any offset. Empty of groups it is
    /// still sent: the offsets count.
    pub(crate) fn close(&mut self, idle: bool) {
        self.due = false;
        if self.open_from == self.next {
            return;
        }
        let groups = std::mem::take(&mut self.open);
        let delta = self.delta(self.open_from, self.next, groups, idle);
        self.queue.push_back(delta);
        self.open_from = self.next;
    }

    /// Returns the empty delta that an idle pair exchanges; none while
    /// anything is open or waits.
    pub fn heartbeat(&self, idle: bool) -> Option<Delta> {
        self.is_settled().then(|| self.delta(self.next, self.next, Groups::new(), idle))
    }

    fn delta(&self, from: Offset, to: Offset, groups: Groups, idle: bool) -> Delta {
        let (view, partition, watermark_us) = (self.id.view, self.partition, self.watermark_us);
        Delta { view, partition, from, to, groups, watermark_us, idle }
    }

    /// Takes the answer of the view partition to a delta or heartbeat; it may
    /// be late, doubled or out of order.
    pub(crate) fn on_outcome(&mut self, outcome: &Outcome, idle: bool) -> Answer {
        let answer = self.take(outcome);
        self.close_if_due(idle);
        answer
    }

    fn take(&mut self, outcome: &Outcome) -> Answer {
        match *outcome {
            Outcome::Accepted { applied } => self.acknowledge(applied),
            // Only a refusal of the present head says where the view partition
            // stands now; an older one would throw good deltas away.
            Outcome::Refused { from, applied } if from == self.head() && applied != from => {
                match self.acknowledge(applied) {
                    Answer::Ignored => self.resume(applied),
                    answer => answer,
                }
            }
            Outcome::Invalid(reason) => Answer::Invalid(reason),
            _ => Answer::Ignored,
        }
    }

    /// Drops what is acknowledged when `applied` is the end of a waiting delta.
    fn acknowledge(&mut self, applied: Offset) -> Answer {
        if !self.queue.iter().any(|delta| delta.to == applied) {
            return Answer::Ignored;
        }
        while self.queue.front().is_some_and(|delta| delta.to <= applied) {
            self.queue.pop_front();
        }
        Answer::Advanced
    }

    fn resume(&mut self, applied: Offset) -> Answer {
        *self = Self::new(self.id, self.partition, applied);
        Answer::Resumed(applied)
    }
}
