//! What voters of version 1 say to each other and keep on their disks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::vote::RaftLeaderId;
use openraft::{EmptyNode, EntryPayload, Membership};
use sanso_core::cluster::{Change, ClusterMap, Holder, Incarnation, Instance, NodeId, Partition, Refused};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agreed::{Agreed, Answer, Command, Founding, Put, Sealed};
use crate::bodies;
use crate::network::SentSnapshot;
use crate::runtime::{Entry, LogId, Raft, SnapshotMeta, StoredMembership, Vote};
use crate::store::machine::Snapshot;
use crate::store::{About, FORMAT};
use crate::table::PutRefused;
use crate::transport::{Proposal, Proposed};

#[path = "../../../golden.rs"]
mod golden;

use golden::Golden;

type LeaderId = openraft::type_config::alias::LeaderIdOf<Raft>;

fn golden<T: Serialize + DeserializeOwned + Debug>(name: &str, value: &T) -> Golden {
    let bytes = bodies::encode(value);
    let read = |bytes: &[u8]| bodies::decode::<T>(bytes).expect("it is of this version");
    assert_eq!(format!("{:?}", read(&bytes)), format!("{value:?}"), "{name} is read as it was written");
    let again = move |bytes: &[u8]| bodies::encode(&read(bytes));
    Golden { name: format!("{name}.msgpack"), bytes, again: Box::new(again) }
}

fn instance(node: u16) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(1_700_000_000_000_000 + u64::from(node)) }
}

fn changes() -> Vec<(&'static str, Change)> {
    let (partition, version) = (Partition(5), 300);
    let holder = Holder { instance: instance(2), since: 7 };
    vec![
        ("join", Change::Join(instance(1))),
        ("down", Change::Down(instance(2))),
        ("forget", Change::Forget(instance(2))),
        ("admit", Change::Admit { partition, version, holder }),
        ("eject", Change::Eject { partition, version, holder }),
        ("drain", Change::Drain(NodeId(3), true)),
        ("rebalance", Change::Rebalance),
        ("voters", Change::Voters([1, 2, 3].map(NodeId).into())),
    ]
}

fn commands() -> Vec<(String, Sealed)> {
    let founding = Founding { partitions: 64, replicas: 3 };
    let put = |value| Command::Put(Put { key: "cut".into(), expect: 6, value });
    let changes = changes().into_iter().map(|(name, change)| (name.to_owned(), Command::Change(change)));
    let others = [
        ("found", Command::Found(founding)),
        ("put", put(Some(vec![0, 127, 128, 255]))),
        ("remove", put(None)),
        ("level", Command::Level(1)),
    ];
    let all = changes.chain(others.map(|(name, command)| (name.to_owned(), command)));
    all.map(|(name, command)| (name, command.seal())).collect()
}

fn leader() -> LeaderId {
    LeaderId::new(4, 2)
}

fn vote() -> Vote {
    Vote { leader_id: leader(), committed: true }
}

fn log_id(index: u64) -> LogId {
    LogId::new(leader().to_committed(), index)
}

fn membership() -> Membership<u64, EmptyNode> {
    let nodes: BTreeMap<u64, EmptyNode> = (1..=4).map(|node| (node, EmptyNode::new())).collect();
    let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])];
    Membership::new(voters, nodes).expect("all are nodes")
}

fn agreed() -> Agreed {
    let mut agreed = Agreed::default();
    let founding = Founding { partitions: 2, replicas: 2 };
    let put = Put { key: "cut".into(), expect: 0, value: Some(vec![1, 2]) };
    let mut commands = vec![Command::Found(founding), Command::Put(put)];
    commands.extend((1..=3).map(|node| Command::Change(Change::Join(instance(node)))));
    commands.push(Command::Change(Change::Drain(NodeId(3), true)));
    commands.push(Command::Change(Change::Down(instance(2))));
    commands.push(Command::Change(Change::Voters([1, 2, 3].map(NodeId).into())));
    for command in commands {
        let answer = agreed.apply(&command.seal()).expect("the level is known");
        assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    }
    agreed
}

fn meta() -> SnapshotMeta {
    let last_membership = StoredMembership::new(Some(log_id(9)), membership());
    SnapshotMeta { last_log_id: Some(log_id(12)), last_membership }
}

fn entry(index: u64, payload: EntryPayload<Sealed, u64, EmptyNode>) -> Entry {
    Entry { log_id: log_id(index), payload }
}

fn stored() -> Vec<Golden> {
    let map: ClusterMap = agreed().map.expect("it is founded").as_ref().clone();
    let mut all = vec![
        golden("stored.vote", &vote()),
        golden("stored.committed", &log_id(300)),
        golden("stored.state", &agreed()),
        golden("stored.map", &map),
        golden("stored.snapshot-meta", &meta()),
        golden("stored.entry.blank", &entry(1, EntryPayload::Blank)),
        golden("stored.entry.membership", &entry(0, EntryPayload::Membership(membership()))),
    ];
    for (name, command) in commands() {
        all.push(golden(&format!("stored.entry.{name}"), &entry(300, EntryPayload::Normal(command))));
    }
    all.push(golden("stored.about", &About { format: FORMAT, cluster: "town".into(), node: 3 }));
    all.push(golden("stored.snapshot", &Snapshot { meta: meta(), body: bodies::encode(&agreed()) }));
    all
}

fn answers() -> Vec<(&'static str, Answer)> {
    vec![
        ("done", Answer::Done(300)),
        ("outdated", Answer::Change(Refused::Outdated)),
        ("floor", Answer::Change(Refused::Floor)),
        ("not-member", Answer::Change(Refused::NotMember)),
        ("nothing-changed", Answer::Change(Refused::Nothing)),
        ("put-version", Answer::Put(PutRefused::Version { found: 7 })),
        ("put-too-long", Answer::Put(PutRefused::TooLong)),
        ("put-full", Answer::Put(PutRefused::Full)),
        ("founded", Answer::Founded(Founding { partitions: 64, replicas: 3 })),
        ("not-founded", Answer::NotFounded),
        ("unknown-kind", Answer::UnknownKind),
        ("nothing", Answer::Nothing),
    ]
}

fn said() -> Vec<Golden> {
    let entries = vec![
        entry(301, EntryPayload::Blank),
        entry(302, EntryPayload::Normal(Command::Change(Change::Rebalance).seal())),
    ];
    let append = AppendEntriesRequest::<Raft> {
        vote: vote(),
        prev_log_id: Some(log_id(300)),
        entries,
        leader_commit: Some(log_id(299)),
    };
    let vote_request =
        VoteRequest::<Raft> { vote: vote(), last_log_id: Some(log_id(300)), leadership_transfer: false };
    let body = bodies::encode(&agreed());
    let mut all = vec![
        golden("append", &append),
        golden("append.answer.success", &AppendEntriesResponse::<Raft>::Success),
        golden("append.answer.part", &AppendEntriesResponse::<Raft>::PartialSuccess(Some(log_id(301)))),
        golden("append.answer.conflict", &AppendEntriesResponse::<Raft>::Conflict),
        golden("append.answer.higher-vote", &AppendEntriesResponse::<Raft>::HigherVote(vote())),
        golden("vote", &vote_request),
        golden("vote.answer", &VoteResponse::<Raft>::new(vote(), Some(log_id(300)), true)),
        golden("snapshot", &SentSnapshot { vote: vote(), meta: meta(), body }),
        golden("snapshot.answer", &SnapshotResponse::<Raft>::new(vote())),
        golden("transfer", &TransferLeaderRequest::<Raft>::new(vote(), 3, Some(log_id(300)))),
        golden("voters", &BTreeSet::from([NodeId(1), NodeId(2), NodeId(4)])),
        golden("voters.answer.done", &Ok::<(), String>(())),
        golden("voters.answer.refused", &Err::<(), String>("node 4 has not caught up".into())),
        golden("propose.answer.no-leader", &Proposed::NoLeader),
        golden("propose.answer.unknown", &Proposed::Unknown),
    ];
    for (name, command) in commands() {
        all.push(golden(&format!("propose.{name}"), &Proposal { command, forward: true }));
    }
    for (name, answer) in answers() {
        all.push(golden(&format!("propose.answer.{name}"), &Proposed::Answer(answer)));
    }
    all
}

#[test]
fn what_version_1_wrote_is_read_and_written_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/1");
    golden::check(&folder, &stored().into_iter().chain(said()).collect::<Vec<_>>());
}
