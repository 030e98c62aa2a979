//! Raft's messages over a [`Transport`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend};
use sanso_core::cluster::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bodies;
use crate::config::Timings;
use crate::runtime::{Raft, SnapshotMeta, Vote};
use crate::transport::{self, Transport, TransportError};

/// A whole snapshot, as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SentSnapshot {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    #[serde(with = "serde_bytes")]
    pub(crate) body: Vec<u8>,
}

/// Makes links to the other voters.
pub(crate) struct Links {
    pub(crate) me: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) timings: Timings,
    /// While this leader hears no majority. Its entries would keep those who hear it from
    /// electing another, as its heartbeats would, which Raft holds back itself.
    pub(crate) muted: Arc<AtomicBool>,
}

/// A link to one voter.
pub(crate) struct Link {
    me: NodeId,
    to: NodeId,
    transport: Arc<dyn Transport>,
    timings: Timings,
    muted: Arc<AtomicBool>,
}

/// Returns the node that Raft calls `id`.
pub(crate) fn node(id: u64) -> NodeId {
    NodeId(u16::try_from(id).expect("ids come from node ids"))
}

impl RaftNetworkFactory<Raft> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Link {
        let (transport, muted) = (self.transport.clone(), self.muted.clone());
        Link { me: self.me, to: node(target), transport, timings: self.timings, muted }
    }
}

impl Link {
    async fn call<T: Serialize, A: DeserializeOwned>(
        &self,
        kind: &'static str,
        action: RPCTypes,
        message: &T,
        timeout: Duration,
    ) -> Result<A, RPCError<Raft>> {
        let call = self.transport.call(self.to, kind, bodies::encode(message), timeout);
        let late = || {
            let (id, target) = (u64::from(self.me.0), u64::from(self.to.0));
            RPCError::Timeout(Timeout { action, id, target, timeout })
        };
        let answer = tokio::time::timeout(timeout, call).await.map_err(|_| late())?;
        let answer = answer.map_err(|error| match error {
            TransportError::Unanswered => late(),
            error => RPCError::Unreachable(Unreachable::new(&error)),
        })?;
        bodies::decode(&answer).map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }
}

impl RaftNetworkV2<Raft> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Raft>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Raft>, RPCError<Raft>> {
        // A heartbeat is soon repeated; entries have to reach a disk.
        let timeout = if request.entries.is_empty() { option.hard_ttl() } else { self.timings.append() };
        if !request.entries.is_empty() && self.muted.load(Ordering::Relaxed) {
            return Err(RPCError::Unreachable(Unreachable::from_string("this leader hears no majority")));
        }
        self.call(transport::APPEND, RPCTypes::AppendEntries, &request, timeout).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Raft>,
        option: RPCOption,
    ) -> Result<VoteResponse<Raft>, RPCError<Raft>> {
        self.call(transport::VOTE, RPCTypes::Vote, &request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Raft>,
        option: RPCOption,
    ) -> Result<VoteResponse<Raft>, RPCError<Raft>> {
        self.call(transport::PRE_VOTE, RPCTypes::Vote, &request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<Raft, Vec<u8>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Raft>, StreamingError<Raft>> {
        let sent = SentSnapshot { vote, meta: snapshot.meta, body: snapshot.snapshot };
        let timeout = self.timings.snapshot();
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = self.call(transport::SNAPSHOT, RPCTypes::InstallSnapshot, &sent, timeout) => {
                answer.map_err(StreamingError::from)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Raft>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Raft>, RPCError<Raft>> {
        self.call(transport::TRANSFER, RPCTypes::TransferLeader, &request, option.hard_ttl()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use openraft::vote::RaftLeaderId;

    use super::*;
    use crate::runtime::{Entry, LogId};

    /// Counts what is sent, and reaches nobody.
    struct Counting(AtomicUsize);

    #[async_trait]
    impl Transport for Counting {
        async fn call(
            &self,
            _: NodeId,
            _: &'static str,
            _: Vec<u8>,
            _: Duration,
        ) -> Result<Vec<u8>, TransportError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(TransportError::Unreachable("nobody".to_owned()))
        }
    }

    #[tokio::test]
    async fn a_leader_that_hears_no_majority_sends_no_entries() {
        let sent = Arc::new(Counting(AtomicUsize::new(0)));
        let muted = Arc::new(AtomicBool::new(true));
        let timings = Timings::default();
        let mut links = Links { me: NodeId(1), transport: sent.clone(), timings, muted: muted.clone() };
        let mut link = links.new_client(2, &EmptyNode::new()).await;
        let leader = openraft::type_config::alias::LeaderIdOf::<Raft>::new(1, 1);
        let mut send = async |entries: Vec<Entry>| {
            let vote = Vote { leader_id: leader, committed: true };
            let request = AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: None };
            let unreached = link.append_entries(request, RPCOption::new(timings.append())).await;
            assert!(matches!(unreached, Err(RPCError::Unreachable(_))));
            sent.0.load(Ordering::Relaxed)
        };
        let entry = || {
            let log_id = LogId::new(leader.to_committed(), 1);
            Entry { log_id, payload: openraft::EntryPayload::Blank }
        };
        assert_eq!(send(vec![entry()]).await, 0);
        assert_eq!(send(Vec::new()).await, 1, "heartbeats find out whether it hears again");
        muted.store(false, Ordering::Relaxed);
        assert_eq!(send(vec![entry()]).await, 2);
    }
}
