//! Workers, replaced and present, and the network between them and the view partitions.

use std::sync::Arc;

use rand::RngExt;
use sanso_core::PartitionId;
use sanso_speed::{MemoryIndex, NewestIndex, TargetStart, Worker};
use sanso_state::{Entry, LogPartition};

use super::{Actor, Failure, Message, QUEUE_MAX, World};
use crate::history::{PARTITIONS, choose};
impl World {
    pub(super) fn hire(&mut self, partition: u32, index: MemoryIndex) {
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

    pub(super) fn actor(&mut self, id: usize) -> &mut Actor {
        self.actors.get_mut(&id).expect("an actor that was hired")
    }

    /// The view partitions as a worker hears of them: now and then wrongly.
    pub(super) fn targets(&mut self, partition: u32, floor: u64) -> Vec<TargetStart> {
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

    pub(super) fn pick_worker(&mut self, replaced: bool) -> Option<usize> {
        let current = &self.current;
        let ids: Vec<usize> =
            self.actors.keys().copied().filter(|id| current.contains(id) != replaced).collect();
        (!ids.is_empty()).then(|| choose(&mut self.rng, &ids))
    }

    pub(super) fn with_worker(&mut self, replaced: bool, act: impl FnOnce(&mut Worker<MemoryIndex>)) {
        if let Some(id) = self.pick_worker(replaced) {
            act(&mut self.actor(id).worker);
        }
    }

    pub(super) fn work(&mut self, replaced: bool) -> Result<(), Failure> {
        let Some(id) = self.pick_worker(replaced) else { return Ok(()) };
        let most = self.rng.random_range(1..=5);
        self.work_on(id, most)
    }

    pub(super) fn work_on(&mut self, id: usize, most: u64) -> Result<(), Failure> {
        let actor = self.actors.get_mut(&id).expect("hired");
        let head = actor.worker.next_read_offset();
        let from = actor.worker.behind().filter(|_| self.rng.random_bool(0.5)).unwrap_or(head);
        let to = (from + most).min(self.history.end(actor.partition));
        if from >= to {
            return Ok(());
        }
        let chunk = self.history.chunk(actor.partition, from, to);
        actor.worker.feed(&chunk, &mut self.refused).map_err(|error| format!("feed: {error}"))
    }

    pub(super) fn send(&mut self, replaced: bool) {
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

    pub(super) fn send_from(&mut self, id: usize, most: usize) {
        let worker = &self.actors[&id].worker;
        let mut messages = Vec::new();
        for to in worker.targets() {
            let deltas = worker.outgoing(to).take(most).cloned();
            let heartbeat = worker.heartbeat(to).filter(|_| self.rng.random_bool(0.5));
            messages.extend(deltas.chain(heartbeat).map(|delta| Message::Delta {
                to,
                delta: Box::new(delta),
                from: id,
            }));
        }
        self.network.extend(messages);
    }

    /// A worker is replaced: its successor has its index, an older copy of it,
    /// or one rebuilt from the newest-version table at the floor. The old one
    /// often goes on sending, sometimes from far behind.
    pub(super) fn replace_worker(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let floor = self.floor(partition);
        let old = self.current[partition as usize];
        let index = self.actors[&old].worker.index().clone();
        let successor = match self.rng.random_range(0..100) {
            0..35 => index.clone(),
            35..70 => self.behind(index.clone()),
            rebuilt => {
                // With the index the quarantine may be lost; without it, it never is lost alone.
                if rebuilt < 90 {
                    self.refused.retain(|record| record.partition != partition);
                    self.count("quarantine lost");
                }
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

    /// The speed layer drops from its quarantine what a committed version holds; sometimes it is late.
    pub(super) fn discard(&mut self) {
        let version = self.rng.random_range(0..self.cuts.len());
        let published = &self.cuts[version];
        let before = self.refused.len();
        self.refused.retain(|record| record.offset >= published[record.partition as usize]);
        if self.refused.len() < before {
            self.count("quarantine discarded");
        }
    }

    pub(super) fn behind(&mut self, mut index: MemoryIndex) -> MemoryIndex {
        let size = self.declared.source.segments().size();
        let boundaries: Vec<u64> = (index.floor()..=index.position())
            .filter(|offset| offset % size == 0 || *offset == index.floor())
            .collect();
        index.truncate(choose(&mut self.rng, &boundaries));
        index
    }

    pub(super) fn zombie(&mut self) -> Result<(), Failure> {
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

    pub(super) fn deliver(&mut self) {
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

    pub(super) fn hand_over(&mut self, message: Message) {
        match message {
            Message::Delta { to, delta, from } => {
                let to = self.misrouted(to);
                if let Some(replica) = self.replicas.get_mut(&to)
                    && replica.state.is_some()
                {
                    replica.pending.push_back((Entry::Delta(*delta), Some(from)));
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
    pub(super) fn misrouted(&mut self, to: PartitionId) -> PartitionId {
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
}
