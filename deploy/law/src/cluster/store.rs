//! The cluster's view partitions as the layers of one node reach them: writes go to the primary,
//! reads to any replica in sync, a second one when the first is slow. The waits and the order of
//! things are those of `common/cluster/src/store.rs`.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures::future::{Either, select};
use sanso_cluster::wire;
use sanso_core::cluster::{Answer, Instance, NodeId, Read};
use sanso_core::{
    BlockPart, Encoded, PartitionId, Progress, ReadReply, ReadRequest, Staging, Write, Written, home_of,
};
use sanso_state::{AggregateKind, Entry, Groups, Offset, Outcome};

use super::process::{Asked, Process, Promise, Question, Reply, Route, Wish};

const WRITE_MAX_US: u64 = 5_000_000;
const READ_MAX_US: u64 = 5_000_000;
const CALL_MAX_US: u64 = 1_000_000;
const BETTER_MAX_US: u64 = 40_000;
const ALONE_US: u64 = 500_000;
const LOOK_US: u64 = 25_000;
const PAUSE_US: u64 = 5_000;
/// A block of more groups is written in parts, of this many.
const PART_GROUPS: usize = 2;
const TRIES: usize = 3;

/// Why the store could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    NotLive,
    Unreachable,
}

impl Process {
    /// Submits an entry to a view partition.
    pub(super) async fn enter(
        &self,
        id: PartitionId,
        entry: Entry,
        kinds: &Arc<[AggregateKind]>,
    ) -> Result<Outcome, Failed> {
        match self.write_block(id, Write::Enter(id, entry), kinds).await? {
            Written::Entered(outcome) => Ok(outcome),
            _ => Err(Failed::NotLive),
        }
    }

    /// Writes, in parts where it is a block with more groups than one has.
    pub(super) async fn write_block(
        &self,
        id: PartitionId,
        write: Write,
        kinds: &Arc<[AggregateKind]>,
    ) -> Result<Written, Failed> {
        let block = write.block().map(|(_, block)| Arc::clone(block));
        let Some(block) = block.filter(|block| block.groups.len() > PART_GROUPS) else {
            return self.write(id, wire::write(write, kinds)).await;
        };
        let rest = write.with_groups(Groups::new()).expect("it brings a block");
        for _ in 0..TRIES {
            match self.write_in_parts(id, &block.groups, &rest, kinds).await? {
                Written::NotStaged => self.wish(Wish::Moment("staged anew", self.me.node)),
                written => return Ok(written),
            }
        }
        Err(Failed::Unreachable)
    }

    async fn write_in_parts(
        &self,
        id: PartitionId,
        groups: &Groups,
        rest: &Write,
        kinds: &Arc<[AggregateKind]>,
    ) -> Result<Written, Failed> {
        let of = Staging { writer: self.me, number: self.stagings.replace(self.stagings.get() + 1) };
        let (mut left, mut number) = (groups.parts(), 0);
        while let Some(groups) = left.take(PART_GROUPS) {
            let part = BlockPart { of, number, kinds: Arc::clone(kinds), groups };
            match self.write(id, wire::write(Write::Stage(id, part), kinds)).await? {
                Written::Staged => number += 1,
                written => return Ok(written),
            }
            self.wish(Wish::Moment("staged", self.me.node));
        }
        let whole = Write::WithStaged { of, parts: number, write: Box::new(rest.clone()) };
        self.write(id, wire::write(whole, kinds)).await
    }

    /// Writes to whoever is the primary, until it is known what became of it.
    pub(super) async fn write(&self, id: PartitionId, write: Encoded) -> Result<Written, Failed> {
        let deadline_us = self.now_us() + WRITE_MAX_US;
        let mut turn = 0;
        while self.now_us() < deadline_us {
            let map = self.map();
            let partition = home_of(id, map.partitions.len() as u32);
            let primary = map.assignment(partition).primary.map(|primary| primary.instance);
            if let Some(primary) = primary {
                turn += 1;
                let own = primary == self.me;
                let by = if own { None } else { self.detour(primary, turn).await };
                let (answer, route) = (Promise::new(), Route { primary: primary.node, by });
                self.wish(Wish::Submit(route, partition, write.clone(), answer.clone()));
                let until_us = if own { deadline_us } else { self.now_us() + CALL_MAX_US };
                // One who waits on a primary that is lost goes on as soon as there is another.
                let moved = self.until_map(|map| {
                    let now = map.partitions.get(partition.0 as usize).and_then(|now| now.primary);
                    !own && now.is_some_and(|now| now.instance != primary)
                });
                let unheard = self.until_detour(primary, !own && by.is_none());
                let moved = select(Box::pin(moved), Box::pin(unheard));
                match self.by(select(answer, moved), until_us).await {
                    Some(Either::Left((Answer::Done { outcome, .. }, _))) => return Ok(outcome),
                    Some(Either::Right(_)) => continue,
                    _ => {}
                }
            }
            // Until the map changes, or a little while has passed.
            let version = map.version;
            let _ = self.by(self.until_map(|map| map.version != version), self.now_us() + PAUSE_US).await;
        }
        Err(Failed::Unreachable)
    }

    /// Returns whom to ask in the stead of a node that this one doesn't hear.
    async fn detour(&self, to: Instance, turn: usize) -> Option<NodeId> {
        let answer = Promise::new();
        self.wish(Wish::Detour(to, turn, answer.clone()));
        answer.await
    }

    /// Resolves when a node is not heard any longer, and another one may reach it; never where that
    /// is not of interest.
    async fn until_detour(&self, to: Instance, looks: bool) {
        while !looks || self.detour(to, 0).await.is_none() {
            self.sleep(if looks { LOOK_US } else { WRITE_MAX_US }).await;
        }
    }

    /// Reads from a view partition for someone who has seen offsets of it.
    pub(super) async fn read(
        &self,
        id: PartitionId,
        request: ReadRequest,
        seen: &[Offset],
    ) -> Result<ReadReply, Failed> {
        match self.ask(id, Question::Read(request), seen).await? {
            Reply::Read(reply, _) => Ok(reply),
            _ => Err(Failed::NotLive),
        }
    }

    /// Returns how far a view partition has come.
    pub(super) async fn progress(&self, id: PartitionId) -> Result<Progress, Failed> {
        Ok(self.read(id, ReadRequest::Progress, &[]).await?.progress)
    }

    /// Asks replicas until one answers well; in the worst case gives the best answer there was.
    pub(super) async fn ask(
        &self,
        id: PartitionId,
        question: Question,
        seen: &[Offset],
    ) -> Result<Reply, Failed> {
        let known = self.until_map(|map| map.version > 0);
        self.by(known, self.now_us() + READ_MAX_US).await.ok_or(Failed::Unreachable)?;
        let partition = home_of(id, self.map().partitions.len() as u32);
        let own = Promise::new();
        self.wish(Wish::Own(Asked { partition, id, question: question.clone() }, own.clone()));
        let mine = own.await;
        let alone = matches!(mine, Reply::Read(..)) && self.now_us() < self.alone_until_us.get();
        if alone || mine.is_good() {
            return Ok(mine);
        }
        let (read, first) = self.hedger.borrow_mut().begin(&self.map(), partition, self.now_us());
        let began_us = self.now_us();
        let inquiry = Inquiry { read, under_way: VecDeque::new(), best: None, id, question, seen, began_us };
        inquiry.run(self, mine, first).await
    }
}

/// A read that other replicas are asked for.
struct Inquiry<'a> {
    read: Read,
    under_way: VecDeque<(NodeId, u64, Promise<Option<Reply>>)>,
    best: Option<Reply>,
    id: PartitionId,
    question: Question,
    seen: &'a [Offset],
    began_us: u64,
}

impl Inquiry<'_> {
    async fn run(mut self, process: &Process, mine: Reply, first: Option<NodeId>) -> Result<Reply, Failed> {
        self.best = matches!(mine, Reply::Read(..)).then_some(mine);
        let mut next = first;
        loop {
            if let Some(node) = next.take() {
                self.ask_one(process, node);
            }
            let due_us = self.read.due_us();
            let answered = process.by(self.answered(process), due_us).await;
            let map = process.map();
            let mut hedger = process.hedger.borrow_mut();
            if let Some((node, reply)) = answered {
                match reply {
                    Some(reply) if reply.is_good() => return Ok(reply),
                    Some(reply @ Reply::Read(..))
                        if !self.best.as_ref().is_some_and(|best| self.suffices(best)) =>
                    {
                        self.best = Some(reply);
                    }
                    _ => {}
                }
                next = hedger.refused(&mut self.read, &map, node, process.now_us());
            } else {
                let waited_us = process.now_us() - self.began_us;
                let had_time = self.under_way.is_empty() || waited_us >= BETTER_MAX_US;
                if had_time && !process.is_in_touch() {
                    process.alone_until_us.set(process.now_us() + ALONE_US);
                    return self.best.ok_or(Failed::Unreachable);
                }
                if had_time && self.best.as_ref().is_some_and(|best| self.suffices(best)) {
                    return self.best.ok_or(Failed::Unreachable);
                }
                next = hedger.due(&mut self.read, &map, process.now_us());
            }
            if process.now_us() - self.began_us > READ_MAX_US {
                return self.best.ok_or(Failed::Unreachable);
            }
        }
    }

    /// Asks one replica, and takes note of its answer also when nobody waits for it any longer.
    fn ask_one(&mut self, process: &Process, node: NodeId) {
        let partition = self.read.partition();
        let asked = Asked { partition, id: self.id, question: self.question.clone() };
        let answer = Promise::new();
        self.under_way.push_back((node, process.now_us() + CALL_MAX_US, answer.clone()));
        let (hedger, read) = (Rc::clone(&process.hedger), self.read.clone());
        let take = move |reply: Option<Reply>, now_us| {
            if reply.as_ref().is_some_and(Reply::is_good) {
                hedger.borrow_mut().answered(&read, node, now_us);
            } else {
                hedger.borrow_mut().gave_up(node);
            }
            answer.fill(reply);
        };
        process.wish(Wish::Ask(node, asked, Box::new(take)));
    }

    fn suffices(&self, reply: &Reply) -> bool {
        matches!(reply, Reply::Read(reply, _) if reply.progress.covers(self.seen))
    }

    /// Waits for the next answer of any node that was asked.
    async fn answered(&mut self, process: &Process) -> (NodeId, Option<Reply>) {
        let under_way = &mut self.under_way;
        std::future::poll_fn(|context| {
            for at in 0..under_way.len() {
                let (node, until_us, answer) = &mut under_way[at];
                let node = *node;
                if let Poll::Ready(reply) = Pin::new(answer).poll(context) {
                    under_way.remove(at);
                    return Poll::Ready((node, reply));
                }
                if process.now_us() >= *until_us {
                    under_way.remove(at);
                    return Poll::Ready((node, None));
                }
            }
            Poll::Pending
        })
        .await
    }
}
