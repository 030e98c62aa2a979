//! View partitions and the batch versions they stand on: brought up, lost, rebuilt,
//! adopting, and the floor that follows from them.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::RngExt;
use sanso_core::PartitionId;
use sanso_state::{Block, Cut, Entry, Extension, Outcome, ViewPartition};
use sanso_view::View;

use super::{Failure, Message, Replica, World};
use crate::history::{PARTITIONS, choose};

impl World {
    pub(super) fn views(&self, generation: usize) -> Vec<Arc<View>> {
        self.declared.generations[generation].clone()
    }

    pub(super) fn block(&self, view: &View, index: u32, version: usize) -> Arc<Block> {
        let cut = &self.cuts[version];
        Arc::new(Block {
            view: view.fingerprint,
            version: version as u64,
            cut: Cut::new(cut.clone()),
            watermarks_us: vec![None; PARTITIONS as usize],
            groups: self.history.fold(view, index, cut),
        })
    }

    pub(super) fn make_live(&mut self, generation: usize, version: usize) {
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

    pub(super) fn new_generation(&mut self) {
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

    pub(super) fn retire(&mut self) {
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

    pub(super) fn pick_replica(&mut self) -> PartitionId {
        let ids: Vec<PartitionId> = self.replicas.keys().copied().collect();
        choose(&mut self.rng, &ids)
    }

    pub(super) fn generation_of(&self, id: PartitionId) -> usize {
        let of =
            |generation: &&usize| self.views(**generation).iter().any(|view| view.fingerprint == id.view);
        *self.generations.iter().find(of).expect("a live view has a generation")
    }

    pub(super) fn newest_published(&self, id: PartitionId) -> usize {
        let generation = self.generation_of(id);
        let versions = self.published.iter().filter(|(g, _)| *g == generation).map(|(_, k)| *k);
        versions.max().expect("a live view version is published")
    }

    pub(super) fn lose(&mut self) {
        let id = self.pick_replica();
        let version = self.newest_published(id);
        let replica = self.replicas.get_mut(&id).expect("picked");
        if replica.state.take().is_some() {
            replica.pending.clear();
            self.rebuilding.push((id, version));
            self.count("view partition lost");
        }
    }

    pub(super) fn rebuild(&mut self, chance: f64) {
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
    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        let id = self.pick_replica();
        self.commit_one(id)
    }

    pub(super) fn commit_one(&mut self, id: PartitionId) -> Result<(), Failure> {
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
    pub(super) fn fail_over(&mut self) {
        let id = self.pick_replica();
        let replica = self.replicas.get_mut(&id).expect("picked");
        let keep = self.rng.random_range(0..=replica.pending.len());
        replica.pending.truncate(keep);
        self.count("unreplicated entries lost");
    }

    pub(super) fn archive(&mut self) {
        let size = self.declared.source.segments().size();
        let partition = self.rng.random_range(0..PARTITIONS);
        let archived = &mut self.archived[partition as usize];
        *archived = self.rng.random_range(*archived / size..=self.history.end(partition) / size) * size;
    }

    pub(super) fn cut(&mut self) {
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

    pub(super) fn publish(&mut self) {
        let version = self.rng.random_range(0..self.cuts.len());
        let lowest = self.replicas.values().filter_map(|r| r.state.as_ref()).map(|s| s.version()).min();
        if version as u64 >= lowest.unwrap_or(0) {
            for generation in self.generations.clone() {
                self.published.insert((generation, version));
            }
        }
    }

    pub(super) fn adopt(&mut self) {
        let id = self.pick_replica();
        let version = self.newest_published(id);
        let Some(held) = self.replicas[&id].state.as_ref().map(|state| state.version()) else { return };
        let view = self.replicas[&id].view.clone();
        let block = self.block(&view, id.index, version);
        // What is under way may change what it stands on.
        let entry = if self.rng.random_bool(0.5) {
            let mut added = (*block).clone();
            added.groups.retract(&self.block(&view, id.index, held as usize).groups);
            Entry::Extend(Extension { of: held, added: Arc::new(added) })
        } else {
            Entry::Adopt(block)
        };
        self.replicas.get_mut(&id).expect("picked").pending.push_back((entry, None));
    }

    /// Everything that is up adopts the newest cut and the floor follows, so
    /// that only what is pinned keeps older offsets readable.
    pub(super) fn advance_all(&mut self) -> Result<(), Failure> {
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
    pub(super) fn floor(&self, partition: u32) -> u64 {
        let held = self.replicas.values().filter_map(|r| r.state.as_ref()).map(|s| s.version() as usize);
        let pinned = self.rebuilding.iter().map(|(_, version)| *version);
        let backfill = self.backfill.iter().map(|(_, version)| *version);
        let versions = held.chain(pinned).chain(backfill);
        versions.map(|version| self.cuts[version][partition as usize]).min().unwrap_or(0)
    }

    pub(super) fn collapse(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let floor = self.floor(partition);
        let id = self.current[partition as usize];
        self.actor(id).worker.collapse(floor).expect("memory does not fail");
    }
}
