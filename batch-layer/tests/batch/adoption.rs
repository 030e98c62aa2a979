//! The audit before adoption, and the adoption itself; which views a version extends.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sanso_batch::BatchConfig;
use sanso_catalog::AuditCounts;
use sanso_core::{
    Change, PartitionId, PartitionStore, Partitions, ReadReply, ReadRequest, Readable, StoreError,
};
use sanso_state::{
    Block, Cut, Delta, Entry, Groups, LogPartition, Offset, Outcome, SegmentId, ViewPartition,
};
use sanso_view::View;
use tokio::sync::broadcast;

use crate::crash::round;
use crate::support::{Life, SMALL, SOURCE, World, hasty};

/// Waits for the speed layer for two runs.
fn patient() -> BatchConfig {
    BatchConfig { adoption_wait_runs: 2, ..BatchConfig::default() }
}

/// Plays the speed layer for one view and log partition 0: sends a range's groups to each partition.
async fn send(life: &Life, view: &View, (from, to): (Offset, Offset), groups: &Groups) {
    for index in 0..view.partitions {
        let mine = groups.iter().filter(|(id, _)| view.partition_of(&id.key) == index);
        let delta = Delta {
            view: view.fingerprint,
            partition: LogPartition(0),
            from,
            to,
            groups: mine.collect(),
            watermark_us: None,
            idle: false,
        };
        let id = PartitionId { view: view.fingerprint, index };
        let outcome = life.store.submit(id, Entry::Delta(delta)).await.expect("live");
        assert_eq!(outcome, Outcome::Accepted { applied: to });
    }
}

/// What readings `[from, to)` of log partition 0 add to a view, by the oracle.
fn difference(world: &World, view: &View, from: Offset, to: Offset) -> Groups {
    let mut groups = world.oracle(view, &Cut::new(vec![to, 0]));
    groups.retract(&world.oracle(view, &Cut::new(vec![from, 0])));
    groups
}

#[tokio::test]
async fn speed_that_agrees_passes_the_audit_and_every_partition_adopts() {
    let mut world = World::new(SMALL).await;
    world.fill(6, 0);
    let life = world.start(patient()).await.expect("start");
    for view in &world.views {
        for from in [0, 3] {
            send(&life, view, (from, from + 3), &difference(&world, view, from, from + 3)).await;
        }
    }
    let report = life.run().await;
    // Six view partitions, two segments each.
    assert_eq!(report.audit, AuditCounts { compared: 12, skipped: 0, differing: 0 });
    assert_eq!((report.adopted, report.waiting), (6, 0));
    let progress = &world.board.batch()[SOURCE];
    assert_eq!((progress.version, progress.audit, &progress.cut), (1, report.audit, &Cut::new(vec![6, 0])));
    assert_eq!(progress.newest_rows, 6);
}

#[tokio::test]
async fn the_audit_finds_a_planted_fault_and_the_segment_is_rebuilt() {
    let mut world = World::new(SMALL).await;
    world.fill(6, 0);
    let life = world.start(patient()).await.expect("start");
    let view = world.views[2].clone();
    let id = PartitionId { view: view.fingerprint, index: 0 };
    for other in &world.views[..2] {
        for from in [0, 3] {
            send(&life, other, (from, from + 3), &difference(&world, other, from, from + 3)).await;
        }
    }
    // The speed layer counts the first segment's readings as those of both.
    send(&life, &view, (0, 3), &difference(&world, &view, 0, 6)).await;
    send(&life, &view, (3, 6), &difference(&world, &view, 3, 6)).await;
    let mut changes = life.store.changes(id).expect("live");
    let report = life.run().await;
    assert_eq!(report.audit, AuditCounts { compared: 12, skipped: 0, differing: 1 });
    let rebuilt = changes.try_recv().expect("the segment was rebuilt before the version was adopted");
    assert_eq!(rebuilt.groups.len(), 1);
    assert_eq!(world.board.batch()[SOURCE].audit.differing, 1);
    world.check(&view, &life.batch.ensure_published(&view).await.expect("published"));
}

#[tokio::test]
async fn a_group_that_only_speed_has_is_a_difference() {
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    let planted = difference(&world, &world.views[0], 0, 3);
    // The log holds nothing that could be decoded, but speed reports groups.
    let mut empty = World::new(SMALL).await;
    empty.log.append_hole(SOURCE, 0, 3).expect("a hole");
    empty.views.truncate(1);
    let life = empty.start(patient()).await.expect("start");
    send(&life, &empty.views[0].clone(), (0, 3), &planted).await;
    let report = life.run().await;
    assert!(report.audit.differing > 0, "{:?}", report.audit);
}

#[tokio::test]
async fn adoption_waits_for_the_speed_layer() {
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    world.views.truncate(1);
    let view = world.views[0].clone();
    let life = world.start(patient()).await.expect("start");
    let report = life.run().await;
    assert_eq!((report.version, report.adopted, report.waiting), (Some(1), 0, 3));
    assert_eq!(life.progress(&view, 0).await.version, 0);
    // While it waits no further version is made.
    world.fill(6, 0);
    assert_eq!(life.run().await.version, None);
    send(&life, &view, (0, 3), &difference(&world, &view, 0, 3)).await;
    let report = life.run().await;
    assert_eq!(report.audit, AuditCounts { compared: 3, skipped: 0, differing: 0 });
    assert_eq!(report.adopted, 3);
    assert_eq!(report.version, Some(2), "and the next version follows at once");
}

#[tokio::test]
async fn adoption_does_not_wait_for_ever() {
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    world.views.truncate(1);
    let life = world.start(patient()).await.expect("start");
    assert_eq!(life.run().await.waiting, 3);
    assert_eq!(life.run().await.waiting, 3);
    let report = life.run().await;
    assert_eq!(report.audit, AuditCounts { compared: 0, skipped: 3, differing: 0 });
    assert_eq!((report.adopted, report.waiting), (3, 0));
    assert_eq!(life.progress(&world.views[0], 0).await.applied, [3, 0]);
}

#[tokio::test]
async fn a_view_partition_that_was_left_behind_is_offered_the_version_in_force() {
    let mut world = World::new(SMALL).await;
    let life = world.start(patient()).await.expect("start");
    let view = world.views[0].clone();
    life.store.remove(view.fingerprint);
    world.fill(3, 0);
    life.run().await;
    // It comes back empty, as after losing every replica.
    let config = view.partition_config();
    for index in 0..view.partitions {
        let block = Arc::new(Block::empty(view.fingerprint, 2));
        let id = PartitionId { view: view.fingerprint, index };
        life.store.create(id, ViewPartition::new(config.clone(), block));
    }
    for _ in 0..3 {
        life.run().await;
    }
    assert_eq!(life.progress(&view, 0).await.version, 1);
}

#[tokio::test]
async fn a_view_that_comes_and_goes_between_two_runs_is_not_extended() {
    let mut world = World::new(SMALL).await;
    let life = world.boot(hasty());
    let (stays, goes) = (Arc::clone(&world.views[0]), Arc::clone(&world.views[1]));
    let live = |view: &Arc<View>, is_live: bool| {
        life.catalog.update(|catalog| {
            catalog.live.remove(&view.fingerprint);
            catalog.live.extend(is_live.then(|| (view.fingerprint, Arc::clone(view))));
        });
    };
    live(&stays, true);
    round(&mut world, 0);
    let report = life.run().await;
    assert_eq!(
        (report.contributions, report.segments.len()),
        (report.segments.len() as u64, report.segments.len())
    );
    // It goes once it was asked for, or has gone when its turn comes.
    for is_live in [true, false] {
        live(&goes, is_live);
        let mut views = life.batch.live_views(&[Arc::clone(&goes)]).await.expect("computed");
        assert_eq!(views.blocks(&goes, &[0]).await.expect("loaded").is_some(), is_live);
    }
    round(&mut world, 1);
    let report = life.run().await;
    assert!(!report.segments.is_empty());
    assert_eq!(report.contributions, report.segments.len() as u64, "one view has contributions, not two");
}

/// Partitions of which others hold copies, that take note of what they are sent.
struct Copied {
    held: PartitionStore,
    sent: Mutex<Vec<&'static str>>,
}

#[async_trait]
impl Partitions for Copied {
    async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError> {
        match &entry {
            Entry::Extend(_) => self.sent.lock().push("what it adds"),
            Entry::Adopt(_) => self.sent.lock().push("the block"),
            _ => {}
        }
        self.held.submit(id, entry).await
    }

    async fn read(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        _: &[Offset],
    ) -> Result<ReadReply, StoreError> {
        self.held.read(id, request).await
    }

    fn is_in_touch(&self) -> bool {
        true
    }

    async fn segment(&self, _: PartitionId, _: SegmentId) -> Result<Option<Groups>, StoreError> {
        Ok(None)
    }

    fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        self.held.changes(id)
    }

    fn groups(&self) -> u64 {
        self.held.groups()
    }

    fn emits_here(&self) -> Vec<(PartitionId, Readable)> {
        Vec::new()
    }
}

#[tokio::test]
async fn copies_are_sent_what_a_version_adds_and_the_block_only_where_that_does_not_do() {
    let mut world = World::new(SMALL).await;
    world.views.truncate(1);
    let view = Arc::clone(&world.views[0]);
    let copied = Arc::new(Copied { held: PartitionStore::new(), sent: Mutex::default() });
    let life =
        world.boot_with(hasty(), PartitionStore::of_cluster(Arc::clone(&copied) as Arc<dyn Partitions>));
    let make = |index, block| {
        let id = PartitionId { view: view.fingerprint, index };
        copied.held.create(id, ViewPartition::new(view.partition_config(), block));
    };
    (0..3).for_each(|index| make(index, Arc::new(Block::empty(view.fingerprint, 2))));
    life.catalog.update(|catalog| _ = catalog.live.insert(view.fingerprint, Arc::clone(&view)));
    let sent = || {
        let mut sent = std::mem::take(&mut *copied.sent.lock());
        sent.sort_unstable();
        sent
    };
    world.fill(3, 0);
    life.run().await;
    assert_eq!(sent(), ["what it adds"; 3]);
    // One comes back empty, as after losing every replica, when the next version is there already.
    world.fill(6, 0);
    make(0, Arc::new(Block::empty(view.fingerprint, 2)));
    life.run().await;
    assert_eq!(sent(), ["the block", "what it adds", "what it adds", "what it adds"]);
    for (index, block) in life.batch.ensure_published(&view).await.expect("published").iter().enumerate() {
        let id = PartitionId { view: view.fingerprint, index: index as u32 };
        let (_, held) = copied.held.held_here().into_iter().find(|(held, _)| *held == id).expect("held");
        assert_eq!(held.base(id).expect("it is one block").as_ref(), block.as_ref());
    }
}
