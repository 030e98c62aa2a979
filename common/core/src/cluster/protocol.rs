//! What replicas hold, tell each other, and want done.

use std::fmt;

use crate::cluster::ids::{Epoch, Holder, Position};
use crate::cluster::map::Change;

/// What a partition holds: a deterministic state machine.
pub trait State: Clone + fmt::Debug {
    /// One write.
    type Op: Clone + fmt::Debug;
    /// What became of a write.
    type Outcome: Clone + fmt::Debug;

    /// Applies a write; equal states and writes give equal states and outcomes.
    fn apply(&mut self, op: &Self::Op) -> Self::Outcome;

    /// Says what a write weighs in the memory of a log and on the wire.
    fn weight(_op: &Self::Op) -> usize {
        1
    }

    /// Says whether a write is another one once more, sent by a writer that has lost patience: applying both would come
    /// to the same as applying one.
    fn is_again(_op: &Self::Op, _other: &Self::Op) -> bool {
        false
    }

    /// Becomes another state.
    fn replace(&mut self, by: Self) {
        *self = by;
    }
}

/// Names a write until it is answered; the submitter's to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// An entry of a partition's log.
#[derive(Clone, Debug)]
pub struct Logged<Op> {
    /// The epoch of the primary that wrote it.
    pub epoch: Epoch,
    /// The write.
    pub op: Op,
}

/// What replicas of a partition tell each other.
#[derive(Clone, Debug)]
pub enum Replication<S: State> {
    /// From the primary: entries after `previous`, and how far is committed.
    Append {
        /// The position of the entry before the first.
        previous: Position,
        /// The entries; none to ask how far the receiver is, or to tell the commit.
        entries: Vec<Logged<S::Op>>,
        /// What all that acknowledge have.
        commit: u64,
    },
    /// From the primary: its state, for one that is too far behind for the log.
    Snapshot {
        /// The position of the state.
        at: Position,
        /// The state.
        state: S,
    },
    /// To the primary: everything up to `matched` is as in the primary's log.
    Appended {
        /// The number of the last entry.
        matched: u64,
        /// The number of the last entry that the sender shows.
        shown: u64,
    },
    /// To the primary: the previous entry isn't there; go on after `commit`.
    Mismatched {
        /// What the sender knows to be committed, and has.
        commit: u64,
    },
}

/// What a step wants done.
#[derive(Clone, Debug)]
pub enum Effect<S: State> {
    /// Send to another replica.
    Send(Holder, Replication<S>),
    /// Propose to control.
    Propose(Change),
    /// Answer a write.
    Answer(RequestId, Answer<S::Outcome>),
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<Outcome> {
    /// It is on every replica in sync.
    Done {
        /// What became of it.
        outcome: Outcome,
        /// Its position.
        at: Position,
        /// The number of replicas that have it.
        copies: usize,
    },
    /// Not accepted: this is not the primary.
    NotPrimary,
    /// Not accepted: too many writes wait already.
    Busy,
    /// It was accepted, and may or may not be kept: the primary has changed meanwhile.
    Unknown,
}

/// What a replica shows to a reader.
#[derive(Debug)]
pub struct Shown<'a, S> {
    /// The position of the last write in it.
    pub at: Position,
    /// The state.
    pub state: &'a S,
    /// Whether it holds all that was acknowledged until a moment ago. Otherwise
    /// this replica can't know: it has lost touch with the others, or a write
    /// waits for more replicas.
    pub fresh: bool,
}

/// Why a replica can't answer a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    /// The reader has seen more than this replica can show.
    Behind,
    /// The reader has seen a history that is over, or one that this replica doesn't know yet.
    OtherLife,
    /// This replica has not caught up, or is none.
    NotInSync,
}

/// A replica's limits and times.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaConfig {
    /// Least number of copies with which a write is acknowledged.
    pub copies_min: usize,
    /// Most writes that wait for their acknowledgement.
    pub waiting_max: usize,
    /// Entries below the commit that are kept for those who catch up.
    pub kept_max: usize,
    /// What the entries that are kept may weigh together; more only while they are not committed.
    pub kept_weight_max: usize,
    /// What the entries may weigh that are kept for one who is being sent the state, and then what came since: a state of 10 GB
    /// takes minutes, and what is written meanwhile has to be there still, or the next state would be outrun like this one.
    /// Beyond it the state is sent again. Each partition whose state is on its way may keep so much.
    pub kept_for_state_weight_max: usize,
    /// Most entries in one message.
    pub entries_max: usize,
    /// What the entries in one message may weigh together, if there is more than one.
    pub entries_weight_max: usize,
    /// What any replica takes in a microsecond, at least: who has more to take is given more time, and twice as much
    /// each time that it was not enough.
    pub weight_per_us: u64,
    /// Wait after which a replica that has not acknowledged is asked how far it is.
    pub ask_us: u64,
    /// Wait after which the state is sent again, doubled likewise.
    pub snapshot_resend_us: u64,
    /// Wait after which control is asked to remove who doesn't acknowledge.
    pub eject_us: u64,
    /// Wait before one that was removed is admitted again, so that a slow node doesn't come and go.
    pub readmit_us: u64,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            copies_min: 2,
            waiting_max: 1_024,
            kept_max: 1_024,
            kept_weight_max: 8 << 20,
            kept_for_state_weight_max: 256 << 20,
            entries_max: 256,
            entries_weight_max: 4 << 20,
            weight_per_us: 10,
            ask_us: 20_000,
            snapshot_resend_us: 1_000_000,
            eject_us: 80_000,
            readmit_us: 1_000_000,
        }
    }
}
