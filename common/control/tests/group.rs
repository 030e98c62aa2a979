//! Three and more voters in one process, on links that can be cut.

mod cluster;

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Cluster, FOUNDING, ids, instance, within};
use sanso_control::{
    Change, ControlConfig, ControlError, Founding, HandleError, NodeId, Proposer, PutRefused, Refused,
    StoreError, Timings,
};

#[tokio::test]
async fn three_voters_elect_a_leader_and_agree() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        for node in 1..=6 {
            let proposer = cluster.voter(1 + node % 3);
            let version = proposer.propose(Change::Join(instance(node))).await.unwrap().unwrap();
            assert_eq!(version, u64::from(node));
        }
        let maps = cluster.all_at(6).await;
        assert!(maps.iter().all(|map| *map == maps[0]));
        assert_eq!(maps[0].members.len(), 6);
        assert_eq!(maps[0].partitions.len(), 8);
        let leader = cluster.leader().await;
        let leading = cluster.voters().iter().filter(|voter| *voter.leads().borrow()).count();
        assert_eq!(leading, 1, "{leader} leads alone");
        assert_eq!(cluster.voter(1).voters(), ids(&[1, 2, 3]));
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_founded_once_however_often_it_is_asked_for() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        cluster.voter(2).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        let map = cluster.voter(3).bootstrap(&ids(&[1, 2, 3]), FOUNDING).await.unwrap();
        assert_eq!(map.partitions.len(), 8);
        let other = Founding { partitions: 16, ..FOUNDING };
        let refused = cluster.voter(1).bootstrap(&ids(&[1, 2, 3]), other).await.unwrap_err();
        assert!(matches!(refused, ControlError::FoundedOtherwise { founded: FOUNDING, .. }), "{refused}");
        let refused = cluster.voter(1).bootstrap(&ids(&[2, 3]), FOUNDING).await.unwrap_err();
        assert!(matches!(refused, ControlError::Voters(_)), "{refused}");
        assert!(cluster.all_at(1).await.iter().all(|map| map.members.len() == 1));
    })
    .await;
}

#[tokio::test]
async fn what_the_map_refuses_comes_back_as_its_refusal() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        for proposer in 1..=3 {
            let refused = cluster.voter(proposer).propose(Change::Down(instance(9))).await.unwrap();
            assert_eq!(refused, Err(Refused::NotMember));
        }
        cluster.voter(1).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        let again = cluster.voter(2).propose(Change::Join(instance(1))).await.unwrap();
        assert_eq!(again, Err(Refused::Nothing));
    })
    .await;
}

#[tokio::test]
async fn when_the_leader_is_cut_off_another_leads_and_the_old_one_follows_later() {
    within(async {
        let cluster = Cluster::founded(3).await;
        let old = cluster.leader().await;
        let others: Vec<u16> = (1..=3).filter(|node| *node != old.0).collect();
        cluster.net.isolate(old);
        let new = cluster.leader_of(&others).await;
        assert_ne!(new, old);
        cluster.voter(others[0]).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        cluster.voter(others[1]).propose(Change::Join(instance(2))).await.unwrap().unwrap();
        cluster.voter(old.0).leads().wait_for(|leads| !leads).await.unwrap();
        let alone = cluster.voter(old.0).propose(Change::Join(instance(3))).await.unwrap_err();
        assert!(matches!(alone, ControlError::NoLeader | ControlError::Unknown), "{alone}");
        assert_eq!(cluster.map_of(old.0).version, 0);
        cluster.net.heal();
        let maps = cluster.all_at(2).await;
        assert!(maps.iter().all(|map| *map == maps[0]));
        assert!(!maps[0].members.contains_key(&NodeId(3)));
    })
    .await;
}

/// Such a leader keeps the others from electing one, as long as they hear it.
#[tokio::test]
async fn a_leader_that_is_heard_but_does_not_hear_gives_way() {
    within(async {
        let cluster = Cluster::founded(3).await;
        let old = cluster.leader().await;
        let term = cluster.voter(old.0).status().borrow().term;
        let others: Vec<u16> = (1..=3).filter(|node| *node != old.0).collect();
        for other in &others {
            cluster.net.cut(NodeId(*other), old);
        }
        let proposing = cluster.voter(old.0);
        let pending = tokio::spawn(async move { proposing.propose(Change::Join(instance(1))).await });
        let new = cluster.leader_of(&others).await;
        assert_ne!(new, old);
        cluster.voter(new.0).propose(Change::Join(instance(2))).await.unwrap().unwrap();
        cluster.net.heal();
        drop(pending.await.unwrap());
        // Until it has heard of another one it would propose as the leader, in vain.
        cluster.voter(old.0).status().wait_for(|status| status.term > term).await.unwrap();
        // Whether the one that was under way is done is open, but all agree on it.
        cluster.voter(old.0).propose(Change::Join(instance(3))).await.unwrap().unwrap();
        let newest = (1..=3).map(|node| cluster.map_of(node).version).max().unwrap();
        let maps = cluster.all_at(newest).await;
        assert!(maps.iter().all(|map| *map == maps[0]));
        assert!(maps[0].members.contains_key(&NodeId(2)) && maps[0].members.contains_key(&NodeId(3)));
    })
    .await;
}

#[tokio::test]
async fn voters_that_all_crash_come_back_with_what_was_agreed() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        for node in 1..=5 {
            cluster.voter(1).propose(Change::Join(instance(node))).await.unwrap().unwrap();
        }
        cluster.voter(2).put("cut", 0, Some(b"17".to_vec())).await.unwrap().unwrap();
        let before = cluster.map_of(cluster.leader().await.0);
        let term = cluster.voter(1).status().borrow().term;
        for node in 1..=3 {
            cluster.crash(node).await;
        }
        for node in 1..=3 {
            cluster.open(node).await;
        }
        let maps = cluster.all_at(5).await;
        assert!(maps.iter().all(|map| *map == before));
        cluster.leader().await;
        // Nobody leads on without an election; a voter that was not needed for it hears of it later.
        cluster.voter(1).status().wait_for(|status| status.term > term).await.unwrap();
        assert_eq!(
            cluster.voter(3).put("cut", 0, None).await.unwrap(),
            Err(PutRefused::Version { found: 1 })
        );
        cluster.voter(1).propose(Change::Join(instance(6))).await.unwrap().unwrap();
        cluster.all_at(6).await;
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_crashes_is_followed_by_another_and_comes_back() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        for round in 1..=3 {
            let old = cluster.leader().await;
            cluster.crash(old.0).await;
            let others: Vec<u16> = (1..=3).filter(|node| *node != old.0).collect();
            cluster.leader_of(&others).await;
            let proposer = cluster.voter(others[0]);
            assert_eq!(proposer.propose(Change::Join(instance(round))).await.unwrap(), Ok(u64::from(round)));
            cluster.open(old.0).await;
            cluster.all_at(u64::from(round)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_is_known_to_be_gone_is_followed_at_once() {
    within(async {
        let mut cluster = Cluster::with(3, cluster::slow()).await;
        let old = cluster.leader().await;
        // One who is wrong about a leader that is another's changes nothing.
        let others: Vec<u16> = (1..=3).filter(|node| *node != old.0).collect();
        let term = cluster.voter(old.0).status().borrow().term;
        cluster.voter(others[1]).succeed(NodeId(others[0])).await.unwrap();
        cluster.crash(old.0).await;
        assert_eq!(cluster.voter(others[0]).status().borrow().term, term);
        // Those who wait until its time is over ask beforehand whether they would be voted for.
        let asked = |message: (NodeId, NodeId, &str)| message.2 == "control.pre_vote";
        let before = cluster.net.count(asked);
        for other in &others {
            cluster.voter(*other).succeed(old).await.unwrap();
        }
        cluster.leader_of(&others).await;
        assert_eq!(cluster.net.count(asked), before);
        cluster.voter(others[0]).propose(Change::Join(instance(1))).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn voters_are_added_and_removed_while_it_runs_also_the_leader() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        cluster.voter(1).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        cluster.open(4).await;
        cluster.open(5).await;
        let follower = (1..=3).find(|node| !*cluster.voter(*node).leads().borrow()).unwrap();
        cluster.voter(follower).change_voters(&ids(&[1, 2, 3, 4, 5])).await.unwrap();
        cluster.all_at(1).await;
        cluster.voters_known(4, &[1, 2, 3, 4, 5]).await;

        let old = cluster.leader().await;
        let kept: Vec<u16> = (1..=5).filter(|node| *node != old.0).collect();
        cluster.voter(old.0).change_voters(&ids(&kept)).await.unwrap();
        cluster.crash(old.0).await;
        let new = cluster.leader_of(&kept).await;
        cluster.voter(kept[0]).propose(Change::Join(instance(2))).await.unwrap().unwrap();
        cluster.voters_known(new.0, &kept).await;

        // Of four voters, three are a majority: with two of the first three gone, the new ones count.
        let gone = *kept.iter().find(|node| **node <= 3).unwrap();
        cluster.crash(gone).await;
        let kept: Vec<u16> = kept.into_iter().filter(|node| *node != gone).collect();
        cluster.leader_of(&kept).await;
        cluster.voter(4).propose(Change::Join(instance(3))).await.unwrap().unwrap();
        cluster.all_at(3).await;
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_lost_its_folder_is_taken_out_and_added_again() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        let leader = cluster.leader().await.0;
        let [lost, other] = [1, 2].map(|step| (leader - 1 + step) % 3 + 1);
        cluster.voter(lost).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        cluster.all_at(1).await;
        cluster.crash(lost).await;
        std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
        // Come back too early, it holds nobody up.
        cluster.open(lost).await;
        for node in 2..=9 {
            cluster.voter(other).propose(Change::Join(instance(node))).await.unwrap().unwrap();
        }
        cluster.voter(other).change_voters(&ids(&[leader, other])).await.unwrap();
        cluster.take(lost).await.shutdown().await;
        std::fs::remove_dir_all(cluster.folder(lost)).unwrap();
        cluster.open(lost).await;
        cluster.voter(other).change_voters(&ids(&[1, 2, 3])).await.unwrap();
        let maps = cluster.all_at(9).await;
        assert!(maps.iter().all(|map| *map == maps[0]));
        cluster.crash(leader).await;
        cluster.leader_of(&[lost, other]).await;
        assert_eq!(cluster.voter(lost).propose(Change::Join(instance(10))).await.unwrap(), Ok(10));
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_never_comes_is_not_waited_for_and_can_be_dropped() {
    within(async {
        let times = Timings { catch_up_ms_max: 3_000, ..cluster::slow() };
        let cluster = Cluster::with(3, times).await;
        let leader = cluster.leader().await.0;
        for proposer in [leader, leader % 3 + 1] {
            let late = cluster.voter(proposer).change_voters(&ids(&[1, 2, 3, 4])).await.unwrap_err();
            assert!(late.to_string().contains("node 4 has not caught up"), "{late}");
        }
        cluster.voter(1).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        let mut status = cluster.voter(2).status();
        status.wait_for(|status| status.learners == ids(&[4])).await.unwrap();
        cluster.voter(1).change_voters(&ids(&[1, 2, 3])).await.unwrap();
        status.wait_for(|status| status.learners.is_empty()).await.unwrap();
        assert_eq!(status.borrow().voters, ids(&[1, 2, 3]));
    })
    .await;
}

#[tokio::test]
async fn of_two_that_put_at_the_same_version_one_is_refused() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        let mut version = 0;
        for round in 0..10_u8 {
            let [one, other] = [cluster.voter(1), cluster.voter(2)];
            let (one, other) = tokio::join!(
                one.put("owner", version, Some(vec![1, round])),
                other.put("owner", version, Some(vec![2, round])),
            );
            let (winner, refused, value) = match (one.unwrap(), other.unwrap()) {
                (Ok(winner), Err(refused)) => (winner, refused, vec![1, round]),
                (Err(refused), Ok(winner)) => (winner, refused, vec![2, round]),
                both => panic!("one of two must win: {both:?}"),
            };
            assert_eq!(refused, PutRefused::Version { found: winner });
            let mut table = cluster.voter(3).table();
            let seen = table.wait_for(|table| table.revision() >= winner).await.unwrap();
            assert_eq!(seen.get("owner").map(|item| &item.value), Some(&value));
            drop(seen);
            version = winner;
        }
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_is_far_behind_gets_the_snapshot() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        let leader = cluster.leader().await.0;
        let [behind, follower] = [1, 2].map(|step| (leader - 1 + step) % 3 + 1);
        cluster.crash(behind).await;
        let mut version = 0;
        for _ in 0..4 * cluster::SNAPSHOT_ENTRIES {
            let put = cluster.voter(leader).put("k", version, Some(vec![7; 1_000])).await;
            version = put.unwrap().unwrap();
        }
        cluster.voter(leader).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        let mut status = cluster.voter(follower).status();
        status.wait_for(|status| status.purged > Some(cluster::SNAPSHOT_ENTRIES)).await.unwrap();
        cluster.crash(leader).await;
        // Only the follower can lead: the other lacks entries, and the follower no longer has them.
        cluster.open(behind).await;
        cluster.all_at(1).await;
        let table = cluster.voter(behind).table();
        assert_eq!(table.borrow().get("k").map(|item| item.version), Some(version));
        let snapshots = |(_, to, kind)| to == NodeId(behind) && kind == "control.snapshot";
        assert!(cluster.net.count(snapshots) > 0, "it was sent as a snapshot");
        // What came as a snapshot is on its disk, too.
        cluster.crash(behind).await;
        cluster.net.isolate(NodeId(behind));
        cluster.open(behind).await;
        let table = cluster.voter(behind).table();
        assert_eq!(table.borrow().get("k").map(|item| item.version), Some(version));
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_was_cut_off_does_not_disturb_the_leader() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        let leader = cluster.leader().await;
        let term = cluster.voter(leader.0).status().borrow().term;
        let away = NodeId((1..=3).find(|node| *node != leader.0).unwrap());
        let votes = |(from, _, kind)| from == away && kind == "control.vote";
        let pre_votes = |(from, _, kind)| from == away && kind == "control.pre_vote";
        let (votes_before, pre_votes_before) = (cluster.net.count(votes), cluster.net.count(pre_votes));
        cluster.net.isolate(away);
        // Both others are asked, in several rounds.
        cluster.net.counted(pre_votes, pre_votes_before + 6).await;
        assert_eq!(cluster.net.count(votes), votes_before);
        cluster.voter(leader.0).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        cluster.net.heal();
        cluster.all_at(1).await;
        let status = cluster.voter(away.0).status().borrow().clone();
        assert_eq!((status.term, status.leader), (term, Some(leader)));
        assert_eq!(cluster.voter(leader.0).status().borrow().term, term);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_no_voter_proposes_through_any_that_answers() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        let outside: Arc<_> = cluster.net.wire(NodeId(9));
        for first in 1..=3 {
            let voters = (0..3).map(|at| NodeId((first - 1 + at) % 3 + 1));
            let proposer = Proposer::new(outside.clone(), voters, cluster::timings());
            let version = proposer.propose(Change::Join(instance(first))).await.unwrap();
            assert_eq!(version, Ok(u64::from(first)));
        }
        let proposer = Proposer::new(outside, [1, 2, 3].map(NodeId), cluster::timings());
        let leader = cluster.leader().await;
        cluster.net.refuse(NodeId(9), leader);
        assert_eq!(proposer.propose(Change::Join(instance(4))).await.unwrap(), Ok(4));
        cluster.net.heal();
        cluster.crash(1).await;
        assert_eq!(proposer.propose(Change::Down(instance(9))).await.unwrap(), Err(Refused::NotMember));
        assert_eq!(proposer.put("k", 0, Some(vec![1])).await.unwrap(), Ok(1));
        cluster.crash(2).await;
        cluster.voter(3).leads().wait_for(|leads| !leads).await.unwrap();
        let alone = proposer.propose(Change::Join(instance(5))).await.unwrap_err();
        assert!(matches!(alone, ControlError::NoLeader | ControlError::Unknown), "{alone}");
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_is_silent_is_not_asked_first_again() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        let leader = cluster.leader().await.0;
        let silent = leader % 3 + 1;
        cluster.net.isolate(NodeId(silent));
        let times = Timings { proposal_ms_max: 5_000, ..cluster::slow() };
        let voters = [silent, leader].map(NodeId);
        let proposer = Proposer::new(cluster.net.wire(NodeId(9)), voters, times);
        let unanswered = proposer.propose(Change::Join(instance(1))).await.unwrap_err();
        assert!(matches!(unanswered, ControlError::Unknown), "{unanswered}");
        assert_eq!(proposer.propose(Change::Join(instance(1))).await.unwrap(), Ok(1));
        assert_eq!(proposer.propose(Change::Join(instance(2))).await.unwrap(), Ok(2));
        let none = Proposer::new(cluster.net.wire(NodeId(9)), [], times);
        let nobody = none.propose(Change::Join(instance(3))).await.unwrap_err();
        assert!(matches!(nobody, ControlError::NoLeader), "{nobody}");
    })
    .await;
}

/// Its caller learns so as soon as there is another leader, and can look and try again.
#[tokio::test]
async fn a_proposal_on_its_way_to_a_leader_that_is_cut_off_is_given_up() {
    within(async {
        // Longer than the test may take.
        let times = Timings { proposal_ms_max: 600_000, ..cluster::timings() };
        let cluster = Cluster::with(3, times).await;
        let old = cluster.leader().await;
        let other = NodeId(old.0 % 3 + 1);
        let voter = cluster.voter(other.0);
        voter.status().wait_for(|status| status.leader == Some(old)).await.unwrap();
        let sent = |(from, to, kind)| from == other && to == old && kind == "control.propose";
        let before = cluster.net.count(sent);
        // It still hears the leader, and looks for no other until its proposal is on its way.
        cluster.net.cut(other, old);
        let proposing = voter.clone();
        let pending = tokio::spawn(async move { proposing.propose(Change::Join(instance(1))).await });
        cluster.net.counted(sent, before + 1).await;
        cluster.net.isolate(old);
        let unanswered = pending.await.unwrap().unwrap_err();
        assert!(matches!(unanswered, ControlError::Unknown), "{unanswered}");
        assert_eq!(voter.propose(Change::Join(instance(1))).await.unwrap(), Ok(1));
    })
    .await;
}

#[tokio::test]
async fn one_voter_alone_is_a_cluster() {
    within(async {
        let mut cluster = Cluster::founded(1).await;
        cluster.voter(1).leads().wait_for(|leads| *leads).await.unwrap();
        assert_eq!(cluster.voter(1).propose(Change::Join(instance(1))).await.unwrap(), Ok(1));
        cluster.crash(1).await;
        cluster.open(1).await;
        assert_eq!(cluster.voter(1).propose(Change::Join(instance(2))).await.unwrap(), Ok(2));
    })
    .await;
}

#[tokio::test]
async fn messages_that_make_no_sense_are_refused_and_change_nothing() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        let voter = cluster.voter(1);
        let refused = voter.handle("control.later", &[]).await.unwrap_err();
        assert!(matches!(refused, HandleError::UnknownKind(_)), "{refused}");
        for kind in sanso_control::KINDS {
            for body in [&b""[..], &[0xc1; 40], &[0x81, 0xa7]] {
                let refused = voter.handle(kind, body).await.unwrap_err();
                assert!(matches!(refused, HandleError::Body { .. }), "{kind}: {refused}");
            }
        }
        assert_eq!(voter.propose(Change::Join(instance(1))).await.unwrap(), Ok(1));
    })
    .await;
}

/// A proposal of a later version, which an earlier one has to pass on without knowing it.
#[derive(serde::Serialize)]
struct Written<T> {
    version: u16,
    message: T,
}

#[derive(serde::Serialize)]
struct Proposal {
    command: Sealed,
    forward: bool,
}

#[derive(Clone, serde::Serialize)]
struct Sealed {
    kind: &'static str,
    body: serde_bytes::ByteBuf,
    level: u32,
}

#[tokio::test]
async fn what_a_voter_may_not_know_is_not_proposed() {
    within(async {
        let cluster = Cluster::with(3, cluster::slow()).await;
        let leader = cluster.leader().await.0;
        cluster.voter(1).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        cluster.all_at(1).await;
        let nothing = serde_bytes::ByteBuf::from(rmp_serde::to_vec_named(&()).unwrap());
        let rebalance = Written { version: 1, message: Change::Rebalance };
        let rebalance = serde_bytes::ByteBuf::from(rmp_serde::to_vec_named(&rebalance).unwrap());
        let raised = Written { version: 1, message: 2 };
        let raised = serde_bytes::ByteBuf::from(rmp_serde::to_vec_named(&raised).unwrap());
        let last = cluster.voter(leader).status().borrow().last;
        for command in [
            Sealed { kind: "later", body: nothing, level: 2 },
            Sealed { kind: "change", body: rebalance, level: 2 },
            Sealed { kind: "level", body: raised, level: 1 },
        ] {
            for voter in 1..=3 {
                let message = Proposal { command: command.clone(), forward: true };
                let body = rmp_serde::to_vec_named(&Written { version: 1, message }).unwrap();
                let answer = cluster.voter(voter).handle("control.propose", &body).await.unwrap();
                let answer = answer.escape_ascii().to_string();
                assert!(answer.contains("UnknownKind"), "{}: {answer}", command.kind);
            }
        }
        cluster.voter(2).propose(Change::Join(instance(2))).await.unwrap().unwrap();
        cluster.all_at(2).await;
        assert_eq!(cluster.voter(leader).status().borrow().last, last.map(|last| last + 1));
    })
    .await;
}

#[tokio::test]
async fn a_folder_in_use_and_times_that_make_no_sense_are_refused() {
    within(async {
        let cluster = Cluster::founded(1).await;
        let wire: Arc<_> = cluster.net.wire(NodeId(1));
        let twice = ControlConfig::new(NodeId(1), "test", cluster.folder(1));
        let refused = sanso_control::Control::open(twice.clone(), wire.clone()).await.unwrap_err();
        assert!(matches!(refused, ControlError::Store(StoreError::Disk { .. })), "{refused}");
        let mut times = twice;
        times.timings.election_ms_min = times.timings.heartbeat_ms;
        let refused = sanso_control::Control::open(times, wire).await.unwrap_err();
        assert!(matches!(refused, ControlError::Config(_)), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn a_voter_that_takes_leave_frees_its_folder() {
    within(async {
        let mut cluster = Cluster::founded(3).await;
        cluster.voter(1).propose(Change::Join(instance(1))).await.unwrap().unwrap();
        for node in 1..=3 {
            cluster.take(node).await.shutdown().await;
            cluster.open(node).await;
        }
        let all: BTreeSet<u64> = cluster.all_at(1).await.iter().map(|map| map.version).collect();
        assert_eq!(all, BTreeSet::from([1]));
    })
    .await;
}
