//! The simulated world: workers, view partitions and a network that loses,
//! doubles and reorders, driven by one seed.

mod partitions;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_core::PartitionId;
use sanso_speed::{MemoryIndex, NewestIndex, Worker};
use sanso_state::{Cut, Delta, Division, Entry, Groups, LogPartition, Outcome, Quarantined, ViewPartition};
use sanso_view::View;

use crate::Declared;
use crate::history::{History, PARTITIONS, choose};

const STEPS: usize = 420;
const QUEUE_MAX: usize = 6;

/// A view partition: its committed state and the entries under way to it.
struct Replica {
    view: Arc<View>,
    index: u32,
    state: Option<ViewPartition>,
    pending: VecDeque<(Entry, Option<usize>)>,
    seen: Vec<u64>,
}

struct Actor {
    partition: u32,
    worker: Worker<MemoryIndex>,
}

enum Message {
    Delta { to: PartitionId, delta: Box<Delta>, from: usize },
    Outcome { to: usize, from: PartitionId, outcome: Outcome },
}

/// What went wrong, for a person with a seed.
pub(crate) type Failure = String;

pub(crate) struct World {
    rng: StdRng,
    declared: Arc<Declared>,
    history: History,
    rates: Vec<u32>,
    cuts: Vec<Vec<u64>>,
    archived: Vec<u64>,
    published: BTreeSet<(usize, usize)>,
    generations: Vec<usize>,
    backfill: Option<(usize, usize)>,
    rebuilding: Vec<(PartitionId, usize)>,
    replicas: BTreeMap<PartitionId, Replica>,
    actors: BTreeMap<usize, Actor>,
    current: Vec<usize>,
    next_actor: usize,
    network: Vec<Message>,
    /// The speed layer's quarantine; what was published is dropped, or not yet.
    refused: Vec<Quarantined>,
    /// How often each kind of event really happened, so that a test can say it was tested.
    pub(crate) happened: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, declared: Arc<Declared>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rates = choose(&mut rng, &[vec![9, 9, 9], vec![20, 4, 1], vec![1, 20, 4], vec![20, 20, 1]]);
        let history = History::new(Arc::clone(&declared.source));
        let mut world = Self {
            rng,
            history,
            rates,
            cuts: vec![vec![0; PARTITIONS as usize]],
            archived: vec![0; PARTITIONS as usize],
            published: BTreeSet::from([(0, 0)]),
            generations: vec![0],
            backfill: None,
            rebuilding: Vec::new(),
            replicas: BTreeMap::new(),
            actors: BTreeMap::new(),
            current: vec![0; PARTITIONS as usize],
            next_actor: 0,
            network: Vec::new(),
            refused: Vec::new(),
            happened: BTreeMap::new(),
            declared,
        };
        world.make_live(0, 0);
        for partition in 0..PARTITIONS {
            world.hire(partition, MemoryIndex::new());
        }
        world
    }

    /// Runs the whole history with faults, then lets everything settle.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.settle()
    }

    fn step(&mut self) -> Result<(), Failure> {
        match self.rng.random_range(0..161) {
            0..14 => self.history.append(&mut self.rng, &self.rates),
            14..40 => self.work(false)?,
            40..48 => self.with_worker(false, Worker::flush),
            48..64 => self.send(false),
            64..94 => (0..3).for_each(|_| self.deliver()),
            94..118 => self.commit()?,
            118..123 => self.archive(),
            123..126 => self.cut(),
            126..129 => self.publish(),
            129..133 => self.adopt(),
            133..136 => self.replace_worker(),
            136..138 => self.fail_over(),
            138..148 => self.zombie()?,
            148..152 => self.collapse(),
            152..153 => self.lose(),
            153..155 => self.rebuild(0.4),
            155..157 => self.new_generation(),
            157 => self.retire(),
            158 => self.discard(),
            _ => self.advance_all()?,
        }
        self.check_quarantine()
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// The law: what a view partition holds equals a naive fold of the prefix
    /// it says it has applied; it never goes back; and the audit finds nothing.
    fn check(&mut self, id: PartitionId) -> Result<(), Failure> {
        let replica = self.replicas.get_mut(&id).expect("checked after a commit");
        let Some(state) = &replica.state else { return Ok(()) };
        let applied = state.applied().to_vec();
        if applied.iter().zip(&replica.seen).any(|(now, before)| now < before) {
            return Err(format!("{id} went back from {:?} to {applied:?}", replica.seen));
        }
        replica.seen.clone_from(&applied);
        let (view, index) = (Arc::clone(&replica.view), replica.index);
        let ends: Vec<u64> = (0..PARTITIONS).map(|l| self.history.end(l)).collect();
        if applied.iter().zip(&ends).any(|(applied, end)| applied > end) {
            return Err(format!("{id} applied {applied:?} beyond the log's end {ends:?}"));
        }
        let state = self.replicas[&id].state.as_ref().expect("just read");
        let found: Groups = state.all().into_iter().collect();
        let wanted = self.history.fold(&view, index, &applied);
        if found != wanted {
            return Err(format!(
                "law: view {} partition {index} applied {applied:?} version {} cut {:?}\nfound  {found:?}\nwanted {wanted:?}",
                view.name,
                state.version(),
                state.cut()
            ));
        }
        let size = self.declared.source.segments().size();
        let mut audited = 0;
        for segment in state.complete_segments() {
            let (from, to) = (segment.index * size, (segment.index + 1) * size);
            let batch = self.history.segment(&view, index, segment.partition.0, from, to);
            audited += 1;
            match state.audit(segment, &batch) {
                Some(differences) if differences.is_empty() => {}
                other => return Err(format!("audit: view {} segment {segment}: {other:?}", view.name)),
            }
        }
        *self.happened.entry("segment audited").or_default() += audited;
        Ok(())
    }

    /// Faults end; everything must reach the end of the log.
    fn settle(&mut self) -> Result<(), Failure> {
        while !self.rebuilding.is_empty() {
            self.rebuild(1.0);
        }
        self.backfill = None;
        for id in self.actors.keys().copied().collect::<Vec<_>>() {
            if !self.current.contains(&id) {
                self.actors.remove(&id);
            }
        }
        let ends: Vec<u64> = (0..PARTITIONS).map(|l| self.history.end(l)).collect();
        for _ in 0..200 {
            for id in self.current.clone() {
                let (partition, floor) = (self.actor(id).partition, self.actor(id).worker.index().floor());
                let targets = self.targets(partition, floor);
                self.actor(id).worker.targets_changed(targets);
                self.work_on(id, 64)?;
                self.actor(id).worker.flush();
                self.send_from(id, QUEUE_MAX);
            }
            self.exchange_all()?;
            if self.replicas.values().all(|r| r.state.as_ref().is_some_and(|s| s.applied() == ends)) {
                return self.check_quarantine();
            }
        }
        let behind: Vec<_> =
            self.replicas.values().map(|r| r.state.as_ref().map(|s| s.applied().to_vec())).collect();
        Err(format!("stuck: the log ends at {ends:?}, view partitions stand at {behind:?}"))
    }

    fn exchange_all(&mut self) -> Result<(), Failure> {
        while !self.network.is_empty() {
            for message in std::mem::take(&mut self.network) {
                self.hand_over(message);
            }
            for id in self.replicas.keys().copied().collect::<Vec<_>>() {
                while !self.replicas[&id].pending.is_empty() {
                    self.commit_one(id)?;
                }
            }
        }
        Ok(())
    }

    /// The quarantine as a reader sees it, batch's below the cut and speed's from it on, is what a
    /// naive judge refuses: all of it as far as the layers have come, and nothing else beyond.
    fn check_quarantine(&self) -> Result<(), Failure> {
        let wanted = self.history.refused();
        let cut = self.cuts.last().expect("the first cut is zero").clone();
        let division = Division { from: Cut::zero(PARTITIONS), cut: Cut::new(cut) };
        // Batch's own judgement is tested with the batch layer; here it is the naive one.
        let batch = wanted.iter().filter(|(l, offset, _)| division.batch(LogPartition(*l)).contains(offset));
        let mut found: BTreeSet<(u32, u64, &'static str)> = batch.copied().collect();
        let of_speed = |record: &&Quarantined| {
            let ranges = division.speed(LogPartition(record.partition));
            ranges.iter().any(|range| range.contains(&record.offset))
        };
        let speed = self.refused.iter().filter(of_speed);
        found.extend(speed.map(|record| (record.partition, record.offset, record.kind.name())));
        let judged = |l: u32| {
            let position = self.actors[&self.current[l as usize]].worker.index().position();
            position.max(division.cut.at(LogPartition(l)))
        };
        let missing: Vec<_> =
            wanted.difference(&found).filter(|(l, offset, _)| *offset < judged(*l)).collect();
        let surplus: Vec<_> = found.difference(&wanted).collect();
        if missing.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        Err(format!("quarantine: missing {missing:?}, surplus {surplus:?}, cut {:?}", division.cut))
    }
}

impl Message {
    fn again(&self) -> Self {
        match self {
            Message::Delta { to, delta, from } => {
                Message::Delta { to: *to, delta: delta.clone(), from: *from }
            }
            Message::Outcome { to, from, outcome } => {
                Message::Outcome { to: *to, from: *from, outcome: outcome.clone() }
            }
        }
    }
}
