//! How control reaches other nodes, and how a node that is no voter proposes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sanso_core::cluster::{Change, NodeId, Refused};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::agreed::{Answer, Command, Put, Sealed};
use crate::bodies;
use crate::config::Timings;
use crate::error::ControlError;
use crate::table::PutRefused;

pub(crate) const APPEND: &str = "control.append";
pub(crate) const VOTE: &str = "control.vote";
pub(crate) const PRE_VOTE: &str = "control.pre_vote";
pub(crate) const SNAPSHOT: &str = "control.snapshot";
pub(crate) const TRANSFER: &str = "control.transfer";
pub(crate) const PROPOSE: &str = "control.propose";
pub(crate) const VOTERS: &str = "control.voters";

/// All kinds of messages that [`Control::handle`](crate::Control::handle) takes.
pub const KINDS: [&str; 7] = [APPEND, VOTE, PRE_VOTE, SNAPSHOT, TRANSFER, PROPOSE, VOTERS];

/// Between two attempts to find a leader, where nothing tells of one.
pub(crate) const RETRY: Duration = Duration::from_millis(10);

/// Carries a message to another node and its answer back.
///
/// Messages of less than 4 MiB; a call that is dropped may have been handled.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Has `to` handle a message, and returns its answer. Gives up after `deadline`.
    async fn call(
        &self,
        to: NodeId,
        kind: &'static str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, TransportError>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The message was not handled, for sure.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// No answer in time, or the connection broke; the message may have been handled.
    #[error("no answer")]
    Unanswered,
    /// What the other node's [`Control::handle`](crate::Control::handle) said it could not do.
    #[error("refused: {0}")]
    Failed(String),
}

/// A proposal to a voter.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) command: Sealed,
    /// Whether a voter that does not lead passes it on.
    pub(crate) forward: bool,
}

/// What a voter says to a proposal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Proposed {
    Answer(Answer),
    /// It was not proposed.
    NoLeader,
    /// It was proposed; more is not known.
    Unknown,
}

/// Proposes on a node that is no voter, through any voter that answers.
#[derive(Clone)]
pub struct Proposer {
    transport: Arc<dyn Transport>,
    voters: Arc<watch::Sender<Vec<NodeId>>>,
    /// Which of them is asked first: not one that was silent.
    first: Arc<AtomicUsize>,
    timings: Timings,
}

impl std::fmt::Debug for Proposer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposer").field("voters", &*self.voters.borrow()).finish_non_exhaustive()
    }
}

impl Proposer {
    /// Creates a proposer through these voters; which of them leads need not be known.
    pub fn new(
        transport: Arc<dyn Transport>,
        voters: impl IntoIterator<Item = NodeId>,
        timings: Timings,
    ) -> Self {
        let voters = Arc::new(watch::Sender::new(voters.into_iter().collect()));
        Self { transport, voters, first: Arc::default(), timings }
    }

    /// Asks these from now on.
    pub fn set_voters(&self, voters: impl IntoIterator<Item = NodeId>) {
        self.voters.send_replace(voters.into_iter().collect());
    }

    /// Has the leader make these the voters; see [`Control::change_voters`](crate::Control::change_voters).
    pub async fn change_voters(&self, leader: NodeId, voters: &BTreeSet<NodeId>) -> Result<(), ControlError> {
        let end = Instant::now() + self.timings.catch_up() + self.timings.proposal();
        change_voters(&*self.transport, leader, voters, end).await
    }

    /// Proposes a change of the map; see [`Control::propose`](crate::Control::propose).
    pub async fn propose(&self, change: Change) -> Result<Result<u64, Refused>, ControlError> {
        changed(self.submit(&Command::Change(change)).await?)
    }

    /// Puts a value into the table; see [`Control::put`](crate::Control::put).
    pub async fn put(
        &self,
        key: &str,
        expect: u64,
        value: Option<Vec<u8>>,
    ) -> Result<Result<u64, PutRefused>, ControlError> {
        put(self.submit(&Command::Put(Put { key: key.to_owned(), expect, value })).await?)
    }

    async fn submit(&self, command: &Command) -> Result<Answer, ControlError> {
        let end = Instant::now() + self.timings.proposal();
        let body = bodies::encode(&Proposal { command: command.seal(), forward: true });
        let voters = self.voters.borrow().clone();
        let first = self.first.load(Ordering::Relaxed) % voters.len().max(1);
        loop {
            for at in (first..voters.len()).chain(0..first) {
                let voter = voters[at];
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ControlError::NoLeader);
                }
                match call(&*self.transport, voter, body.clone(), left).await? {
                    Proposed::Answer(answer) => {
                        self.first.store(at, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Proposed::Unknown => {
                        self.first.store(at + 1, Ordering::Relaxed);
                        return Err(ControlError::Unknown);
                    }
                    // It may have looked for one to the end.
                    Proposed::NoLeader => self.first.store(at + 1, Ordering::Relaxed),
                }
            }
            tokio::time::timeout_at(end, tokio::time::sleep(RETRY))
                .await
                .map_err(|_| ControlError::NoLeader)?;
        }
    }
}

/// Sends a proposal to one voter.
pub(crate) async fn call(
    transport: &dyn Transport,
    voter: NodeId,
    body: Vec<u8>,
    deadline: Duration,
) -> Result<Proposed, ControlError> {
    let answer = tokio::time::timeout(deadline, transport.call(voter, PROPOSE, body, deadline)).await;
    Ok(match answer {
        Ok(Ok(answer)) => bodies::decode(&answer)
            .map_err(|error| ControlError::Stopped(format!("{voter}'s answer is {error}")))?,
        // A voter that fails to handle a proposal has not proposed it; else it would say `Unknown`.
        Ok(Err(TransportError::Unreachable(_) | TransportError::Failed(_))) => Proposed::NoLeader,
        Ok(Err(TransportError::Unanswered)) | Err(_) => Proposed::Unknown,
    })
}

/// Asks the leader to change the voters.
pub(crate) async fn change_voters(
    transport: &dyn Transport,
    leader: NodeId,
    voters: &BTreeSet<NodeId>,
    end: Instant,
) -> Result<(), ControlError> {
    let left = end.saturating_duration_since(Instant::now());
    let call = transport.call(leader, VOTERS, bodies::encode(voters), left);
    let answer = timeout_at(end, call).await.map_err(|_| ControlError::Unknown)?;
    let answer = answer.map_err(|error| match error {
        TransportError::Unreachable(_) => ControlError::NoLeader,
        TransportError::Unanswered => ControlError::Unknown,
        TransportError::Failed(why) => ControlError::Voters(why),
    })?;
    let answer: Result<(), String> =
        bodies::decode(&answer).map_err(|error| ControlError::Stopped(error.to_string()))?;
    answer.map_err(ControlError::Voters)
}

/// Reads the answer to a change of the map.
pub(crate) fn changed(answer: Answer) -> Result<Result<u64, Refused>, ControlError> {
    match answer {
        Answer::Done(version) => Ok(Ok(version)),
        Answer::Change(refused) => Ok(Err(refused)),
        other => Err(unexpected(&other)),
    }
}

/// Reads the answer to a put.
pub(crate) fn put(answer: Answer) -> Result<Result<u64, PutRefused>, ControlError> {
    match answer {
        Answer::Done(version) => Ok(Ok(version)),
        Answer::Put(refused) => Ok(Err(refused)),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> ControlError {
    match answer {
        Answer::NotFounded => ControlError::NotFounded,
        Answer::UnknownKind => ControlError::UnknownCommand,
        other => ControlError::Stopped(format!("the answer {other:?} does not belong to the question")),
    }
}
