//! The speed layer on one node: for each log partition a task that drives the real worker as
//! `speed-layer/src/session.rs` does, as long as the map says that this node feeds or follows it.

use std::rc::Rc;
use std::sync::Arc;

use futures::future::select_all;
use sanso_catalog::Share;
use sanso_cluster::owners;
use sanso_core::PartitionId;
use sanso_core::cluster::ClusterMap;
use sanso_core::cluster::sim::GUESTS_TO_US;
use sanso_speed::{Answer, Chunk, TargetStart, Turn, Worker};
use sanso_state::{Delta, Entry, LogPartition, Offset, Outcome};
use sanso_view::{Source, View};

use super::mutant::Mutant;
use super::outside::Disk;
use super::process::{Process, Wish};
use super::store::Failed;
use crate::history::PARTITIONS;

const FLUSH_US: u64 = 50_000;
const HEARTBEAT_US: u64 = 1_000_000;
const COLLAPSE_US: u64 = 700_000;
const RETRY_US: u64 = 500_000;
const CHUNK_MAX: u64 = 24;
const QUEUE_MAX: usize = 6;

/// What a worker's task is given.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) process: Rc<Process>,
    pub(super) source: Arc<Source>,
    pub(super) views: Rc<[Arc<View>]>,
    pub(super) partition: u32,
    pub(super) mutant: Option<Mutant>,
}

impl Work {
    /// Works whenever the map says so.
    pub(super) async fn run(self) {
        loop {
            self.process.until_map(|map| self.share(map).is_some()).await;
            if self.session().await.is_err() {
                self.process.sleep(RETRY_US).await;
            }
        }
    }

    fn share(&self, map: &ClusterMap) -> Option<Share> {
        let jobs: Vec<u32> = (0..PARTITIONS).collect();
        let weight = |job: &u32, node| owners::weight(&self.source.name, *job, node);
        let nodes = owners::usable(map, |_| true);
        let both = owners::assign_with_followers(&jobs, &nodes, weight);
        let (feeds, follows) = *both.get(&self.partition)?;
        let me = self.process.me.node;
        if feeds == me {
            return Some(Share::Feeds);
        }
        (follows == Some(me)).then_some(Share::Follows)
    }

    async fn session(&self) -> Result<(), Failed> {
        let (node, l) = (self.process.me.node.0, self.partition);
        let disk = self.process.outside(move |outside| outside.disk(node, l)).await;
        if disk.is_empty() {
            let base = self.base_cut().await?.unwrap_or(Offset::MAX);
            let built = self.process.outside(move |outside| outside.rebuild(l, base)).await;
            disk.replace(built);
        }
        let worker = Worker::new(Arc::clone(&self.source), LogPartition(l), disk.clone(), QUEUE_MAX);
        let now_us = self.process.now_us();
        let session = Session {
            work: self,
            worker,
            disk,
            live: Vec::new(),
            unresolved: true,
            followed: None,
            turn: Turn::default(),
            unflushed: 0,
            first_unflushed_us: now_us,
            end: 0,
            last_flush_us: now_us,
            last_heartbeat_us: now_us,
            last_collapse_us: now_us,
            collapse_to: None,
        };
        session.run().await
    }

    fn ids(&self) -> impl Iterator<Item = (Arc<View>, PartitionId)> {
        let views = self.views.iter();
        views.flat_map(|view| {
            let id = |index| PartitionId { view: view.fingerprint, index };
            (0..view.partitions).map(move |index| (Arc::clone(view), id(index)))
        })
    }

    async fn submit(&self, id: PartitionId, delta: Delta) -> Result<Outcome, Failed> {
        let view = self.views.iter().find(|view| view.fingerprint == id.view);
        let kinds = Arc::clone(&view.expect("the targets are those of the views").kinds);
        let outcome = self.process.enter(id, Entry::Delta(delta.clone()), &kinds).await?;
        if let (Some(Mutant::DeltaMoved), Outcome::Refused { applied, .. }) = (self.mutant, &outcome) {
            let size = self.source.segments().size();
            if delta.to > *applied && applied / size == (delta.to - 1) / size {
                let moved = Delta { from: *applied, ..delta };
                return Ok(self.process.enter(id, Entry::Delta(moved), &kinds).await.unwrap_or(outcome));
            }
        }
        Ok(outcome)
    }

    /// Returns the lowest base cut of the view partitions, none where there are none.
    async fn base_cut(&self) -> Result<Option<Offset>, Failed> {
        let mut least = None;
        for (_, id) in self.ids() {
            let cut = match self.process.progress(id).await {
                Ok(progress) => progress.cut.at(LogPartition(self.partition)),
                Err(Failed::NotLive) => continue,
                Err(unreachable) => return Err(unreachable),
            };
            least = Some(least.map_or(cut, |least: Offset| least.min(cut)));
        }
        Ok(least)
    }
}

/// One run of a worker from what is on the disk.
struct Session<'a> {
    work: &'a Work,
    worker: Worker<Disk>,
    disk: Disk,
    live: Vec<TargetStart>,
    unresolved: bool,
    /// The share that the targets were taken for.
    followed: Option<Share>,
    turn: Turn,
    unflushed: u64,
    first_unflushed_us: u64,
    end: Offset,
    last_flush_us: u64,
    last_heartbeat_us: u64,
    last_collapse_us: u64,
    collapse_to: Option<Offset>,
}

impl Session<'_> {
    async fn run(mut self) -> Result<(), Failed> {
        let process = &self.work.process;
        loop {
            let share = self.work.share(&process.map());
            if share.is_none() && !self.turn.with(None).feeds() {
                break;
            }
            if self.followed != share || self.unresolved {
                self.follow(share).await;
            }
            let head = self.read_and_feed(self.worker.next_read_offset()).await;
            let read = match self.worker.behind() {
                Some(behind) => head + self.read_and_feed(behind).await,
                None => head,
            };
            self.flush_if_due(read);
            self.send().await;
            self.heartbeat().await;
            self.collapse().await?;
            if self.worker.next_read_offset() >= self.end && read == 0 {
                self.wait().await;
            }
        }
        self.worker.flush();
        self.send().await;
        Ok(())
    }

    /// Takes the view partitions as targets, if this worker feeds them.
    async fn follow(&mut self, share: Option<Share>) {
        let mut live = Vec::new();
        self.unresolved = false;
        self.turn = self.turn.with(share);
        let feeds = self.turn.feeds();
        for (view, id) in self.work.ids().filter(|_| feeds) {
            match self.work.process.progress(id).await {
                Ok(progress) => {
                    let applied = progress.applied[self.work.partition as usize];
                    live.push(TargetStart { view, index: id.index, applied });
                }
                Err(_) => self.unresolved = true,
            }
        }
        if share == Some(Share::Feeds) && self.followed != share {
            self.work.process.wish(Wish::Moment("fed", self.work.process.me.node));
        }
        self.followed = share;
        self.live = live;
        self.worker.targets_changed(self.live.clone());
    }

    async fn read_and_feed(&mut self, from: Offset) -> u64 {
        let l = self.work.partition;
        let read = self.work.process.outside(move |outside| {
            let end = outside.history.end(l);
            let to = end.min(from + CHUNK_MAX);
            (outside.history.chunk(l, from, to.max(from)), end)
        });
        let (chunk, end): (Chunk, Offset) = read.await;
        self.end = end;
        let offsets = chunk.to - chunk.from;
        if offsets > 0 {
            // What is refused is looked at in the law without a cluster.
            let fed = self.worker.feed(&chunk, &mut Vec::new());
            fed.unwrap_or_else(|error| panic!("memory does not fail: {error}"));
            if self.unflushed == 0 {
                self.first_unflushed_us = self.work.process.now_us();
            }
            self.unflushed += offsets;
        }
        offsets
    }

    fn gathers_since_us(&self) -> u64 {
        self.turn.gathers_since(self.last_flush_us, self.first_unflushed_us)
    }

    fn flush_if_due(&mut self, read: u64) {
        let rested = self.work.process.now_us() >= self.gathers_since_us() + FLUSH_US;
        let caught_up = self.worker.next_read_offset() >= self.end;
        if self.unflushed > 0 && rested && (caught_up || read > 0) {
            self.worker.flush();
            self.unflushed = 0;
            self.last_flush_us = self.work.process.now_us();
        }
    }

    /// Sends the closed deltas, each target's one after the other.
    async fn send(&mut self) {
        let ids = self.worker.targets().into_iter();
        let heads = ids.filter_map(|id| Some((id, self.head(id)?))).collect();
        self.submit(heads, Self::head).await;
    }

    /// Returns the closed delta that a target waits for.
    fn head(&self, id: PartitionId) -> Option<Delta> {
        let mut delta = self.worker.outgoing(id).next().cloned()?;
        if self.work.mutant == Some(Mutant::DeltaKept) {
            let before = self.disk.sent.borrow_mut().insert(id, delta.clone());
            // What an earlier feeder had under way.
            if let Some(before) = before.filter(|before| before.to > delta.from) {
                delta.groups.combine(&before.groups);
            }
        }
        Some(delta)
    }

    /// Submits deltas to their targets at once, and to each that moved on what is `then` to be sent.
    async fn submit(
        &mut self,
        deltas: Vec<(PartitionId, Delta)>,
        then: impl Fn(&Self, PartitionId) -> Option<Delta>,
    ) {
        let work = self.work;
        // Not `FuturesUnordered`: tasks are polled here without being woken, and all that they wait for is.
        let submit = |(id, delta)| Box::pin(async move { (id, work.submit(id, delta).await) });
        let mut submitted: Vec<_> = deltas.into_iter().map(submit).collect();
        while !submitted.is_empty() {
            let ((id, outcome), _, rest) = select_all(submitted).await;
            submitted = rest;
            if self.answered(id, outcome) {
                submitted.extend(then(self, id).map(|delta| submit((id, delta))));
            }
        }
    }

    /// Takes the answer of a target; says whether it moved on.
    fn answered(&mut self, id: PartitionId, outcome: Result<Outcome, Failed>) -> bool {
        let process = &self.work.process;
        let Ok(outcome) = outcome else {
            self.drop_target(id);
            return false;
        };
        if self.work.mutant == Some(Mutant::RefusalIgnored) && matches!(outcome, Outcome::Refused { .. }) {
            return false;
        }
        match self.worker.on_outcome(id, &outcome) {
            Answer::Advanced => true,
            Answer::Invalid(reason) => {
                process
                    .wish(Wish::Broken(format!("{id} takes a delta of {} for ever: {reason}", process.me)));
                false
            }
            Answer::Resumed(_) => {
                process.wish(Wish::Moment("resumed", process.me.node));
                if self.turn.refused() != self.turn {
                    process.wish(Wish::Moment("handed over", process.me.node));
                    self.turn = self.turn.refused();
                    self.drop_target(id);
                }
                false
            }
            Answer::Ignored => false,
        }
    }

    /// Drops a target until the view partitions are looked at again.
    fn drop_target(&mut self, id: PartitionId) {
        self.live.retain(|target| target.id() != id);
        self.worker.targets_changed(self.live.clone());
        self.unresolved = true;
    }

    async fn heartbeat(&mut self) {
        let now_us = self.work.process.now_us();
        if now_us < self.last_heartbeat_us + HEARTBEAT_US || now_us >= GUESTS_TO_US {
            return;
        }
        self.last_heartbeat_us = self.work.process.now_us();
        let ids = self.worker.targets().into_iter();
        let deltas = ids.filter_map(|id| Some((id, self.worker.heartbeat(id)?))).collect();
        self.submit(deltas, |_, _| None).await;
    }

    async fn collapse(&mut self) -> Result<(), Failed> {
        if self.work.process.now_us() < self.last_collapse_us + COLLAPSE_US || self.unresolved {
            return Ok(());
        }
        self.last_collapse_us = self.work.process.now_us();
        if let Some(floor) = self.collapse_to {
            self.worker.collapse(floor).unwrap_or_else(|error| panic!("memory does not fail: {error}"));
        }
        self.collapse_to = self.work.base_cut().await.unwrap_or(None);
        Ok(())
    }

    /// Waits for records, a newer map, or the next deadline.
    async fn wait(&mut self) {
        let process = &self.work.process;
        let mut until_us = self.last_heartbeat_us + HEARTBEAT_US;
        if self.unflushed > 0 {
            until_us = until_us.min(self.gathers_since_us() + FLUSH_US);
        }
        if self.unresolved {
            until_us = until_us.min(process.now_us() + FLUSH_US);
        }
        process.beyond(self.work.partition, self.worker.next_read_offset(), until_us).await;
    }
}
