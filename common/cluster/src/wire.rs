//! What nodes say to each other, as bytes: MessagePack with the names of fields.
//!
//! Fields may be added with a default, and variants; none may be removed, renamed or change its
//! meaning. Whoever doesn't know a field passes over it, and drops a message of a kind that it
//! doesn't know, which the core takes for a lost one. So versions next to each other work together;
//! which version two nodes speak is settled when they connect (`Speaker::version`), and a kind that
//! must not be lost is said to those alone that know it. What all replicas apply alike, a new kind
//! of write for one, waits until control has raised the level (`sanso_control`, `agreed.rs`).
//! What version 1 says is kept in `golden/1`; version 2 also sends a state in pieces (`transfer.rs`) and writes a block in
//! parts, kept in `golden/2`. For the latter nothing is raised: nobody reads what he doesn't know as something else, so a
//! node of version 1 that comes while a block is written stays away for as long as that takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::cluster::{
    Answer, ClusterMap, Epoch, Heartbeat, Logged, Message, Partition, Position, Replication,
};
use sanso_core::{
    BlockPart, Encoded, Hosted, PartitionId, Progress, ReadReply, ReadRequest, Staging, Write, Written,
};
use sanso_state::{
    AggregateKind, Block, Cut, Delta, Entry, Extension, Fingerprint, GroupId, GroupState, Groups,
    LogPartition, Offset, Outcome, RunError, SegmentId, Segments, Snapshot, ViewPartition,
    ViewPartitionConfig, decode_groups, decode_states, encode_groups, encode_states,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::transfer::Piece;

/// The version from which on a state is sent in pieces, and a block in parts.
pub(crate) const PIECES_SINCE: u32 = 2;

/// Bytes that are no message that this version knows.
#[derive(Debug, thiserror::Error)]
#[error("not a message that this version knows: {0}")]
pub struct WireError(String);

fn broken(error: impl std::fmt::Display) -> WireError {
    WireError(error.to_string())
}

/// Encodes a document.
pub(crate) fn encode<T: Serialize>(document: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(document).expect("documents of the wire can be written")
}

/// Decodes a document.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    rmp_serde::from_slice(bytes).map_err(broken)
}

type Kinds = Vec<AggregateKind>;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Name {
    view: Fingerprint,
    index: u32,
}

impl From<PartitionId> for Name {
    fn from(id: PartitionId) -> Self {
        Self { view: id.view, index: id.index }
    }
}

impl From<Name> for PartitionId {
    fn from(name: Name) -> Self {
        Self { view: name.view, index: name.index }
    }
}

#[derive(Serialize, Deserialize)]
struct BlockDocument {
    view: Fingerprint,
    version: u64,
    cut: Cut,
    watermarks_us: Vec<Option<i64>>,
    groups: ByteBuf,
}

impl BlockDocument {
    fn of(kinds: &[AggregateKind], block: &Block) -> Self {
        Self {
            view: block.view,
            version: block.version,
            cut: block.cut.clone(),
            watermarks_us: block.watermarks_us.clone(),
            groups: groups_bytes(kinds, &block.groups),
        }
    }

    fn block(self, kinds: &[AggregateKind]) -> Result<Arc<Block>, WireError> {
        let Self { view, version, cut, watermarks_us, groups } = self;
        let groups = decode_groups(kinds, &groups).map_err(broken)?;
        Ok(Arc::new(Block { view, version, cut, watermarks_us, groups }))
    }
}

fn groups_bytes(kinds: &[AggregateKind], groups: &Groups) -> ByteBuf {
    ByteBuf::from(encode_groups(kinds, groups))
}

#[derive(Serialize, Deserialize)]
enum WriteDocument {
    Create {
        id: Name,
        kinds: Kinds,
        segments: Segments,
        base: BlockDocument,
    },
    Remove {
        view: Fingerprint,
    },
    Delta {
        id: Name,
        kinds: Kinds,
        delta: DeltaDocument,
    },
    Adopt {
        id: Name,
        kinds: Kinds,
        block: BlockDocument,
    },
    Extend {
        id: Name,
        kinds: Kinds,
        of: u64,
        added: BlockDocument,
    },
    Rebuild {
        id: Name,
        kinds: Kinds,
        segment: SegmentId,
        groups: ByteBuf,
    },
    Stage {
        id: Name,
        kinds: Kinds,
        of: Staging,
        number: u32,
        groups: ByteBuf,
    },
    /// The write is one that brings a block, as these are encoded.
    WithStaged {
        of: Staging,
        parts: u32,
        write: ByteBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct DeltaDocument {
    view: Fingerprint,
    partition: LogPartition,
    from: Offset,
    to: Offset,
    watermark_us: Option<i64>,
    idle: bool,
    groups: ByteBuf,
}

/// Encodes a write; `kinds` are those of its view.
pub fn write(write: Write, kinds: &[AggregateKind]) -> Encoded {
    let bytes = encode(&write_document(&write, kinds));
    Encoded::new(write, bytes.into(), read_back)
}

fn write_document(write: &Write, kinds: &[AggregateKind]) -> WriteDocument {
    match write {
        Write::Create { id, config, base } => WriteDocument::Create {
            id: (*id).into(),
            kinds: config.kinds.to_vec(),
            segments: config.segments,
            base: BlockDocument::of(&config.kinds, base),
        },
        Write::Remove(view) => WriteDocument::Remove { view: *view },
        Write::Enter(id, entry) => entry_document((*id).into(), kinds, entry),
        Write::Stage(id, BlockPart { of, number, kinds, groups }) => WriteDocument::Stage {
            id: (*id).into(),
            kinds: kinds.to_vec(),
            of: *of,
            number: *number,
            groups: groups_bytes(kinds, groups),
        },
        Write::WithStaged { of, parts, write } => {
            let write = ByteBuf::from(encode(&write_document(write, kinds)));
            WriteDocument::WithStaged { of: *of, parts: *parts, write }
        }
    }
}

fn entry_document(id: Name, kinds: &[AggregateKind], entry: &Entry) -> WriteDocument {
    match entry {
        Entry::Delta(delta) => WriteDocument::Delta {
            id,
            kinds: kinds.to_vec(),
            delta: DeltaDocument {
                view: delta.view,
                partition: delta.partition,
                from: delta.from,
                to: delta.to,
                watermark_us: delta.watermark_us,
                idle: delta.idle,
                groups: groups_bytes(kinds, &delta.groups),
            },
        },
        Entry::Adopt(block) => {
            WriteDocument::Adopt { id, kinds: kinds.to_vec(), block: BlockDocument::of(kinds, block) }
        }
        Entry::Extend(Extension { of, added }) => {
            let added = BlockDocument::of(kinds, added);
            WriteDocument::Extend { id, kinds: kinds.to_vec(), of: *of, added }
        }
        Entry::Rebuild(segment, groups) => WriteDocument::Rebuild {
            id,
            kinds: kinds.to_vec(),
            segment: *segment,
            groups: groups_bytes(kinds, groups),
        },
    }
}

fn read_back(bytes: &[u8]) -> Option<Write> {
    decoded_write(bytes).ok()
}

fn decoded_write(bytes: &[u8]) -> Result<Write, WireError> {
    written(decode(bytes)?)
}

fn written(document: WriteDocument) -> Result<Write, WireError> {
    Ok(match document {
        WriteDocument::Create { id, kinds, segments, base } => {
            let config = ViewPartitionConfig { view: base.view, kinds: kinds.into(), segments };
            let base = base.block(&config.kinds)?;
            Write::Create { id: id.into(), config, base }
        }
        WriteDocument::Remove { view } => Write::Remove(view),
        WriteDocument::Delta { id, kinds, delta } => {
            let groups = decode_groups(&kinds, &delta.groups).map_err(broken)?;
            let DeltaDocument { view, partition, from, to, watermark_us, idle, groups: _ } = delta;
            let delta = Delta { view, partition, from, to, groups, watermark_us, idle };
            Write::Enter(id.into(), Entry::Delta(delta))
        }
        WriteDocument::Adopt { id, kinds, block } => {
            Write::Enter(id.into(), Entry::Adopt(block.block(&kinds)?))
        }
        WriteDocument::Extend { id, kinds, of, added } => {
            let added = added.block(&kinds)?;
            Write::Enter(id.into(), Entry::Extend(Extension { of, added }))
        }
        WriteDocument::Rebuild { id, kinds, segment, groups } => {
            let groups = decode_groups(&kinds, &groups).map_err(broken)?;
            Write::Enter(id.into(), Entry::Rebuild(segment, groups))
        }
        WriteDocument::Stage { id, kinds, of, number, groups } => {
            let groups = decode_groups(&kinds, &groups).map_err(broken)?;
            Write::Stage(id.into(), BlockPart { of, number, kinds: kinds.into(), groups })
        }
        WriteDocument::WithStaged { of, parts, write } => {
            let document: WriteDocument = decode(&write)?;
            if matches!(document, WriteDocument::WithStaged { .. }) {
                return Err(broken("a write within a write within a write"));
            }
            let write = Box::new(written(document)?);
            write.block().ok_or_else(|| broken("a write without a block"))?;
            Write::WithStaged { of, parts, write }
        }
    })
}

/// Decodes a write that came with its bytes.
pub fn encoded(bytes: Arc<[u8]>) -> Result<Encoded, WireError> {
    Ok(Encoded::new(decoded_write(&bytes)?, bytes, read_back))
}

#[derive(Serialize, Deserialize)]
enum MessageDocument {
    Heartbeat(Heartbeat),
    Map(ClusterMap),
    Replication {
        partition: Partition,
        epoch: Epoch,
        from_since: u64,
        to_since: u64,
        says: ReplicationDocument,
    },
    Piece(Piece),
}

#[derive(Serialize, Deserialize)]
enum ReplicationDocument {
    Append { previous: Position, entries: Vec<(Epoch, ByteBuf)>, commit: u64 },
    Snapshot { at: Position, partitions: Vec<PartitionDocument> },
    Appended { matched: u64, shown: u64 },
    Mismatched { commit: u64 },
}

#[derive(Serialize, Deserialize)]
struct PartitionDocument {
    id: Name,
    kinds: Kinds,
    segment_offsets: Segments,
    base: BlockDocument,
    applied: Vec<Offset>,
    watermarks_us: Vec<Option<i64>>,
    idle: Vec<bool>,
    segments: Vec<(SegmentId, ByteBuf)>,
    closed_until_us: i64,
    late_groups: u64,
}

impl PartitionDocument {
    fn of(id: PartitionId, partition: &ViewPartition) -> Result<Self, RunError> {
        let (config, snapshot) = (partition.config(), partition.snapshot()?);
        let kinds = &config.kinds;
        Ok(Self {
            id: id.into(),
            kinds: kinds.to_vec(),
            segment_offsets: config.segments,
            base: BlockDocument::of(kinds, &snapshot.base),
            applied: snapshot.applied,
            watermarks_us: snapshot.watermarks_us,
            idle: snapshot.idle,
            segments: snapshot
                .segments
                .iter()
                .map(|(id, groups)| (*id, groups_bytes(kinds, groups)))
                .collect(),
            closed_until_us: snapshot.closed_until_us,
            late_groups: snapshot.late_groups,
        })
    }

    fn partition(self) -> Result<(PartitionId, ViewPartition), WireError> {
        let kinds: Arc<[AggregateKind]> = self.kinds.into();
        let config = ViewPartitionConfig {
            view: self.base.view,
            kinds: Arc::clone(&kinds),
            segments: self.segment_offsets,
        };
        let mut segments = BTreeMap::new();
        for (id, groups) in self.segments {
            segments.insert(id, Arc::new(decode_groups(&kinds, &groups).map_err(broken)?));
        }
        let snapshot = Snapshot {
            base: self.base.block(&kinds)?,
            applied: self.applied,
            watermarks_us: self.watermarks_us,
            idle: self.idle,
            segments,
            closed_until_us: self.closed_until_us,
            late_groups: self.late_groups,
        };
        let partition = ViewPartition::restore(config, snapshot).map_err(broken)?;
        Ok((self.id.into(), partition))
    }
}

/// What a node hears of another one's core.
#[derive(Debug)]
pub enum Heard {
    /// A message to its own.
    Message(Message<Hosted>),
    /// A piece of such a message.
    Piece(Piece),
}

/// Encodes a message of the core. A snapshot, which takes its time, is encoded as a whole for those alone that know no pieces;
/// what of it is on disk may be unreadable.
pub fn message(message: Message<Hosted>) -> Result<Vec<u8>, RunError> {
    let document = match message {
        Message::Heartbeat(heartbeat) => MessageDocument::Heartbeat(heartbeat),
        Message::Map(map) => MessageDocument::Map((*map).clone()),
        Message::Replication { partition, epoch, from_since, to_since, message } => {
            let says = match message {
                Replication::Append { previous, entries, commit } => {
                    let bytes =
                        |entry: Logged<Encoded>| (entry.epoch, ByteBuf::from(entry.op.bytes().to_vec()));
                    let entries = entries.into_iter().map(bytes).collect();
                    ReplicationDocument::Append { previous, entries, commit }
                }
                Replication::Snapshot { at, state } => {
                    let held = state.partitions();
                    let partitions = held.iter().map(|(id, held)| PartitionDocument::of(*id, held));
                    ReplicationDocument::Snapshot { at, partitions: partitions.collect::<Result<_, _>>()? }
                }
                Replication::Appended { matched, shown } => ReplicationDocument::Appended { matched, shown },
                Replication::Mismatched { commit } => ReplicationDocument::Mismatched { commit },
            };
            MessageDocument::Replication { partition, epoch, from_since, to_since, says }
        }
    };
    Ok(encode(&document))
}

/// Encodes a piece of a snapshot.
pub fn piece(piece: Piece) -> Vec<u8> {
    encode(&MessageDocument::Piece(piece))
}

/// Decodes what a node says of its core.
pub fn heard(bytes: &[u8]) -> Result<Heard, WireError> {
    Ok(Heard::Message(match decode(bytes)? {
        MessageDocument::Piece(piece) => return Ok(Heard::Piece(piece)),
        MessageDocument::Heartbeat(heartbeat) => Message::Heartbeat(heartbeat),
        MessageDocument::Map(map) => Message::Map(Arc::new(map)),
        MessageDocument::Replication { partition, epoch, from_since, to_since, says } => {
            let message = match says {
                ReplicationDocument::Append { previous, entries, commit } => {
                    let entry = |(epoch, bytes): (Epoch, ByteBuf)| {
                        Ok(Logged { epoch, op: encoded(bytes.into_vec().into())? })
                    };
                    let entries = entries.into_iter().map(entry).collect::<Result<_, WireError>>()?;
                    Replication::Append { previous, entries, commit }
                }
                ReplicationDocument::Snapshot { at, partitions } => {
                    let held = partitions.into_iter().map(PartitionDocument::partition);
                    Replication::Snapshot { at, state: Hosted::of(held.collect::<Result<_, _>>()?) }
                }
                ReplicationDocument::Appended { matched, shown } => Replication::Appended { matched, shown },
                ReplicationDocument::Mismatched { commit } => Replication::Mismatched { commit },
            };
            Message::Replication { partition, epoch, from_since, to_since, message }
        }
    }))
}

/// A call: a write for the primary of a partition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SubmitCall {
    pub(crate) partition: Partition,
    pub(crate) write: ByteBuf,
}

/// The answer to [`SubmitCall`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SubmitAnswer {
    Created,
    Removed,
    Accepted { applied: Offset },
    Refused { from: Offset, applied: Offset },
    Invalid { reason: String },
    Adopted,
    Stale,
    Rebuilt,
    NotHeld,
    Staged,
    NotStaged,
    NotLive,
    NotPrimary,
    Busy,
    Unknown,
}

impl From<Answer<Written>> for SubmitAnswer {
    fn from(answer: Answer<Written>) -> Self {
        let written = match answer {
            Answer::Done { outcome, .. } => outcome,
            Answer::NotPrimary => return Self::NotPrimary,
            Answer::Busy => return Self::Busy,
            Answer::Unknown => return Self::Unknown,
        };
        match written {
            Written::Created => Self::Created,
            Written::Removed => Self::Removed,
            Written::NotLive => Self::NotLive,
            Written::Staged => Self::Staged,
            Written::NotStaged => Self::NotStaged,
            Written::Entered(outcome) => match outcome {
                Outcome::Accepted { applied } => Self::Accepted { applied },
                Outcome::Refused { from, applied } => Self::Refused { from, applied },
                Outcome::Invalid(reason) => Self::Invalid { reason: reason.to_owned() },
                Outcome::Adopted => Self::Adopted,
                Outcome::Stale => Self::Stale,
                Outcome::Rebuilt => Self::Rebuilt,
                Outcome::NotHeld => Self::NotHeld,
            },
        }
    }
}

/// A call: a read of any replica in sync.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReadCall {
    view: Fingerprint,
    index: u32,
    wants: Wants,
}

#[derive(Debug, Serialize, Deserialize)]
enum Wants {
    Keys { keys: Vec<ByteBuf>, from: i64, to: i64 },
    Scan { from: i64, to: i64 },
    Progress,
    Segment { segment: SegmentId },
}

/// What is asked of a view partition.
pub(crate) enum Question {
    Read(ReadRequest),
    Segment(SegmentId),
}

impl ReadCall {
    pub(crate) fn of(id: PartitionId, question: &Question) -> Self {
        let wants = match question {
            Question::Read(ReadRequest::Keys { keys, from, to }) => Wants::Keys {
                keys: keys.iter().map(|key| ByteBuf::from(key.to_vec())).collect(),
                from: *from,
                to: *to,
            },
            Question::Read(ReadRequest::Scan { from, to }) => Wants::Scan { from: *from, to: *to },
            Question::Read(ReadRequest::Progress) => Wants::Progress,
            Question::Segment(segment) => Wants::Segment { segment: *segment },
        };
        Self { view: id.view, index: id.index, wants }
    }

    pub(crate) fn question(self) -> (PartitionId, Question) {
        let question = match self.wants {
            Wants::Keys { keys, from, to } => {
                let keys = keys.into_iter().map(|key| key.into_vec().into()).collect();
                Question::Read(ReadRequest::Keys { keys, from, to })
            }
            Wants::Scan { from, to } => Question::Read(ReadRequest::Scan { from, to }),
            Wants::Progress => Question::Read(ReadRequest::Progress),
            Wants::Segment { segment } => Question::Segment(segment),
        };
        (PartitionId { view: self.view, index: self.index }, question)
    }
}

/// The answer to [`ReadCall`].
#[derive(Serialize, Deserialize)]
pub(crate) enum ReadAnswer {
    Reply { kinds: Kinds, groups: ByteBuf, progress: ProgressDocument, fresh: bool },
    Segment { kinds: Kinds, groups: Option<ByteBuf> },
    NotLive,
    NotInSync,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ProgressDocument {
    version: u64,
    cut: Cut,
    applied: Vec<Offset>,
    watermark_us: Option<i64>,
    base_groups: u64,
    speed_groups: u64,
    late_groups: u64,
}

/// What a replica says to a [`Question`].
#[derive(Debug)]
pub(crate) enum Reply {
    /// With whether it holds all that was acknowledged until a moment ago; else the replica can't know.
    Read(ReadReply, bool),
    Segment(Option<Groups>),
    NotLive,
    NotInSync,
}

impl ReadAnswer {
    pub(crate) fn of(kinds: &[AggregateKind], reply: Reply) -> Self {
        match reply {
            Reply::Read(ReadReply { groups, progress }, fresh) => Self::Reply {
                kinds: kinds.to_vec(),
                groups: ByteBuf::from(encode_states(kinds, &groups)),
                progress: ProgressDocument {
                    version: progress.version,
                    cut: progress.cut,
                    applied: progress.applied,
                    watermark_us: progress.watermark_us,
                    base_groups: progress.base_groups as u64,
                    speed_groups: progress.speed_groups as u64,
                    late_groups: progress.late_groups,
                },
                fresh,
            },
            Reply::Segment(groups) => Self::Segment {
                kinds: kinds.to_vec(),
                groups: groups.map(|groups| groups_bytes(kinds, &groups)),
            },
            Reply::NotLive => Self::NotLive,
            Reply::NotInSync => Self::NotInSync,
        }
    }

    pub(crate) fn reply(self) -> Result<Reply, WireError> {
        Ok(match self {
            Self::Reply { kinds, groups, progress, fresh } => {
                let groups: Vec<(GroupId, GroupState)> = decode_states(&kinds, &groups).map_err(broken)?;
                let progress = Progress {
                    version: progress.version,
                    cut: progress.cut,
                    applied: progress.applied,
                    watermark_us: progress.watermark_us,
                    base_groups: progress.base_groups as usize,
                    speed_groups: progress.speed_groups as usize,
                    late_groups: progress.late_groups,
                };
                Reply::Read(ReadReply { groups, progress }, fresh)
            }
            Self::Segment { kinds, groups } => {
                let groups =
                    groups.map(|groups| decode_groups(&kinds, &groups).map_err(broken)).transpose()?;
                Reply::Segment(groups)
            }
            Self::NotLive => Reply::NotLive,
            Self::NotInSync => Reply::NotInSync,
        })
    }
}

#[cfg(test)]
#[path = "wire_golden_tests.rs"]
mod golden_tests;
#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
