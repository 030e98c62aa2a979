//! A state of several pieces on its way between nodes, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sanso_core::cluster::NodeId;
use sanso_peer::{Handler, Lane, Refusal, Speaker};
use sanso_state::{Block, Cut, GroupId, Groups, Value};

use super::Hub;
use crate::start::{ClusterNode, Faces};
use crate::wire::{self, Heard};
use crate::world::{LOOK, PATIENCE, World, config, feed, id, kinds, kinds_of, view};

/// More than one piece holds.
const GROUPS: i64 = 250_000;

/// A node's face that counts pieces, and loses one.
struct Lossy {
    hub: Arc<Hub>,
    heard: Arc<AtomicU64>,
    /// How many second pieces are still to be lost.
    loses: AtomicU64,
}

#[async_trait]
impl Handler for Lossy {
    fn message(&self, from: Speaker, lane: Lane, bytes: Bytes) {
        let heard = if lane == Lane::Data { wire::heard(&bytes).ok() } else { None };
        if let Some(Heard::Piece(piece)) = heard {
            self.heard.fetch_add(1, Ordering::SeqCst);
            if piece.number == 1 && self.loses.swap(0, Ordering::SeqCst) > 0 {
                return;
            }
        }
        Handler::message(&*self.hub, from, lane, bytes);
    }

    fn broken(&self, node: NodeId) {
        Handler::broken(&*self.hub, node);
    }

    async fn call(&self, from: Speaker, kind: &str, body: Bytes) -> Result<Bytes, Refusal> {
        Handler::call(&*self.hub, from, kind, body).await
    }
}

fn large() -> Arc<Block> {
    let mut groups = Groups::new();
    for number in 0..GROUPS {
        let key = Value::encode_key(&[Value::text(format!("meter {number}"))]);
        groups.update_one(&kinds(), &GroupId { key, window_start: 0 }, &[None], 1);
    }
    Arc::new(Block { view: view(), version: 1, cut: Cut::new(vec![0]), watermarks_us: vec![None], groups })
}

async fn start(world: &World, node: u16, loses: u64, heard: &Arc<AtomicU64>) -> ClusterNode {
    let mut config = world.config(node);
    // So that who was away is sent the state.
    config.core.replica.kept_max = 1;
    let heard = Arc::clone(heard);
    let faces = |hub: &Arc<Hub>| {
        let lossy = Lossy { hub: Arc::clone(hub), heard, loses: AtomicU64::new(loses) };
        Faces { outside: Arc::clone(hub) as _, handler: Arc::new(lossy) as _ }
    };
    ClusterNode::start_behind(config, kinds_of(), faces).await.expect("it starts")
}

/// Waits until a node holds all groups of the large view partition.
async fn holds(node: &ClusterNode, groups: u64) {
    let held = || node.replicas().iter().map(|held| held.groups).max().unwrap_or(0);
    let has_come = async {
        while held() != groups {
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, has_come).await.is_ok(), "{} of {groups} groups", held());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_is_sent_the_state_in_pieces_and_again_if_one_is_lost() {
    let world = World::new(11);
    let heard = Arc::new(AtomicU64::new(0));
    let mut nodes = Vec::new();
    for node in 1..=3 {
        nodes.push(start(&world, node, 0, &heard).await);
    }
    world.whole(&nodes[0]).await;
    nodes[0].create(id(0), config(), large()).await.expect("made");
    // Its key is none of the base's.
    feed(&nodes[0].store(), 0, 5).await;
    for loses in [0, 1] {
        let before = heard.load(Ordering::SeqCst);
        nodes.pop().expect("it runs").shutdown().await;
        nodes.push(start(&world, 3, loses, &heard).await);
        world.whole(&nodes[2]).await;
        let groups = GROUPS as u64 + 1;
        holds(&nodes[2], groups).await;
        assert_eq!(nodes[2].replicas().iter().map(|held| held.groups).sum::<u64>(), groups);
        let pieces = heard.load(Ordering::SeqCst) - before;
        assert!(pieces >= if loses > 0 { 4 } else { 2 }, "{pieces} pieces, {loses} lost");
    }
    feed(&nodes[2].store(), 0, 9).await;
    for node in &nodes {
        holds(node, GROUPS as u64 + 1).await;
    }
}
