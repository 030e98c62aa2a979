//! One log partition: aggregate and emit. Pure: no clock, no task, no network;
//! it asks the index and hands refused records to a sink, nothing else.
//!
//! ```text
//!                  ┌────────────── Worker(l) ──────────────┐
//!   chunks from ──▶│ judge ─▶ effects ─▶ lift per view     │──▶ outgoing deltas ─▶ view partitions
//!   next_read_     │   │ as of                  │          │
//!   offset() and   │   ▼                        ▼          │◀── outcomes
//!   behind()       │ index (floor, position)  targets      │
//!                  └───────────────────────────────────────┘
//! ```
//!
//! Two places are read: the *head*, where the index ends, and, as long as targets lag, the place from which
//! these are caught up. A view that is new, or one that refused, so never holds up the others.
//!
//! Invariants:
//! - every offset is read consecutively into the index, at the head; a refusal moves only
//!   the point from which a target emits, and with it the place where it is caught up;
//! - a delta is a pure function of the log's prefix and the view's version:
//!   the index answers as of each offset, so offsets read again give the same
//!   effects, and a target ignores those below its `next`;
//! - no delta crosses a segment boundary;
//! - nothing is emitted for offsets below the floor: such a target waits, and
//!   learns through heartbeats when its view partition has adopted a newer base.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sanso_catalog::RecordCounts;
use sanso_core::PartitionId;
use sanso_log::{Batch, Record};
use sanso_state::{Delta, Fingerprint, LogPartition, Offset, Outcome, Quarantined, Refusal, Watermark};
use sanso_view::{Lifted, Source, View};

use crate::error::Result;
use crate::judge::{Effects, Judged, add_counts, judge_span, quarantined};
use crate::late_merge::{Answer, Target};
use crate::newest::{Commit, NewestIndex};

/// A run of consecutive offsets of the log. Offsets in `[from, to)` without a
/// record are holes; they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first offset.
    pub from: Offset,
    /// The first offset no longer in it.
    pub to: Offset,
    /// The records, in offset order.
    pub records: Vec<Record>,
}

impl Chunk {
    /// Makes a chunk of what a read at `from` gave.
    pub fn of(from: Offset, batch: Batch) -> Self {
        Self { from, to: batch.next, records: batch.records }
    }
}

/// Takes refused records. Called before the index commits their span, and
/// again with the same content when the span is read again.
pub trait QuarantineSink {
    /// Keeps refused records durably; idempotent by (log partition, offset, view).
    fn put(&mut self, refused: &[Quarantined]) -> Result<()>;
}

impl QuarantineSink for Vec<Quarantined> {
    fn put(&mut self, refused: &[Quarantined]) -> Result<()> {
        self.extend_from_slice(refused);
        Ok(())
    }
}

/// A view partition to feed, and where it stands.
#[derive(Clone, Debug)]
pub struct TargetStart {
    /// The view version.
    pub view: Arc<View>,
    /// The index of the view partition.
    pub index: u32,
    /// What it has applied of this worker's log partition.
    pub applied: Offset,
}

impl TargetStart {
    /// Returns the view partition's name.
    pub fn id(&self) -> PartitionId {
        PartitionId { view: self.view.fingerprint, index: self.index }
    }
}

/// From where targets that lag are caught up, below the head.
#[derive(Clone, Copy, Debug)]
struct Behind {
    at: Offset,
    watermark: Watermark,
}

/// The engine of one log partition.
#[derive(Clone, Debug)]
pub struct Worker<I> {
    source: Arc<Source>,
    partition: LogPartition,
    index: I,
    queue_max: usize,
    readable_from: Offset,
    /// As of the head.
    watermark: Watermark,
    behind: Option<Behind>,
    idle: bool,
    rewound: u64,
    views: BTreeMap<Fingerprint, Arc<View>>,
    targets: BTreeMap<PartitionId, Target>,
}

impl<I: NewestIndex> Worker<I> {
    /// Creates a worker without targets that goes on where its index ends.
    ///
    /// `queue_max`: the largest number of closed deltas waiting for one target.
    pub fn new(source: Arc<Source>, partition: LogPartition, index: I, queue_max: usize) -> Self {
        let blank = Watermark::new(source.lateness_us, source.ahead_us_max);
        Self {
            readable_from: index.floor(),
            watermark: blank.resume(index.max_event_us()),
            behind: None,
            source,
            partition,
            index,
            queue_max: queue_max.max(1),
            idle: false,
            rewound: 0,
            views: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// Returns the offset at which to read on: the head, or, where all targets lag, [`Worker::behind`].
    pub fn next_read_offset(&self) -> Offset {
        let head = self.index.position();
        match self.behind() {
            Some(behind) if self.targets.values().all(|target| target.next() < head) => behind,
            _ => head,
        }
    }

    /// Returns the offset from which targets that lag are to be caught up; none when none does.
    pub fn behind(&self) -> Option<Offset> {
        self.behind.map(|behind| behind.at)
    }

    /// Returns the index.
    pub fn index(&self) -> &I {
        &self.index
    }

    /// Ends the worker and returns its index.
    pub fn into_index(self) -> I {
        self.index
    }

    /// Returns the watermark as of the head, in microseconds.
    pub fn watermark_us(&self) -> Option<i64> {
        self.watermark.value()
    }

    /// Returns how the records indexed were judged.
    pub fn counts(&self) -> RecordCounts {
        self.index.counts()
    }

    /// Returns how many offsets were read again because of refusals.
    pub fn rewound(&self) -> u64 {
        self.rewound
    }

    /// Returns the targets' names, in order.
    pub fn targets(&self) -> Vec<PartitionId> {
        self.targets.keys().copied().collect()
    }

    /// Returns one target.
    pub fn target(&self, id: PartitionId) -> Option<&Target> {
        self.targets.get(&id)
    }

    /// Returns the offset below which everything is indexed and acknowledged
    /// by every target.
    pub fn acknowledged(&self) -> Offset {
        let heads = self.targets.values().map(Target::head);
        heads.chain([self.index.position()]).min().unwrap_or_default()
    }

    /// Sets whether the log partition is quiet; later deltas say so.
    pub fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// Makes the targets exactly these. Present ones keep their state; new
    /// ones start at what their view partition has applied.
    pub fn targets_changed(&mut self, live: Vec<TargetStart>) {
        let live: BTreeMap<PartitionId, TargetStart> = live.into_iter().map(|t| (t.id(), t)).collect();
        self.targets.retain(|id, _| live.contains_key(id));
        self.views = live.values().map(|t| (t.view.fingerprint, Arc::clone(&t.view))).collect();
        for (id, start) in live {
            if self.targets.contains_key(&id) {
                continue;
            }
            self.targets.insert(id, Target::new(id, self.partition, start.applied));
            self.rewind(start.applied);
        }
        let head = self.index.position();
        if self.targets.values().all(|target| target.next() >= head) {
            self.behind = None;
        }
    }

    /// Raises the lowest offset that can be read: the log no longer holds what
    /// is below. Targets below it wait until they adopt a newer base.
    ///
    /// `start` must be at most the index's position; a worker whose index ends
    /// below the log's start needs another index.
    pub fn log_starts_at(&mut self, start: Offset) {
        assert!(start <= self.index.position(), "an index behind the log's start is rebuilt");
        self.readable_from = self.readable_from.max(start);
        if self.behind().is_some_and(|behind| behind < self.readable_from) {
            self.behind = None;
            let lag: Vec<Offset> = self.targets.values().map(Target::next).collect();
            lag.into_iter().for_each(|next| self.rewind(next));
        }
    }

    /// Raises the index's floor; see [`NewestIndex::collapse`].
    pub fn collapse(&mut self, floor: Offset) -> Result<()> {
        self.index.collapse(floor)?;
        self.readable_from = self.readable_from.max(self.index.floor());
        Ok(())
    }

    /// Catches up from `offset`, when that is below where this is done and can be read.
    fn rewind(&mut self, offset: Offset) {
        let from = self.behind().unwrap_or(self.index.position());
        if offset >= from || offset < self.readable_from {
            return;
        }
        self.rewound += from - offset;
        let blank = Watermark::new(self.source.lateness_us, self.source.ahead_us_max);
        // The checkpoint may be below the offset. What the watermark misses in
        // between, every view partition that stands at the offset has already.
        let max = self.index.checkpoint(offset).unwrap_or_default();
        self.behind = Some(Behind { at: offset, watermark: blank.resume(max) });
    }

    /// Reads one chunk, which must start at [`Worker::next_read_offset`], at the head, or at [`Worker::behind`].
    /// One that starts below the head and goes beyond is read as both.
    ///
    /// After an error nothing of the failing span has taken effect; feed again
    /// from there.
    pub fn feed(&mut self, chunk: &Chunk, sink: &mut dyn QuarantineSink) -> Result<()> {
        let mut from = chunk.from;
        let is_next = from == self.index.position() || self.behind() == Some(from);
        assert!(is_next, "the log is read consecutively");
        while from < chunk.to {
            let mut to = chunk.to.min(self.source.segments().end_of(from));
            if from < self.index.position() {
                to = to.min(self.index.position());
            }
            let first = chunk.records.partition_point(|record| record.offset < from);
            let last = chunk.records.partition_point(|record| record.offset < to);
            self.feed_span(from..to, &chunk.records[first..last], sink)?;
            from = to;
        }
        Ok(())
    }

    /// Reads a span that lies in one segment and on one side of the head.
    fn feed_span(
        &mut self,
        span: Range<Offset>,
        records: &[Record],
        sink: &mut dyn QuarantineSink,
    ) -> Result<()> {
        let behind = self.behind.filter(|_| span.start < self.index.position());
        let watermark = behind.map_or(self.watermark, |behind| behind.watermark);
        let mut judged = judge_span(&self.source, self.partition, &self.index, records, watermark)?;
        let lifted = self.lift(&span, &judged);
        let mut refused = judged.quarantined.clone();
        for (view, added, _) in &lifted {
            refused.extend(self.expression_errors(view, added, &judged, records));
        }
        if !refused.is_empty() {
            sink.put(&refused)?;
        }
        let at_boundary = self.source.segments().floor(span.end) == span.end;
        if behind.is_none() {
            self.commit(&span, &mut judged, at_boundary)?;
        }
        for (view, added, retracted) in &lifted {
            self.apply(view, &span, added, &judged.added, 1);
            self.apply(view, &span, retracted, &judged.retracted, -1);
        }
        let mut watermark = judged.watermark;
        if behind.is_none() {
            self.watermark = watermark;
        } else if span.end < self.index.position() {
            self.behind = Some(Behind { at: span.end, watermark });
        } else {
            self.behind = None;
            // That of who caught up may have begun too low; here it is known exactly.
            watermark = self.watermark;
        }
        let (watermark_us, idle, queue_max) = (watermark.value(), self.idle, self.queue_max);
        for target in self.targets.values_mut() {
            if target.next() >= span.start && target.queue().len() < queue_max {
                target.cover(span.end, watermark_us);
            }
            if at_boundary && target.next() == span.end {
                target.close(idle);
            }
        }
        Ok(())
    }

    fn commit(&mut self, span: &Range<Offset>, judged: &mut Judged, checkpoint: bool) -> Result<()> {
        let mut counts = self.index.counts();
        add_counts(&mut counts, &judged.counts);
        self.index.commit(Commit {
            from: span.start,
            to: span.end,
            accepted: std::mem::take(&mut judged.accepted),
            counts,
            max_event_us: judged.watermark.max_event_us(),
            checkpoint,
        })
    }

    /// Lifts the effects through each view that has a target for this span.
    fn lift(&self, span: &Range<Offset>, judged: &Judged) -> Vec<(Arc<View>, Lifted, Lifted)> {
        let wanted = |view: &View| {
            let all = PartitionId { view: view.fingerprint, index: 0 }..=PartitionId {
                view: view.fingerprint,
                index: u32::MAX,
            };
            self.targets.range(all).any(|(_, target)| self.takes(target, span))
        };
        let views = self.views.values().filter(|view| wanted(view));
        let lifted = views
            .map(|view| (Arc::clone(view), view.lift(&judged.added.rows), view.lift(&judged.retracted.rows)));
        lifted.collect()
    }

    /// Says whether a target's deltas go on somewhere in the span. One whose
    /// queue is full, or that is below the floor, does not: it reads again later.
    fn takes(&self, target: &Target, span: &Range<Offset>) -> bool {
        (span.start..span.end).contains(&target.next()) && target.queue().len() < self.queue_max
    }

    fn expression_errors(
        &self,
        view: &View,
        added: &Lifted,
        judged: &Judged,
        records: &[Record],
    ) -> Vec<Quarantined> {
        let error = |(row, reason): &(usize, String)| {
            let offset = judged.added.offsets[*row];
            let at = records.binary_search_by_key(&offset, |record| record.offset);
            let record = &records[at.expect("an accepted row has its record")];
            let reason = format!("view {}: {reason}", view.name);
            let refused = quarantined(self.partition, record, Refusal::Expression, reason);
            Quarantined { view: Some(view.fingerprint), ..refused }
        };
        added.errors.iter().map(error).collect()
    }

    fn apply(&mut self, view: &View, span: &Range<Offset>, lifted: &Lifted, effects: &Effects, sign: i64) {
        for (index, rows) in (0..).zip(lifted.by_view_partition(view.partitions)) {
            let id = PartitionId { view: view.fingerprint, index };
            let Some(target) = self.targets.get_mut(&id) else { continue };
            // Cover moves `next` only after the span, so a target that is in the
            // span takes from its `next` on, and one that lags takes nothing.
            let next = target.next();
            if next >= span.start && target.queue().len() < self.queue_max {
                let taken = rows.into_iter().filter(|&at| effects.offsets[lifted.row(at)] >= next);
                let chosen: Vec<u32> = taken.collect();
                target.open_mut().update(&view.kinds, &lifted.grouped, &chosen, sign);
            }
        }
    }

    /// Closes every open delta, so that it can be sent: where others wait before it, once they are acknowledged.
    pub fn flush(&mut self) {
        self.targets.values_mut().for_each(|target| target.flush(self.idle));
    }

    /// Returns the closed deltas waiting for a target, oldest first. They stay
    /// until acknowledged; sending one twice, late or out of order is harmless.
    pub fn outgoing(&self, id: PartitionId) -> impl Iterator<Item = &Delta> {
        self.targets.get(&id).into_iter().flat_map(|target| target.queue())
    }

    /// Returns the empty delta for an idle target; none while anything is open or waits.
    pub fn heartbeat(&self, id: PartitionId) -> Option<Delta> {
        self.targets.get(&id)?.heartbeat(self.idle)
    }

    /// Takes a view partition's answer to a delta or heartbeat.
    pub fn on_outcome(&mut self, id: PartitionId, outcome: &Outcome) -> Answer {
        let Some(target) = self.targets.get_mut(&id) else { return Answer::Ignored };
        let answer = target.on_outcome(outcome, self.idle);
        match answer {
            Answer::Resumed(applied) => self.rewind(applied),
            Answer::Advanced if target.queue().is_empty() => {
                // A target that fell behind with a full queue is caught up by reading again.
                let next = target.next();
                self.rewind(next);
            }
            _ => {}
        }
        answer
    }
}
