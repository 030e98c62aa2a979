//! The engine against view partitions under random chunks, refusals, lost and
//! late acknowledgements, replaced workers that go on sending, lost indexes,
//! lost view partitions and adoption; after every accepted entry each view
//! partition must hold what the oracle folds.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::PartitionId;
use sanso_log::Record;
use sanso_state::{Block, Cut, Delta, Entry, Groups, LogPartition, Offset, Outcome, ViewPartition};
use sanso_view::View;

use super::{Dice, LOG_PARTITIONS, expected, history, meter, reading, record, source, views};
use crate::error::Result;
use crate::late_merge::Answer;
use crate::newest::{Commit, MemoryIndex, NewestIndex, Version};
use crate::worker::{Chunk, TargetStart, Worker};

/// An index with an old bug put back: it answers the latest, not as of.
#[derive(Clone, Default)]
struct Planted {
    inner: MemoryIndex,
    latest: bool,
}

impl NewestIndex for Planted {
    fn floor(&self) -> Offset {
        self.inner.floor()
    }
    fn position(&self) -> Offset {
        self.inner.position()
    }
    fn counts(&self) -> sanso_catalog::RecordCounts {
        self.inner.counts()
    }
    fn max_event_us(&self) -> Option<i64> {
        self.inner.max_event_us()
    }
    fn checkpoint(&self, offset: Offset) -> Result<Option<i64>> {
        self.inner.checkpoint(offset)
    }
    fn as_of(&self, questions: &[(&[u8], Offset)]) -> Result<Vec<Option<Version>>> {
        let latest: Vec<_> = questions.iter().map(|(identity, _)| (*identity, Offset::MAX)).collect();
        self.inner.as_of(if self.latest { &latest } else { questions })
    }
    fn commit(&mut self, commit: Commit) -> Result<()> {
        self.inner.commit(commit)
    }
    fn collapse(&mut self, floor: Offset) -> Result<()> {
        self.inner.collapse(floor)
    }
}

type Sender = Worker<Planted>;

struct World {
    dice: Dice,
    views: Vec<Arc<View>>,
    logs: Vec<Vec<Option<Record>>>,
    partitions: BTreeMap<PartitionId, ViewPartition>,
    /// The current worker of each log partition, and replaced ones that go on.
    workers: Vec<Vec<Sender>>,
    /// Answers on their way: log partition, sender, target, outcome.
    answers: Vec<(usize, usize, PartitionId, Outcome)>,
    cuts: Vec<Cut>,
    broken: Option<String>,
}

impl World {
    fn new(seed: u64, latest: bool) -> Self {
        let mut dice = Dice::new(seed);
        let views = views();
        let logs: Vec<_> = (0..LOG_PARTITIONS)
            .map(|l| {
                let length = 8 + dice.below(30);
                history(l, length, &mut dice)
            })
            .collect();
        let mut world = Self {
            dice,
            logs,
            partitions: BTreeMap::new(),
            workers: Vec::new(),
            answers: Vec::new(),
            cuts: vec![Cut::zero(LOG_PARTITIONS)],
            broken: None,
            views,
        };
        for id in world.ids() {
            let base = world.block(id, 0);
            let config = world.view(id).partition_config();
            world.partitions.insert(id, ViewPartition::new(config, base));
        }
        for l in 0..LOG_PARTITIONS as usize {
            let worker = world.worker(l, Planted { inner: MemoryIndex::new(), latest });
            world.workers.push(vec![worker]);
        }
        world
    }

    fn ids(&self) -> Vec<PartitionId> {
        let ids = self
            .views
            .iter()
            .flat_map(|view| (0..view.partitions).map(|index| PartitionId { view: view.fingerprint, index }));
        ids.collect()
    }

    fn view(&self, id: PartitionId) -> Arc<View> {
        let view = self.views.iter().find(|view| view.fingerprint == id.view);
        Arc::clone(view.expect("every partition is of a view"))
    }

    fn fold(&self, id: PartitionId, to: &[Offset]) -> Groups {
        let logs: Vec<&[Option<Record>]> =
            self.logs.iter().zip(to).map(|(log, &to)| &log[..to as usize]).collect();
        expected(&self.view(id), id.index, &logs)
    }

    fn block(&self, id: PartitionId, version: usize) -> Arc<Block> {
        let cut = self.cuts[version].clone();
        let groups = self.fold(id, cut.offsets());
        let watermarks_us = vec![None; LOG_PARTITIONS as usize];
        Arc::new(Block { view: id.view, version: version as u64, cut, watermarks_us, groups })
    }

    fn starts(&self, l: usize) -> Vec<TargetStart> {
        let starts = self.partitions.iter().map(|(id, partition)| TargetStart {
            view: self.view(*id),
            index: id.index,
            applied: partition.applied()[l],
        });
        starts.collect()
    }

    fn worker(&self, l: usize, index: Planted) -> Sender {
        let mut worker = Worker::new(source(&self.views), LogPartition(l as u32), index, 4);
        worker.targets_changed(self.starts(l));
        worker
    }

    /// The lowest base of any view partition.
    fn floor(&self, l: usize) -> Offset {
        self.partitions.values().map(|p| p.cut().offsets()[l]).min().unwrap_or_default()
    }

    fn pick(&mut self) -> (usize, usize) {
        let l = self.dice.below(LOG_PARTITIONS.into()) as usize;
        let count = self.workers[l].len() as u64;
        // The last is the current one; it gets most of the turns.
        let w = if self.dice.chance(70) { count - 1 } else { self.dice.below(count) };
        (l, w as usize)
    }

    fn feed(&mut self, l: usize, w: usize, most: u64) {
        let worker = &mut self.workers[l][w];
        let behind = worker.behind().filter(|_| self.dice.chance(50));
        let from = behind.unwrap_or(worker.next_read_offset());
        let to = (from + most).min(self.logs[l].len() as u64);
        let records = self.logs[l][from as usize..to as usize].iter().flatten().cloned().collect();
        worker.feed(&Chunk { from, to, records }, &mut Vec::new()).expect("memory does not fail");
    }

    fn submit(&mut self, l: usize, w: usize, id: PartitionId, delta: Delta) {
        let partition = self.partitions.get_mut(&id).expect("all are live");
        let outcome = partition.apply(Entry::Delta(delta));
        if let Outcome::Invalid(reason) = outcome {
            self.broken = Some(format!("{id}: {reason}"));
        }
        if matches!(outcome, Outcome::Accepted { .. }) {
            self.check(id);
        }
        self.answers.push((l, w, id, outcome));
    }

    fn check(&mut self, id: PartitionId) {
        let partition = &self.partitions[&id];
        let held: Groups = partition.all().into_iter().collect();
        if held != self.fold(id, partition.applied()) && self.broken.is_none() {
            self.broken = Some(format!("{id} at {:?} differs from the fold", partition.applied()));
        }
    }

    fn send(&mut self, l: usize, w: usize) {
        for id in self.ids() {
            let waiting: Vec<Delta> = self.workers[l][w].outgoing(id).take(3).cloned().collect();
            for delta in waiting {
                if self.dice.chance(60) {
                    self.submit(l, w, id, delta);
                }
            }
            if self.dice.chance(30)
                && let Some(delta) = self.workers[l][w].heartbeat(id)
            {
                self.submit(l, w, id, delta);
            }
        }
    }

    fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let at = self.dice.below(self.answers.len() as u64) as usize;
        let (l, w, id, outcome) =
            if self.dice.chance(85) { self.answers.swap_remove(at) } else { self.answers[at].clone() };
        if self.dice.chance(90) {
            self.workers[l][w].on_outcome(id, &outcome);
        }
    }

    /// Replaces a worker; the old one may go on sending. The new one has the
    /// old index, a lagging copy, or one rebuilt from the base table at the floor.
    fn replace(&mut self, l: usize) {
        let current = self.workers[l].last().expect("there is always a worker").clone();
        let mut index = current.into_index();
        match self.dice.below(3) {
            0 => {}
            1 => {
                let size = self.views[0].source.segment_size;
                let boundary = index.inner.position() / size * size;
                index.inner.truncate(boundary.max(index.inner.floor()));
            }
            _ => index.inner = self.rebuilt(l),
        }
        let worker = self.worker(l, index);
        if self.dice.chance(60) {
            self.workers[l].push(worker);
        } else {
            let last = self.workers[l].len() - 1;
            self.workers[l][last] = worker;
            self.answers.retain(|(of, w, _, _)| (*of, *w) != (l, last));
        }
    }

    fn rebuilt(&self, l: usize) -> MemoryIndex {
        let floor = self.floor(l);
        let records = self.logs[l][..floor as usize].iter().flatten().cloned().collect();
        let mut reader = Worker::new(source(&self.views), LogPartition(l as u32), MemoryIndex::new(), 1);
        let chunk = Chunk { from: 0, to: floor, records };
        reader.feed(&chunk, &mut Vec::new()).expect("memory does not fail");
        let mut index = reader.into_index();
        index.collapse(floor).expect("memory does not fail");
        index
    }

    fn cut(&mut self) {
        let size = self.views[0].source.segment_size;
        let last = self.cuts.last().expect("the zero cut").clone();
        let next = last.offsets().iter().zip(&self.logs).map(|(&cut, log)| {
            let most = (log.len() as u64 - cut) / size;
            cut + self.dice.below(most.min(2) + 1) * size
        });
        self.cuts.push(Cut::new(next.collect()));
    }

    fn adopt(&mut self, id: PartitionId) {
        let version = self.cuts.len() - 1;
        let block = self.block(id, version);
        let partition = self.partitions.get_mut(&id).expect("all are live");
        partition.apply(Entry::Adopt(block));
        self.check(id);
    }

    fn lose(&mut self, id: PartitionId) {
        // It restarts from a version that is not below any floor in use.
        let version = self.partitions[&id].version() as usize;
        let block = self.block(id, version);
        let config = self.view(id).partition_config();
        self.partitions.insert(id, ViewPartition::new(config, block));
    }

    fn step(&mut self) {
        let (l, w) = self.pick();
        let ids = self.ids();
        let id = ids[self.dice.below(ids.len() as u64) as usize];
        match self.dice.below(100) {
            0..30 => {
                let most = 1 + self.dice.below(9);
                self.feed(l, w, most);
            }
            30..45 => self.workers[l][w].flush(),
            45..65 => self.send(l, w),
            65..88 => self.answer(),
            88..91 => self.replace(l),
            91..93 => self.cut(),
            93..96 => self.adopt(id),
            96..98 => self.lose(id),
            _ => {
                let floor = self.floor(l);
                self.workers[l][w].collapse(floor).expect("memory does not fail");
            }
        }
    }

    /// Ends all faults; the current workers must bring everything up to the end.
    fn heal(&mut self) {
        self.answers.clear();
        for round in 0..60 {
            for l in 0..LOG_PARTITIONS as usize {
                let w = self.workers[l].len() - 1;
                self.feed(l, w, 100);
                self.workers[l][w].flush();
                for id in self.ids() {
                    let worker = &self.workers[l][w];
                    let delta = worker.outgoing(id).next().cloned().or_else(|| worker.heartbeat(id));
                    if let Some(delta) = delta {
                        self.submit(l, w, id, delta);
                    }
                    for (l, w, id, outcome) in std::mem::take(&mut self.answers) {
                        self.workers[l][w].on_outcome(id, &outcome);
                    }
                }
            }
            if round % 20 == 19 {
                self.ids().into_iter().for_each(|id| self.adopt(id));
            }
        }
        let ends: Vec<Offset> = self.logs.iter().map(|log| log.len() as u64).collect();
        for id in self.ids() {
            if self.partitions[&id].applied() != ends && self.broken.is_none() {
                let applied = self.partitions[&id].applied();
                self.broken = Some(format!("{id} stays at {applied:?}, the log ends at {ends:?}"));
            }
        }
    }
}

fn run(seed: u64, steps: u64, latest: bool) -> Option<String> {
    let mut world = World::new(seed, latest);
    for _ in 0..steps {
        world.step();
        if world.broken.is_some() {
            return world.broken;
        }
    }
    world.heal();
    world.broken
}

#[test]
fn every_view_partition_holds_the_fold_of_what_it_applied_whatever_fails() {
    for seed in 0..60 {
        assert_eq!(run(seed, 250, false), None, "seed {seed}");
    }
}

#[test]
fn an_index_that_answers_the_latest_is_caught() {
    assert!((0..60).any(|seed| run(seed, 250, true).is_some()), "the planted bug went unseen");
}

fn fed(payloads: &[&str]) -> (Sender, Vec<sanso_state::Quarantined>) {
    let views = views();
    let mut worker = Worker::new(source(&views), LogPartition(0), Planted::default(), 4);
    let starts = views.iter().flat_map(|view| {
        (0..view.partitions).map(|index| TargetStart { view: Arc::clone(view), index, applied: 0 })
    });
    worker.targets_changed(starts.collect());
    let records: Vec<_> = payloads.iter().enumerate().map(|(o, p)| record(o as u64, p)).collect();
    let chunk = Chunk { from: 0, to: records.len() as u64, records };
    let mut refused = Vec::new();
    worker.feed(&chunk, &mut refused).expect("memory does not fail");
    (worker, refused)
}

#[test]
fn records_are_judged_and_refused_ones_say_why() {
    let (mine, other) = (meter(0, 0), meter(1, 0));
    let (worker, refused) = fed(&[
        &reading(&mine, 8, 1, 1, 1),
        &reading(&mine, 8, 2, 1, 2),
        &reading(&mine, 8, 2, 1, 2),
        &reading(&mine, 8, 3, 1, 2),
        &reading(&mine, 8, 9, 1, 1),
        &reading(&other, 8, 1, 1, 1),
        "{}",
        &reading(&mine, 1, 1, 0, 1),
    ]);
    let counts = worker.counts();
    assert_eq!((counts.records, counts.new, counts.corrections, counts.late), (8, 2, 1, 1));
    assert_eq!((counts.duplicates, counts.conflicts, counts.stale), (1, 1, 1));
    assert_eq!((counts.undecodable, counts.misplaced), (1, 1));
    let kinds: Vec<_> = refused.iter().map(|r| (r.offset, r.kind.name())).collect();
    assert_eq!(kinds, [(3, "conflict"), (5, "misplaced"), (6, "undecodable"), (7, "expression")]);
    assert!(refused[3].reason.contains("totals"), "{}", refused[3].reason);
}

#[test]
fn a_delta_ends_at_the_segment_and_empty_ones_are_sent_too() {
    let (mut worker, _) = fed(&[&reading(&meter(0, 0), 8, 1, 1, 1), "{}", "{}", "{}", "{}", "{}"]);
    worker.flush();
    for id in worker.targets() {
        for (from, to) in [(0, 4), (4, 6)] {
            assert_eq!(waiting(&worker, id), [(from, to)]);
            worker.on_outcome(id, &Outcome::Accepted { applied: to });
        }
        assert_eq!(waiting(&worker, id), []);
    }
}

/// The ranges of the closed deltas of a target.
fn waiting(worker: &Sender, id: PartitionId) -> Vec<(Offset, Offset)> {
    worker.outgoing(id).map(|delta| (delta.from, delta.to)).collect()
}

/// Returns the end and the watermark of the delta that a target is to be sent next.
fn head_of(worker: &Sender, id: PartitionId) -> Option<(Offset, Option<i64>)> {
    worker.outgoing(id).next().map(|delta| (delta.to, delta.watermark_us))
}

/// Acknowledges all that is to be sent to a target; returns the end and the watermark of the last delta.
fn acknowledged(worker: &mut Sender, id: PartitionId) -> Option<(Offset, Option<i64>)> {
    let mut last = None;
    while let Some(delta) = head_of(worker, id) {
        last = Some(delta);
        worker.on_outcome(id, &Outcome::Accepted { applied: delta.0 });
    }
    last
}

#[test]
fn who_takes_long_is_sent_the_more_at_once_and_the_others_are_sent_all_meanwhile() {
    let (mut worker, _) = fed(&["{}"]);
    let ids = worker.targets();
    let (slow, quick) = (ids[0], ids[1]);
    let records = |range: std::ops::Range<u64>| range.map(|offset| record(offset, "{}")).collect();
    for to in 1..4 {
        if to > 1 {
            let chunk = Chunk { from: to - 1, to, records: records(to - 1..to) };
            worker.feed(&chunk, &mut Vec::new()).expect("memory does not fail");
        }
        worker.flush();
        assert_eq!((waiting(&worker, slow), waiting(&worker, quick)), (vec![(0, 1)], vec![(to - 1, to)]));
        assert_eq!(worker.on_outcome(quick, &Outcome::Accepted { applied: to }), Answer::Advanced);
    }
    worker.on_outcome(slow, &Outcome::Accepted { applied: 1 });
    assert_eq!(waiting(&worker, slow), [(1, 3)], "all flushes since, nobody has to ask for it");
    worker.on_outcome(slow, &Outcome::Accepted { applied: 3 });
    assert!(waiting(&worker, slow).is_empty() && worker.target(slow).expect("it is one").is_settled());
}

#[test]
fn only_a_refusal_of_the_head_moves_the_worker() {
    let (mut worker, _) = fed(&[&reading(&meter(0, 0), 8, 1, 1, 1), "{}", "{}"]);
    worker.flush();
    let id = worker.targets()[0];
    let stale = Outcome::Refused { from: 2, applied: 1 };
    assert_eq!(worker.on_outcome(id, &stale), Answer::Ignored);
    assert_eq!(worker.next_read_offset(), 3);
    let refused = Outcome::Refused { from: 0, applied: 1 };
    assert_eq!(worker.on_outcome(id, &refused), Answer::Resumed(1));
    assert_eq!((worker.behind(), worker.next_read_offset()), (Some(1), 3));
    // With the others behind too, what follows is read once for all.
    worker.targets().into_iter().skip(1).for_each(|id| _ = worker.on_outcome(id, &refused));
    assert_eq!((worker.behind(), worker.next_read_offset()), (Some(1), 1));
}

#[test]
fn a_target_below_the_floor_waits_and_learns_by_heartbeat() {
    let (mut worker, _) = fed(&["{}", "{}", "{}", "{}", "{}"]);
    worker.collapse(4).expect("memory does not fail");
    let id = worker.targets()[0];
    worker.flush();
    let behind = Outcome::Refused { from: 0, applied: 2 };
    worker.on_outcome(id, &behind);
    assert_eq!(worker.behind(), None, "offset 2 can't be answered for any longer");
    assert_eq!(worker.outgoing(id).count(), 0);
    let heartbeat = worker.heartbeat(id).expect("it still asks");
    assert_eq!((heartbeat.from, heartbeat.to), (2, 2));
    worker.on_outcome(id, &Outcome::Refused { from: 2, applied: 4 });
    assert_eq!(worker.behind(), Some(4));
}

#[test]
fn a_full_queue_holds_back_one_target_only_and_it_is_caught_up() {
    let payloads = vec!["{}"; 32];
    let (mut worker, _) = fed(&payloads);
    let ids = worker.targets();
    let queued = |worker: &Sender, id| worker.outgoing(id).count();
    assert_eq!(queued(&worker, ids[0]), 4, "the queue is bounded");
    for _ in 0..4 {
        let head = worker.outgoing(ids[0]).next().cloned().expect("four wait");
        worker.on_outcome(ids[0], &Outcome::Accepted { applied: head.to });
    }
    assert_eq!(worker.behind(), Some(16), "it reads again what was left out");
}

#[test]
fn a_new_view_is_caught_up_while_the_others_go_on() {
    let payloads: Vec<String> = (0..9).map(|at| reading(&meter(0, 0), 8 + at, 1, 1, 1)).collect();
    let records: Vec<_> = payloads.iter().enumerate().map(|(o, p)| record(o as u64, p)).collect();
    let chunk =
        |from: u64, to: u64| Chunk { from, to, records: records[from as usize..to as usize].to_vec() };
    let feed = |worker: &mut Sender, from, to| {
        worker.feed(&chunk(from, to), &mut Vec::new()).expect("memory does not fail");
        worker.flush();
    };
    let views = views();
    let start = |view: &Arc<View>| TargetStart { view: Arc::clone(view), index: 0, applied: 0 };
    let mut worker = Worker::new(source(&views), LogPartition(0), Planted::default(), 4);
    worker.targets_changed(vec![start(&views[0])]);
    feed(&mut worker, 0, 8);
    worker.targets_changed(views[..2].iter().map(start).collect());
    assert_eq!((worker.next_read_offset(), worker.behind()), (8, Some(0)));
    let [old, new] = [0, 1].map(|view: usize| PartitionId { view: views[view].fingerprint, index: 0 });
    feed(&mut worker, 8, 9);
    let at_head = acknowledged(&mut worker, old);
    assert_eq!((at_head.map(|(to, _)| to), acknowledged(&mut worker, new)), (Some(9), None));
    feed(&mut worker, 0, 3);
    assert_eq!((worker.next_read_offset(), worker.behind()), (9, Some(3)));
    assert_eq!(acknowledged(&mut worker, new).map(|(to, _)| to), Some(3));
    feed(&mut worker, 3, 9);
    assert_eq!((worker.behind(), acknowledged(&mut worker, new)), (None, at_head));
    // A view that goes takes along what it lags.
    worker.targets_changed(vec![start(&views[0])]);
    worker.targets_changed(views[..2].iter().map(start).collect());
    assert_eq!(worker.behind(), Some(0));
    worker.targets_changed(vec![start(&views[0])]);
    assert_eq!(worker.behind(), None);
}

#[test]
fn an_empty_history_reports_nothing_but_holes_count() {
    let views = views();
    let mut worker = Worker::new(source(&views), LogPartition(0), MemoryIndex::new(), 4);
    worker.feed(&Chunk { from: 0, to: 9, records: vec![] }, &mut Vec::new()).expect("memory does not fail");
    assert_eq!((worker.index().position(), worker.counts().records), (9, 0));
}
