//! The simulated world: workers, view partitions and a network that loses,
//! doubles and reorders, driven by one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_catalog::Quarantined;
use sanso_core::PartitionId;
use sanso_speed::{MemoryIndex, NewestIndex, TargetStart, Worker};
use sanso_state::{Block, Cut, Delta, Entry, Groups, LogPartition, Outcome, ViewPartition};
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
    Delta { to: PartitionId, delta: Delta, from: usize },
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
    refused: Vec<Quarantined>,
    /// Offsets that no worker read: an index was rebuilt from a base beyond them.
    unread: Vec<(u32, std::ops::Range<u64>)>,
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
            unread: Vec::new(),
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
        match self.rng.random_range(0..160) {
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
            _ => self.advance_all()?,
        }
        Ok(())
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    // ── Views and view partitions ──────────────────────────────────────────

    fn views(&self, generation: usize) -> Vec<Arc<View>> {
        self.declared.generations[generation].clone()
    }

    fn block(&self, view: &View, index: u32, version: usize) -> Arc<Block> {
        let cut = &self.cuts[version];
        Arc::new(Block {
            view: view.fingerprint,
            version: version as u64,
            cut: Cut::new(cut.clone()),
            watermarks_us: vec![None; PARTITIONS as usize],
            groups: self.history.fold(view, index, cut),
        })
    }

    fn make_live(&mut self, generation: usize, version: usize) {
        for view in self.views(generation) {
            for index in 0..view.partitions {
                let state = ViewPartition::new(view.partition_config(), self.block(&view, index, version));
                let id = PartitionId { view: view.fingerprint, index };
                let (view, state, pending) = (Arc::clone(&view), Some(state), VecDeque::new());
                let seen = vec![0; PARTITIONS as usize];
                self.replicas.insert(id, Replica { view, index, state, pending, seen });
            }
        }
    }

    fn new_generation(&mut self) {
        match self.backfill.take() {
            None if self.generations.last() == Some(&(self.declared.generations.len() - 1)) => {}
            None => {
                let next = self.generations.last().map_or(0, |last| last + 1);
                let versions =
                    self.replicas.values().filter_map(|r| r.state.as_ref()).map(|s| s.version() as usize);
                let lowest = versions.chain(self.rebuilding.iter().map(|(_, k)| *k)).min().unwrap_or(0);
                self.backfill = Some((next, self.rng.random_range(lowest..self.cuts.len())));
            }
            Some(started) if self.rng.random_bool(0.75) => self.backfill = Some(started),
            Some((generation, version)) => {
                self.published.insert((generation, version));
                self.generations.push(generation);
                self.make_live(generation, version);
                self.count("new view version");
            }
        }
    }

    fn retire(&mut self) {
        if self.generations.len() < 2 {
            return;
        }
        let generation = self.generations.remove(0);
        for view in self.views(generation) {
            self.replicas.retain(|id, _| id.view != view.fingerprint);
            self.rebuilding.retain(|(id, _)| id.view != view.fingerprint);
        }
        self.count("view version retired");
    }

    fn pick_replica(&mut self) -> PartitionId {
        let ids: Vec<PartitionId> = self.replicas.keys().copied().collect();
        choose(&mut self.rng, &ids)
    }

    fn generation_of(&self, id: PartitionId) -> usize {
        let of =
            |generation: &&usize| self.views(**generation).iter().any(|view| view.fingerprint == id.view);
        *self.generations.iter().find(of).expect("a live view has a generation")
    }

    fn newest_published(&self, id: PartitionId) -> usize {
        let generation = self.generation_of(id);
        let versions = self.published.iter().filter(|(g, _)| *g == generation).map(|(_, k)| *k);
        versions.max().expect("a live view version is published")
    }

    fn lose(&mut self) {
        let id = self.pick_replica();
        let version = self.newest_published(id);
        let replica = self.replicas.get_mut(&id).expect("picked");
        if replica.state.take().is_some() {
            replica.pending.clear();
            self.rebuilding.push((id, version));
            self.count("view partition lost");
        }
    }

    fn rebuild(&mut self, chance: f64) {
        if self.rebuilding.is_empty() || !self.rng.random_bool(chance) {
            return;
        }
        let at = self.rng.random_range(0..self.rebuilding.len());
        let (id, version) = self.rebuilding.swap_remove(at);
        let Some(replica) = self.replicas.get(&id) else { return };
        let block = self.block(&replica.view.clone(), id.index, version);
        let replica = self.replicas.get_mut(&id).expect("looked up");
        replica.state = Some(ViewPartition::new(replica.view.partition_config(), block));
        replica.seen = vec![0; PARTITIONS as usize];
    }

    /// Commits the oldest pending entry of some view partition and checks the law.
    fn commit(&mut self) -> Result<(), Failure> {
        let id = self.pick_replica();
        self.commit_one(id)
    }

    fn commit_one(&mut self, id: PartitionId) -> Result<(), Failure> {
        let replica = self.replicas.get_mut(&id).expect("picked");
        let Some((entry, sender)) = replica.pending.pop_front() else { return Ok(()) };
        let Some(state) = replica.state.as_mut() else { return Ok(()) };
        let outcome = state.apply(entry);
        let what = match outcome {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Refused { .. } => "refused",
            Outcome::Invalid(_) => "invalid",
            Outcome::Adopted => "adopted",
            _ => "stale",
        };
        self.count(what);
        if let Some(to) = sender
            && self.rng.random_bool(0.85)
        {
            self.network.push(Message::Outcome { to, from: id, outcome });
        }
        self.check(id)
    }

    /// A primary that had not replicated its last entries is replaced.
    fn fail_over(&mut self) {
        let id = self.pick_replica();
        let replica = self.replicas.get_mut(&id).expect("picked");
        let keep = self.rng.random_range(0..=replica.pending.len());
        replica.pending.truncate(keep);
        self.count("unreplicated entries lost");
    }

    // ── Workers ────────────────────────────────────────────────────────────

    fn hire(&mut self, partition: u32, index: MemoryIndex) {
        let source = Arc::clone(&self.declared.source);
        let floor = index.floor();
        let worker = Worker::new(source, LogPartition(partition), index, QUEUE_MAX);
        let actor = self.next_actor;
        self.next_actor += 1;
        self.current[partition as usize] = actor;
        self.actors.insert(actor, Actor { partition, worker });
        let targets = self.targets(partition, floor);
        self.actor(actor).worker.targets_changed(targets);
    }

    fn actor(&mut self, id: usize) -> &mut Actor {
        self.actors.get_mut(&id).expect("an actor that was hired")
    }

    /// The view partitions as a worker hears of them: now and then wrongly.
    fn targets(&mut self, partition: u32, floor: u64) -> Vec<TargetStart> {
        let end = self.history.end(partition).max(floor);
        let mut targets = Vec::new();
        for replica in self.replicas.values() {
            let told = replica.state.as_ref().filter(|_| self.rng.random_bool(0.8));
            let applied = match told {
                Some(state) => state.applied()[partition as usize],
                None => self.rng.random_range(floor..=end),
            };
            targets.push(TargetStart { view: Arc::clone(&replica.view), index: replica.index, applied });
        }
        targets
    }

    fn pick_worker(&mut self, replaced: bool) -> Option<usize> {
        let current = &self.current;
        let ids: Vec<usize> =
            self.actors.keys().copied().filter(|id| current.contains(id) != replaced).collect();
        (!ids.is_empty()).then(|| choose(&mut self.rng, &ids))
    }

    fn with_worker(&mut self, replaced: bool, act: impl FnOnce(&mut Worker<MemoryIndex>)) {
        if let Some(id) = self.pick_worker(replaced) {
            act(&mut self.actor(id).worker);
        }
    }

    fn work(&mut self, replaced: bool) -> Result<(), Failure> {
        let Some(id) = self.pick_worker(replaced) else { return Ok(()) };
        let most = self.rng.random_range(1..=5);
        self.work_on(id, most)
    }

    fn work_on(&mut self, id: usize, most: u64) -> Result<(), Failure> {
        let actor = self.actors.get_mut(&id).expect("hired");
        let from = actor.worker.next_read_offset();
        let to = (from + most).min(self.history.end(actor.partition));
        if from >= to {
            return Ok(());
        }
        let chunk = self.history.chunk(actor.partition, from, to);
        actor.worker.feed(&chunk, &mut self.refused).map_err(|error| format!("feed: {error}"))
    }

    fn send(&mut self, replaced: bool) {
        if let Some(id) = self.pick_worker(replaced) {
            let most = self.rng.random_range(1..=3);
            if !replaced {
                let (partition, floor) = (self.actor(id).partition, self.actor(id).worker.index().floor());
                let targets = self.targets(partition, floor);
                self.actor(id).worker.targets_changed(targets);
            }
            self.send_from(id, most);
        }
    }

    fn send_from(&mut self, id: usize, most: usize) {
        let worker = &self.actors[&id].worker;
        let mut messages = Vec::new();
        for to in worker.targets() {
            let deltas = worker.outgoing(to).take(most).cloned();
            let heartbeat = worker.heartbeat(to).filter(|_| self.rng.random_bool(0.5));
            messages.extend(deltas.chain(heartbeat).map(|delta| Message::Delta { to, delta, from: id }));
        }
        self.network.extend(messages);
    }

    /// A worker is replaced: its successor has its index, an older copy of it,
    /// or one rebuilt from the newest-version table at the floor. The old one
    /// often goes on sending, sometimes from far behind.
    fn replace_worker(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let floor = self.floor(partition);
        let old = self.current[partition as usize];
        let index = self.actors[&old].worker.index().clone();
        let successor = match self.rng.random_range(0..100) {
            0..35 => index.clone(),
            35..70 => self.behind(index.clone()),
            _ => {
                self.unread.push((partition, index.position()..floor));
                MemoryIndex::based(floor, None, self.history.base(partition, floor))
            }
        };
        self.hire(partition, successor);
        if self.rng.random_bool(0.3) {
            self.actors.remove(&old);
        } else if self.rng.random_bool(0.5) {
            let index = self.behind(index);
            let floor = index.floor();
            let source = Arc::clone(&self.declared.source);
            let mut worker = Worker::new(source, LogPartition(partition), index, QUEUE_MAX);
            worker.targets_changed(self.targets(partition, floor));
            self.actor(old).worker = worker;
            self.count("replaced worker behind");
        }
        self.count("worker replaced");
    }

    fn behind(&mut self, mut index: MemoryIndex) -> MemoryIndex {
        let size = self.declared.source.segments().size();
        let boundaries: Vec<u64> = (index.floor()..=index.position())
            .filter(|offset| offset % size == 0 || *offset == index.floor())
            .collect();
        index.truncate(choose(&mut self.rng, &boundaries));
        index
    }

    fn zombie(&mut self) -> Result<(), Failure> {
        match self.rng.random_range(0..50) {
            0 => {
                if let Some(id) = self.pick_worker(true) {
                    self.actors.remove(&id);
                }
            }
            1..26 => self.work(true)?,
            26..38 => self.with_worker(true, Worker::flush),
            _ => self.send(true),
        }
        Ok(())
    }

    // ── Batch ──────────────────────────────────────────────────────────────

    fn archive(&mut self) {
        let size = self.declared.source.segments().size();
        let partition = self.rng.random_range(0..PARTITIONS);
        let archived = &mut self.archived[partition as usize];
        *archived = self.rng.random_range(*archived / size..=self.history.end(partition) / size) * size;
    }

    fn cut(&mut self) {
        let size = self.declared.source.segments().size();
        let last = self.cuts.last().expect("the first cut is zero").clone();
        let next: Vec<u64> = last
            .iter()
            .zip(&self.archived)
            .map(|(last, archived)| self.rng.random_range(last / size..=archived / size) * size)
            .collect();
        if next != last {
            self.cuts.push(next);
            self.count("cut");
        }
    }

    fn publish(&mut self) {
        let version = self.rng.random_range(0..self.cuts.len());
        let lowest = self.replicas.values().filter_map(|r| r.state.as_ref()).map(|s| s.version()).min();
        if version as u64 >= lowest.unwrap_or(0) {
            for generation in self.generations.clone() {
                self.published.insert((generation, version));
            }
        }
    }

    fn adopt(&mut self) {
        let id = self.pick_replica();
        let version = self.newest_published(id);
        let block = self.block(&self.replicas[&id].view.clone(), id.index, version);
        let replica = self.replicas.get_mut(&id).expect("picked");
        if replica.state.is_some() {
            replica.pending.push_back((Entry::Adopt(block), None));
        }
    }

    /// Everything that is up adopts the newest cut and the floor follows, so
    /// that only what is pinned keeps older offsets readable.
    fn advance_all(&mut self) -> Result<(), Failure> {
        let version = self.cuts.len() - 1;
        self.published.extend(self.generations.iter().map(|generation| (*generation, version)));
        for id in self.replicas.keys().copied().collect::<Vec<_>>() {
            let block = self.block(&self.replicas[&id].view.clone(), id.index, version);
            let replica = self.replicas.get_mut(&id).expect("listed");
            if replica.state.is_some() {
                replica.pending.push_back((Entry::Adopt(block), None));
            }
            while !self.replicas[&id].pending.is_empty() {
                self.commit_one(id)?;
            }
        }
        for partition in 0..PARTITIONS {
            let (floor, id) = (self.floor(partition), self.current[partition as usize]);
            self.actor(id).worker.collapse(floor).expect("memory does not fail");
        }
        self.count("floor raised");
        Ok(())
    }

    /// The lowest offset that anything live may have to be replayed from.
    fn floor(&self, partition: u32) -> u64 {
        let held = self.replicas.values().filter_map(|r| r.state.as_ref()).map(|s| s.version() as usize);
        let pinned = self.rebuilding.iter().map(|(_, version)| *version);
        let backfill = self.backfill.iter().map(|(_, version)| *version);
        let versions = held.chain(pinned).chain(backfill);
        versions.map(|version| self.cuts[version][partition as usize]).min().unwrap_or(0)
    }

    fn collapse(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let floor = self.floor(partition);
        let id = self.current[partition as usize];
        self.actor(id).worker.collapse(floor).expect("memory does not fail");
    }

    // ── The network ────────────────────────────────────────────────────────

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.network.len());
        let doubled = self.rng.random_bool(0.15);
        let message = if doubled { self.network[at].again() } else { self.network.swap_remove(at) };
        if !self.rng.random_bool(0.08) {
            self.hand_over(message);
        }
    }

    fn hand_over(&mut self, message: Message) {
        match message {
            Message::Delta { to, delta, from } => {
                let to = self.misrouted(to);
                if let Some(replica) = self.replicas.get_mut(&to)
                    && replica.state.is_some()
                {
                    replica.pending.push_back((Entry::Delta(delta), Some(from)));
                }
            }
            Message::Outcome { to, from, outcome } => {
                if let Some(actor) = self.actors.get_mut(&to) {
                    actor.worker.on_outcome(from, &outcome);
                }
            }
        }
    }

    /// Now and then a delta reaches the same view's partition of another version.
    fn misrouted(&mut self, to: PartitionId) -> PartitionId {
        if self.generations.len() < 2 || !self.rng.random_bool(0.05) {
            return to;
        }
        let of = |generation: &usize| {
            let views = self.views(*generation);
            views.iter().position(|view| view.fingerprint == to.view).map(|at| (*generation, at))
        };
        let Some((generation, at)) = self.generations.iter().find_map(of) else { return to };
        let others: Vec<usize> = self.generations.iter().copied().filter(|g| *g != generation).collect();
        let other = choose(&mut self.rng, &others);
        PartitionId { view: self.views(other)[at].fingerprint, index: to.index }
    }

    // ── Checks ─────────────────────────────────────────────────────────────

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

    fn check_quarantine(&self) -> Result<(), Failure> {
        let kind =
            |kind: &str| ["undecodable", "misplaced", "conflict"].into_iter().find(|known| *known == kind);
        let found: BTreeSet<(u32, u64, &'static str)> = self
            .refused
            .iter()
            .map(|record| (record.partition, record.offset, kind(&record.kind).unwrap_or("another kind")))
            .collect();
        let wanted = self.history.refused();
        let unread = |(l, offset, _): &(u32, u64, &str)| {
            self.unread.iter().any(|(partition, range)| partition == l && range.contains(offset))
        };
        let missing: Vec<_> = wanted.difference(&found).filter(|record| !unread(record)).collect();
        let surplus: Vec<_> = found.difference(&wanted).collect();
        if missing.is_empty() && surplus.is_empty() {
            return Ok(());
        }
        Err(format!("quarantine: missing {missing:?}, surplus {surplus:?}"))
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
