//! Who votes in control changes while the cluster runs, and is kept over restarts.

#[allow(dead_code, reason = "shared with the other tests")]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sanso_cluster::{Change, ClusterNode, NodeId, VotersError};
use world::{LOOK, World};

/// How long the cluster may take over a change; longer than a node waits for an answer, or a leader.
const PATIENCE: Duration = Duration::from_secs(60);

type Nodes = BTreeMap<u16, ClusterNode>;

fn ids(nodes: &[u16]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

async fn start(world: &World, nodes: &[u16]) -> Nodes {
    let mut started = Nodes::new();
    for node in nodes {
        started.insert(*node, world.start(*node).await);
    }
    started
}

async fn stop(nodes: &mut Nodes, node: u16) {
    nodes.remove(&node).expect("it runs").shutdown().await;
}

/// Waits until all nodes know these as the voters.
async fn known(nodes: &Nodes, voters: &[u16]) {
    for (node, started) in nodes {
        let mut maps = started.maps();
        let known = maps.wait_for(|map| map.voters == ids(voters));
        let known = tokio::time::timeout(PATIENCE, known).await;
        assert!(known.is_ok(), "{node} knows {:?}", started.maps().borrow().voters);
    }
}

/// Waits until a node is seen to take part in control like this.
async fn seen(by: &ClusterNode, node: u16, part: &str) {
    let seen = async {
        while by.voters().await.part(NodeId(node)) != part {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("in time");
}

/// Has the cluster agree on something, twice.
async fn agree(by: &ClusterNode) {
    let agreed = async {
        for draining in [true, false] {
            while by.propose(Change::Drain(NodeId(2), draining)).await.is_err() {}
        }
    };
    tokio::time::timeout(PATIENCE, agreed).await.expect("most of the voters are there");
}

fn refused(result: Result<Option<String>, VotersError>) -> String {
    match result {
        Err(VotersError::Refused(why)) => why,
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_is_replaced_and_the_next_loss_is_survived() {
    let world = World::of(3, 4);
    let mut nodes = start(&world, &[1, 2, 3, 4]).await;
    known(&nodes, &[1, 2, 3]).await;
    stop(&mut nodes, 3).await;
    // Node 4 does not vote, and sees who does.
    seen(&nodes[&4], 3, "does not answer").await;
    seen(&nodes[&4], 4, "waits").await;
    // Node 3 may have led.
    agree(&nodes[&4]).await;
    let silent = refused(nodes[&4].change_voters(&ids(&[1, 2, 3, 4, 9]), false).await);
    assert!(silent.contains("node 9 is none of the cluster's nodes"), "{silent}");
    assert_eq!(nodes[&4].change_voters(&ids(&[1, 2, 4]), false).await.expect("4 answers"), None);
    known(&nodes, &[1, 2, 4]).await;

    stop(&mut nodes, 1).await;
    agree(&nodes[&2]).await;

    // Its own file and folder say that node 3 votes, and that node 4 does not: what is agreed counts.
    nodes.insert(3, world.start(3).await);
    known(&nodes, &[1, 2, 4]).await;
    seen(&nodes[&3], 3, "waits").await;
    agree(&nodes[&3]).await;
    stop(&mut nodes, 4).await;
    let alone = nodes[&3].propose(Change::Drain(NodeId(2), true)).await;
    assert!(alone.is_err(), "{alone:?}: of those who vote, only node 2 is there");
    nodes.insert(4, world.start(4).await);
    agree(&nodes[&3]).await;
    seen(&nodes[&3], 4, "votes").await;
    for node in [2, 3, 4] {
        stop(&mut nodes, node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_lost_its_folder_takes_no_part_until_it_was_taken_out() {
    let world = World::of(4, 4);
    let mut nodes = start(&world, &[1, 2, 3, 4]).await;
    known(&nodes, &[1, 2, 3]).await;
    stop(&mut nodes, 3).await;
    std::fs::remove_dir_all(world.config(3).folder.join("control")).expect("it was there");
    nodes.insert(3, world.start(3).await);
    seen(&nodes[&1], 3, "lost its folder").await;
    agree(&nodes[&3]).await;
    let part = nodes[&1].voters().await.nodes[&NodeId(3)].clone().expect("it answers");
    assert_eq!((part.applied, part.voters), (None, BTreeSet::new()), "it hears nothing of control");
    let again = refused(nodes[&1].change_voters(&ids(&[1, 2, 3]), true).await);
    assert!(
        again.contains("node 3 votes and has lost its folder: first take it out (voters 1,2,"),
        "{again}"
    );

    nodes[&1].change_voters(&ids(&[1, 2, 4]), false).await.expect("all of them answer");
    known(&nodes, &[1, 2, 4]).await;
    seen(&nodes[&1], 3, "waits").await;
    nodes[&1].change_voters(&ids(&[1, 2, 3]), false).await.expect("it has begun anew");
    known(&nodes, &[1, 2, 3]).await;
    seen(&nodes[&2], 3, "votes").await;
    stop(&mut nodes, 4).await;
    stop(&mut nodes, 1).await;
    agree(&nodes[&3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_comes_for_the_first_time_needs_nobody() {
    let world = World::new(5);
    let mut nodes = start(&world, &[1, 2]).await;
    known(&nodes, &[1, 2]).await;
    agree(&nodes[&1]).await;
    nodes.insert(3, world.start(3).await);
    known(&nodes, &[1, 2, 3]).await;
    stop(&mut nodes, 1).await;
    agree(&nodes[&3]).await;
}
