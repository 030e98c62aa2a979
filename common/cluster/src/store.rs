//! The cluster's view partitions, for the layers: writes go to the primary, reads to any replica in
//! sync, a second one when the first is slow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use sanso_core::cluster::{ClusterMap, NodeId, Partition, Read};
use sanso_core::{
    Change, Encoded, PartitionId, Partitions, ReadReply, ReadRequest, Readable, StoreError, Write, home_of,
};
use sanso_state::{
    AggregateKind, Block, Entry, Fingerprint, Groups, Offset, Outcome, SegmentId, ViewPartitionConfig,
};
use serde_bytes::ByteBuf;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::engine::Engine;
use crate::figures::{HEDGED, REFUSED};
use crate::hub::{GROUP_BYTES, Hub, READ, SUBMIT, at_length, is_good};
use crate::relay::{RELAY, until_detour};
use crate::wire::{self, Question, ReadAnswer, ReadCall, Reply, SubmitAnswer, SubmitCall};

/// How long a write is tried; longer than a failover takes.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long a read is tried.
const READ_MAX: Duration = Duration::from_secs(5);
/// How long one node may take over a write before another way is tried.
const CALL_MAX: Duration = Duration::from_secs(1);
/// What a write may take longer for each of its bytes: whole blocks are sent, and sent on, and kept. Of
/// a primary that is lost in the meantime the map tells.
pub(crate) const WRITE_BYTE: Duration = Duration::from_nanos(100);
/// How long a better answer is waited for, once there is one of a replica that can't know whether it
/// has everything.
const BETTER_MAX: Duration = Duration::from_millis(40);
/// For how long no better answer is looked for after there was none.
const ALONE: Duration = Duration::from_millis(500);
/// How long this node's own disk may take over some keys before others are asked, too.
const DISK_MAX: Duration = Duration::from_millis(100);
/// Before a write is tried again where nothing has changed.
const PAUSE: Duration = Duration::from_millis(5);

/// What is asked of a view partition.
struct Asked<'a> {
    id: PartitionId,
    question: Arc<Question>,
    /// Offsets that the asker has seen of it.
    seen: &'a [Offset],
}

/// What this node's own replica says.
enum Mine {
    Said(Reply),
    /// It takes long.
    Reading(JoinHandle<Reply>),
}

/// The view partitions of a cluster.
pub(crate) struct ClusterStore(pub(crate) Arc<Hub>);

impl ClusterStore {
    /// Returns the engine and the newest map, once there is one.
    pub(crate) async fn ready(&self, id: PartitionId) -> Result<(&Arc<Engine>, Arc<ClusterMap>), StoreError> {
        let unreachable = |reason: &str| StoreError::Unreachable { id, reason: reason.to_owned() };
        let engine = self.0.engine().ok_or_else(|| unreachable("this node starts"))?;
        let mut maps = engine.maps();
        let known = tokio::time::timeout(READ_MAX, maps.wait_for(|map| map.version > 0)).await;
        let map = known.ok().and_then(Result::ok).map(|map| Arc::clone(&map));
        Ok((engine, map.ok_or_else(|| unreachable("this node is in touch with no cluster"))?))
    }

    /// Adds a view partition, unless it is there.
    pub(crate) async fn create(
        &self,
        id: PartitionId,
        config: ViewPartitionConfig,
        base: Arc<Block>,
    ) -> Result<(), StoreError> {
        let kinds = Arc::clone(&config.kinds);
        self.write_block(Write::Create { id, config, base }, &kinds).await.map(|_| ())
    }

    /// Removes all partitions of a view version.
    pub(crate) async fn remove(&self, view: Fingerprint) -> Result<(), StoreError> {
        let (_, map) = self.ready(PartitionId { view, index: 0 }).await?;
        for index in 0..map.partitions.len() as u32 {
            self.write(PartitionId { view, index }, self.encoded(Write::Remove(view), 0, &[])).await?;
        }
        Ok(())
    }

    /// Encodes a write with so many groups, if it is sent to anybody.
    pub(crate) fn encoded(&self, write: Write, groups: usize, kinds: &[AggregateKind]) -> Encoded {
        if self.0.is_alone {
            return Encoded::unsent(write);
        }
        at_length(groups * GROUP_BYTES, || wire::write(write, kinds))
    }

    /// Writes to whoever is the primary, until it is known what became of it. What was accepted by
    /// a primary that is gone is written again: writes compare and apply.
    pub(crate) async fn write(&self, id: PartitionId, write: Encoded) -> Result<SubmitAnswer, StoreError> {
        let heavy = WRITE_BYTE * write.bytes().len() as u32;
        let deadline = Instant::now() + WRITE_MAX + heavy;
        let (engine, map) = self.ready(id).await?;
        let partition = home_of(id, map.partitions.len() as u32);
        let mut maps = engine.maps();
        let mut last = "no primary is known".to_owned();
        let mut turn = 0;
        while Instant::now() < deadline {
            let map = maps.borrow_and_update().clone();
            let primary = map.partitions.get(partition.0 as usize).and_then(|assignment| assignment.primary);
            let answer = match primary.map(|primary| primary.instance) {
                None => SubmitAnswer::NotPrimary,
                Some(primary) if primary.node == self.0.me => {
                    let answered = timeout_at(deadline, engine.submit(partition, write.clone())).await;
                    answered.map_or(SubmitAnswer::Unknown, SubmitAnswer::from)
                }
                Some(primary) => {
                    let call = SubmitCall { partition, write: ByteBuf::from(write.bytes().to_vec()) };
                    turn += 1;
                    let detour = engine.detour(primary, turn);
                    let (node, kind) = detour.map_or((primary.node, SUBMIT), |by| (by, RELAY));
                    // One who waits on a primary that is lost goes on as soon as there is another.
                    let asked = self.0.ask(node, kind, wire::encode(&call), CALL_MAX + heavy);
                    let moved = maps.wait_for(|map| {
                        let now = map.partitions.get(partition.0 as usize).and_then(|now| now.primary);
                        now.is_some_and(|now| now.instance != primary)
                    });
                    tokio::select! {
                        answer = asked => match answer.map_err(|error| error.to_string()).and_then(|bytes| {
                            wire::decode(&bytes).map_err(|error| error.to_string())
                        }) {
                            Ok(answer) => answer,
                            Err(error) => {
                                last = format!("{node}: {error}");
                                SubmitAnswer::Unknown
                            }
                        },
                        _ = moved => continue,
                        () = until_detour(engine, primary), if detour.is_none() => continue,
                    }
                }
            };
            let reason = match answer {
                SubmitAnswer::NotPrimary => "not_primary",
                SubmitAnswer::Busy => "busy",
                SubmitAnswer::Unknown => "unknown",
                known => return Ok(known),
            };
            metrics::counter!(REFUSED, "reason" => reason).increment(1);
            // Until the map changes, or a little while has passed.
            let _ = tokio::time::timeout(PAUSE, maps.changed()).await;
        }
        metrics::counter!(REFUSED, "reason" => "gave_up").increment(1);
        Err(StoreError::Unreachable { id, reason: last })
    }

    /// Asks replicas until one answers well; in the worst case gives the best answer there was. One
    /// that lacks what the asker has seen counts only when this node is cut off from better ones.
    async fn ask(&self, asked: Asked<'_>) -> Result<Reply, StoreError> {
        let Asked { id, .. } = asked;
        let (engine, map) = self.ready(id).await?;
        let partition = home_of(id, map.partitions.len() as u32);
        let mine = match engine.answer_now(partition, id, &asked.question) {
            Some(mine) => Mine::Said(mine),
            None => self.read_apart(engine, partition, &asked).await,
        };
        let is_alone = now_us() < self.0.alone_until_us.load(Ordering::Relaxed);
        match mine {
            Mine::Said(mine) if is_good(&mine) || is_alone && matches!(mine, Reply::Read(..)) => Ok(mine),
            mine => self.ask_others(engine, partition, asked, mine).await,
        }
    }

    /// Answers from this node, on a thread apart. What is scanned takes its time whoever does it; keys are waited for a
    /// little.
    async fn read_apart(&self, engine: &Arc<Engine>, partition: Partition, asked: &Asked<'_>) -> Mine {
        let (hub, engine) = (Arc::clone(&self.0), Arc::clone(engine));
        let (id, question) = (asked.id, Arc::clone(&asked.question));
        let is_scan = matches!(*question, Question::Read(ReadRequest::Scan { .. }));
        let mut reading =
            tokio::spawn(async move { hub.answer_apart(&engine, partition, id, question).await });
        let said = match is_scan {
            true => Ok((&mut reading).await),
            false => timeout(DISK_MAX, &mut reading).await,
        };
        said.map_or(Mine::Reading(reading), |said| Mine::Said(said.unwrap_or(Reply::NotInSync)))
    }

    async fn ask_others(
        &self,
        engine: &Engine,
        partition: Partition,
        Asked { id, question, seen }: Asked<'_>,
        mine: Mine,
    ) -> Result<Reply, StoreError> {
        let body: Arc<[u8]> = wire::encode(&ReadCall::of(id, &question)).into();
        let (replies, mut received) = mpsc::channel(16);
        let began = Instant::now();
        let suffices = |reply: &Reply| matches!(reply, Reply::Read(reply, _) if reply.progress.covers(seen));
        let maps = engine.maps();
        let (mut read, first) = self.hedged(|hedger, now_us| hedger.begin(&maps.borrow(), partition, now_us));
        let mut next = first;
        // A long read is long at whoever is asked twice, too.
        let mut owing = BTreeSet::new();
        let mut best = match mine {
            Mine::Said(mine) => matches!(mine, Reply::Read(..)).then_some(mine),
            Mine::Reading(reading) => {
                let (me, replies) = (self.0.me, replies.clone());
                owing.insert(me);
                // An error only says that another has answered before.
                tokio::spawn(async move { drop(replies.send((me, reading.await.ok())).await) });
                None
            }
        };
        loop {
            if let Some(node) = next.take().filter(|node| owing.insert(*node)) {
                self.ask_one(node, &read, Arc::clone(&body), replies.clone());
            }
            let due = at(read.due_us());
            tokio::select! {
                reply = received.recv() => {
                    let (node, reply) = reply.expect("a sender is kept");
                    owing.remove(&node);
                    match reply {
                        Some(reply) if is_good(&reply) => return Ok(reply),
                        Some(reply @ Reply::Read(..)) if !best.as_ref().is_some_and(suffices) => best = Some(reply),
                        _ => {}
                    }
                    next = self.hedged(|hedger, now_us| hedger.refused(&mut read, &maps.borrow(), node, now_us));
                }
                () = sleep_until(due) => {
                    // One has answered as well as it could, and the others had their time: who is asked
                    // still may be gone.
                    let had_time = owing.is_empty() || began.elapsed() >= BETTER_MAX;
                    // What this node's own disk says is all there will be on one that is cut off.
                    let may_answer = self.is_in_touch() || best.is_none() && owing.contains(&self.0.me);
                    if had_time && !may_answer {
                        // A node that is cut off would else wait for each part of each answer. One that is
                        // not has only this partition to wait for.
                        let until_us = now_us() + ALONE.as_micros() as u64;
                        self.0.alone_until_us.store(until_us, Ordering::Relaxed);
                        let reason = "this node does not hear from its cluster".to_owned();
                        return best.ok_or(StoreError::Unreachable { id, reason });
                    }
                    if had_time && let Some(best) = best.take_if(|best| suffices(best)) {
                        return Ok(best);
                    }
                    next = self.hedged(|hedger, now_us| hedger.due(&mut read, &maps.borrow(), now_us));
                    next = next.filter(|node| !owing.contains(node));
                    if next.is_some() && !owing.is_empty() {
                        metrics::counter!(HEDGED).increment(1);
                    }
                }
            }
            if began.elapsed() > READ_MAX {
                return best.ok_or(StoreError::Unreachable {
                    id,
                    reason: "no replica in sync has answered".to_owned(),
                });
            }
        }
    }

    /// Asks one replica, and takes note of its answer also when nobody waits for it any longer.
    fn ask_one(
        &self,
        node: NodeId,
        read: &Read,
        body: Arc<[u8]>,
        replies: mpsc::Sender<(NodeId, Option<Reply>)>,
    ) {
        let (hub, read) = (Arc::clone(&self.0), read.clone());
        tokio::spawn(async move {
            let reply = if node == hub.me {
                hub.read(&body).await.ok().and_then(|answer| answer.reply().ok())
            } else {
                let answer = hub.ask(node, READ, body.to_vec(), READ_MAX).await.ok();
                answer.and_then(|bytes| {
                    let decoded = || wire::decode::<ReadAnswer>(&bytes).ok()?.reply().ok();
                    at_length(bytes.len(), decoded)
                })
            };
            let store = ClusterStore(hub);
            if reply.as_ref().is_some_and(is_good) {
                store.hedged(|hedger, now_us| hedger.answered(&read, node, now_us));
            } else {
                store.hedged(|hedger, _| hedger.gave_up(node));
            }
            // An error only says that another has answered before.
            let _ = replies.send((node, reply)).await;
        });
    }

    fn hedged<T>(&self, act: impl FnOnce(&mut sanso_core::cluster::Hedger, u64) -> T) -> T {
        act(&mut self.0.hedger.lock(), now_us())
    }

    fn kinds(&self, id: PartitionId) -> Result<Arc<[AggregateKind]>, StoreError> {
        (self.0.kinds_of)(id.view).ok_or(StoreError::NotLive(id))
    }
}

/// Returns all view partitions of some replicas, in order.
fn listed(replicas: impl IntoIterator<Item = Readable>) -> Vec<(PartitionId, Readable)> {
    let of = |readable: Readable| readable.list().into_iter().map(move |id| (id, readable.clone()));
    let mut all: Vec<_> = replicas.into_iter().flat_map(of).collect();
    all.sort_by_key(|(id, _)| *id);
    all
}

/// Microseconds since the first call.
fn now_us() -> u64 {
    epoch().elapsed().as_micros() as u64 + 1
}

fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn at(at_us: u64) -> Instant {
    epoch() + Duration::from_micros(at_us)
}

#[async_trait]
impl Partitions for ClusterStore {
    async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError> {
        let groups = match &entry {
            Entry::Delta(delta) => Some(delta.groups.len()),
            Entry::Rebuild(_, groups) => Some(groups.len()),
            Entry::Adopt(_) | Entry::Extend(_) => None,
        };
        let (kinds, write) = (self.kinds(id)?, Write::Enter(id, entry));
        let answer = match groups {
            Some(groups) => self.write(id, self.encoded(write, groups, &kinds)).await?,
            None => self.write_block(write, &kinds).await?,
        };
        Ok(match answer {
            SubmitAnswer::Accepted { applied } => Outcome::Accepted { applied },
            SubmitAnswer::Refused { from, applied } => Outcome::Refused { from, applied },
            SubmitAnswer::Adopted => Outcome::Adopted,
            SubmitAnswer::Stale => Outcome::Stale,
            SubmitAnswer::Rebuilt => Outcome::Rebuilt,
            SubmitAnswer::NotHeld => Outcome::NotHeld,
            SubmitAnswer::Invalid { reason } => {
                tracing::error!(%id, reason, "the primary refuses an entry for ever");
                Outcome::Invalid("the primary refuses it; its node's log has the reason")
            }
            _ => return Err(StoreError::NotLive(id)),
        })
    }

    async fn read(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        seen: &[Offset],
    ) -> Result<ReadReply, StoreError> {
        match self.ask(Asked { id, question: Arc::new(Question::Read(request.clone())), seen }).await? {
            Reply::Read(reply, _) => Ok(reply),
            _ => Err(StoreError::NotLive(id)),
        }
    }

    fn is_in_touch(&self) -> bool {
        self.0.engine().is_some_and(|engine| engine.with(|node, now_us| node.is_in_touch(now_us)))
    }

    async fn segment(&self, id: PartitionId, segment: SegmentId) -> Result<Option<Groups>, StoreError> {
        match self.ask(Asked { id, question: Arc::new(Question::Segment(segment)), seen: &[] }).await? {
            Reply::Segment(groups) => Ok(groups),
            _ => Err(StoreError::NotLive(id)),
        }
    }

    fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        let unreachable = |reason: &str| StoreError::Unreachable { id, reason: reason.to_owned() };
        let engine = self.0.engine().ok_or_else(|| unreachable("this node starts"))?;
        let (readable, _) = engine
            .readable(engine.home_of(id))
            .ok_or_else(|| unreachable("this node has no replica of it"))?;
        readable.changes(id).ok_or(StoreError::NotLive(id))
    }

    fn emits_here(&self) -> Vec<(PartitionId, Readable)> {
        let Some(engine) = self.0.engine().filter(|_| self.is_in_touch()) else { return Vec::new() };
        listed(engine.held_as_primary())
    }

    fn held_here(&self) -> Vec<(PartitionId, Readable)> {
        let held = self.0.engine().map(|engine| engine.held()).unwrap_or_default();
        listed(held.into_iter().map(|(_, readable)| readable))
    }

    fn groups(&self) -> u64 {
        let held = self.0.engine().map(|engine| engine.held()).unwrap_or_default();
        held.iter().map(|(_, readable)| readable.groups()).sum()
    }
}
