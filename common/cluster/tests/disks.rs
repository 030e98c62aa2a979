//! Groups on a local disk that hangs, or loses them: the other replicas answer.

#[allow(dead_code, reason = "shared with the other tests")]
mod world;

use std::collections::BTreeMap;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use sanso_core::{PartitionStore, ReadRequest};
use sanso_state::{
    AggregateKind, Block, Cut, Entry, Groups, Outcome, Part, RunError, RunGroups, RunStore, SortedRun, Value,
};
use world::{World, config, delta, id, shows, view};

/// A disk that answers, hangs, or fails, as it is told.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    hangs: Mutex<bool>,
    let_go: Condvar,
    fails: AtomicBool,
    asked: AtomicU64,
}

impl Disk {
    fn hang(&self, hangs: bool) {
        *self.0.hangs.lock().expect("no panic while it is held") = hangs;
        self.0.let_go.notify_all();
    }

    fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }
}

impl RunStore for Disk {
    fn write(&self, _: &Arc<[AggregateKind]>, groups: RunGroups<'_>) -> Result<Arc<dyn SortedRun>, RunError> {
        Ok(Arc::new(Run { disk: self.clone(), groups: groups.collect::<Result<_, _>>()? }))
    }
}

#[derive(Debug)]
struct Run {
    disk: Disk,
    groups: Groups,
}

impl SortedRun for Run {
    fn groups(&self) -> u64 {
        self.groups.len() as u64
    }

    fn read<'a>(&'a self, part: Part<'a>) -> RunGroups<'a> {
        let Disk(disk) = &self.disk;
        disk.asked.fetch_add(1, Ordering::Relaxed);
        let hangs = disk.hangs.lock().expect("no panic while it is held");
        let _let_go = disk.let_go.wait_while(hangs, |hangs| *hangs).expect("no panic while it is held");
        match disk.fails.load(Ordering::Relaxed) {
            true => Box::new(iter::once(Err(RunError("torn".to_owned())))),
            false => self.groups.read(part),
        }
    }
}

/// Returns how many rows the only key has, for somebody who has seen so many offsets.
async fn rows_of_the_key(store: &PartitionStore, seen: u64) -> i64 {
    let keys = vec![Value::encode_key(&[Value::text("a meter")])];
    rows_of(store, ReadRequest::Keys { keys, from: i64::MIN, to: i64::MAX }, seen).await
}

async fn rows_of(store: &PartitionStore, read: ReadRequest, seen: u64) -> i64 {
    let reply = store.read_as_seen(id(0), &read, &[seen]).await.expect("somebody answers");
    reply.groups.iter().map(|(_, state)| state.rows).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_disk_hangs_or_loses_groups_the_other_replicas_answer() {
    let world = World::new(9);
    let mut nodes = BTreeMap::new();
    for node in 1..=3 {
        nodes.insert(node, world.start(node).await);
    }
    for node in nodes.values() {
        world.whole(node).await;
    }
    let base = Block {
        version: 1,
        cut: Cut::new(vec![1_000]),
        groups: delta(0, 1_000).groups,
        ..Block::empty(view(), 1)
    };
    nodes[&1].create(id(0), config(), Arc::new(base)).await.expect("made");
    for node in nodes.values() {
        shows(&node.store(), 0, 1_000).await;
    }
    let (disk, store) = (Disk::default(), nodes[&1].store());
    let (_, held) = store.held_here().into_iter().find(|(held, _)| *held == id(0)).expect("it is held");
    assert_eq!(held.spill(id(0), &disk, 1), Ok(true));
    assert_eq!(
        (rows_of_the_key(&store, 1_000).await, disk.asked() > 0),
        (1_000, true),
        "its own disk is read"
    );
    // However many readers come.
    disk.hang(true);
    for _ in 0..3 {
        assert_eq!(rows_of_the_key(&store, 1_000).await, 1_000);
    }
    // Who writes does not wait for the disk.
    let written = store.submit(id(0), Entry::Delta(delta(1_000, 1_001))).await.expect("it is live");
    assert_eq!(written, Outcome::Accepted { applied: 1_001 });
    disk.hang(false);
    // The others show it a little later than the writer heard of it.
    for node in [2, 3] {
        shows(&nodes[&node].store(), 0, 1_001).await;
    }
    disk.0.fails.store(true, Ordering::Relaxed);
    assert_eq!(rows_of_the_key(&store, 1_001).await, 1_001);
    let all = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
    assert_eq!(rows_of(&store, all, 1_001).await, 1_001);
    for node in nodes.into_values() {
        node.shutdown().await;
    }
}
