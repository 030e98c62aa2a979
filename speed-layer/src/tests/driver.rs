//! The running layer over a log, a dataset and view partitions: restarts, lost
//! indexes, views that come and go.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sanso_catalog::{Catalog, CatalogHandle, Order, StatusBoard};
use sanso_core::{
    Change, PartitionId, PartitionStore, Partitions, ReadReply, ReadRequest, Readable, StoreError,
};
use sanso_dataset::{Dataset, Manifest};
use sanso_log::{Append, Batch, Log, LogError, MemoryLog, Record, TopicSpec};
use sanso_state::{
    Block, Cut, Division, Entry, Groups, LogPartition, Offset, Outcome, SegmentId, ViewPartition,
};
use sanso_view::View;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::{Dice, LOG_PARTITIONS, append, expected, history, meter, reading, views};
use crate::config::SpeedConfig;
use crate::open_index::index_path;
use crate::service::{SpeedHandle, SpeedLayer};

struct World {
    views: Vec<Arc<View>>,
    log: Arc<MemoryLog>,
    logs: Vec<Vec<Option<Record>>>,
    dataset: Dataset,
    store: PartitionStore,
    catalog: CatalogHandle,
    board: StatusBoard,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let views = views();
        let log = Arc::new(MemoryLog::new());
        log.ensure_topic(&TopicSpec::new("readings", LOG_PARTITIONS)).await.expect("make the topic");
        let mut catalog = Catalog::default();
        catalog.sources.insert("readings".into(), Arc::clone(&views[0].source));
        let world = Self {
            log,
            logs: vec![Vec::new(); LOG_PARTITIONS as usize],
            dataset: Dataset::in_memory(),
            store: PartitionStore::new(),
            catalog: CatalogHandle::new(catalog),
            board: StatusBoard::new(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            views,
        };
        world.views.iter().for_each(|view| world.make_live(view, None));
        world
    }

    /// Makes a view live, from a block for each view partition or the empty ones.
    fn make_live(&self, view: &Arc<View>, blocks: Option<Vec<Arc<Block>>>) {
        for index in 0..view.partitions {
            let empty = || Arc::new(Block::empty(view.fingerprint, LOG_PARTITIONS));
            let block = blocks.as_ref().map_or_else(empty, |blocks| Arc::clone(&blocks[index as usize]));
            let id = PartitionId { view: view.fingerprint, index };
            self.store.create(id, ViewPartition::new(view.partition_config(), block));
        }
        self.catalog.update(|catalog| {
            catalog.live.insert(view.fingerprint, Arc::clone(view));
            catalog.serving.insert(view.name.clone(), view.fingerprint);
        });
    }

    /// Appends a random history to both log partitions.
    fn fill(&mut self, length: u64, seed: u64) {
        let mut dice = Dice::new(seed);
        for l in 0..LOG_PARTITIONS {
            for record in history(l, length, &mut dice) {
                match record {
                    None => {
                        self.log.append_hole("readings", l, 1).expect("append a hole");
                        self.logs[l as usize].push(None);
                    }
                    Some(record) => {
                        let payload = String::from_utf8_lossy(&record.payload).into_owned();
                        self.append(l, &payload);
                    }
                }
            }
        }
    }

    fn append(&mut self, l: u32, payload: &str) {
        let offsets = self.log.append_now("readings", l, vec![append(payload)]).expect("append");
        self.logs[l as usize].push(Some(super::record(offsets[0], payload)));
    }

    /// Starts the layer as a new process does, with a board of its own.
    async fn start(&mut self) -> SpeedHandle {
        self.start_on(self.log.clone(), 1).await
    }

    async fn start_on(&mut self, log: Arc<dyn Log>, flush_ms: u64) -> SpeedHandle {
        self.start_with(log, self.store.clone(), flush_ms).await
    }

    async fn start_with(&mut self, log: Arc<dyn Log>, store: PartitionStore, flush_ms: u64) -> SpeedHandle {
        self.board = StatusBoard::new();
        let mut config = SpeedConfig::new(self.folder.path());
        (config.flush_ms, config.chunk_records_max, config.heartbeat_ms) = (flush_ms, 7, 20);
        let started = SpeedLayer::start(
            config,
            log,
            self.dataset.clone(),
            self.catalog.clone(),
            store,
            self.board.clone(),
        );
        started.await.expect("start")
    }

    async fn assert_exact(&self) {
        let logs: Vec<&[Option<Record>]> = self.logs.iter().map(Vec::as_slice).collect();
        for view in self.catalog.current().live.values() {
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                let all = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
                let reply = self.store.read(id, &all).await.expect("live");
                let held: Groups = reply.groups.into_iter().collect();
                assert_eq!(held, expected(view, index, &logs), "{} {index}", view.name);
            }
        }
    }

    /// Commits a manifest at a cut, with the newest-version table below it, as
    /// the batch layer does. Returns the views' blocks.
    async fn archive(&self, cut: Vec<Offset>) -> BTreeMap<sanso_state::Fingerprint, Vec<Arc<Block>>> {
        let source = &self.views[0].source;
        let mut newest = Vec::new();
        for (l, &to) in cut.iter().enumerate() {
            let partition = LogPartition(l as u32);
            newest.extend(self.newest_file(partition, to).await);
        }
        let manifest = Manifest {
            version: 1,
            cut: Cut::new(cut.clone()),
            newest,
            ..Manifest::beginning(&source.name, LOG_PARTITIONS, source.segment_size)
        };
        self.dataset.commit(&manifest).await.expect("commit");
        let logs: Vec<_> = self.logs.iter().zip(&cut).map(|(log, &to)| &log[..to as usize]).collect();
        let block = |view: &Arc<View>, index| {
            Arc::new(Block {
                view: view.fingerprint,
                version: 1,
                cut: Cut::new(cut.clone()),
                watermarks_us: vec![None; LOG_PARTITIONS as usize],
                groups: expected(view, index, &logs),
            })
        };
        let blocks = |view: &Arc<View>| (0..view.partitions).map(|index| block(view, index)).collect();
        self.views.iter().map(|view| (view.fingerprint, blocks(view))).collect()
    }

    /// Writes the newest versions below an offset: found by brute force.
    async fn newest_file(&self, partition: LogPartition, to: Offset) -> Option<sanso_dataset::NewestFile> {
        let source = &self.views[0].source;
        let records: Vec<&Record> = self.logs[partition.index()][..to as usize].iter().flatten().collect();
        let decoded = source.decode(records.iter().map(|record| record.payload.as_ref()));
        let (ids, versions) = (source.identities(&decoded.rows), source.versions(&decoded.rows));
        let mut best: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (row, id) in ids.iter().enumerate() {
            let key = source.keys(&decoded.rows).value(row);
            if sanso_log::partition_for_key(key.as_bytes(), source.partitions) != partition.0 {
                continue;
            }
            let kept = best.entry(id).or_insert(row);
            if versions[row] > versions[*kept] {
                *kept = row;
            }
        }
        let rows: Vec<u32> = best.values().map(|&row| row as u32).collect();
        let offsets = best.values().map(|&row| records[decoded.index[row]].offset).collect::<Vec<_>>();
        let taken = arrow::compute::take_record_batch(&decoded.rows, &arrow::array::UInt32Array::from(rows));
        let times = vec![0; offsets.len()];
        // A segment file has the very columns of the table's files.
        let segment = SegmentId { partition, index: 1_000 };
        let order = {
            let mut order: Vec<usize> = (0..offsets.len()).collect();
            order.sort_by_key(|&at| offsets[at]);
            order
        };
        let picks = arrow::array::UInt32Array::from(order.iter().map(|&at| at as u32).collect::<Vec<_>>());
        let sorted = arrow::compute::take_record_batch(&taken.expect("take"), &picks).expect("take");
        let offsets = order.into_iter().map(|at| offsets[at]).collect();
        let file = self.dataset.put_segment("readings", segment, &sorted, offsets, times).await.expect("put");
        let rows = self.dataset.read_segment("readings", &file).await.expect("read");
        let fingerprint = file.content;
        let put = self.dataset.put_newest("readings", 1, partition, None, fingerprint, rows).await;
        Some(put.expect("put"))
    }

    /// Lists where the source's refused records are within a range.
    fn refused(&self, range: std::ops::Range<Offset>) -> Vec<(u32, Offset)> {
        let store = self.board.quarantine().expect("connected");
        let mut found = Vec::new();
        for l in 0..LOG_PARTITIONS {
            let mut visit = |record: sanso_state::Quarantined| {
                found.push((record.partition, record.offset));
                ControlFlow::Continue(())
            };
            store.visit("readings", l, range.clone(), Order::Rising, &mut visit).expect("visit");
        }
        found
    }

    /// Counts the source's refused records within a range.
    fn refused_count(&self, range: std::ops::Range<Offset>) -> usize {
        let store = self.board.quarantine().expect("connected");
        let count = |l| store.counts("readings", l, range.clone()).expect("count").total() as usize;
        (0..LOG_PARTITIONS).map(count).sum()
    }

    fn lose_index(&self, l: u32) {
        let path = index_path(self.folder.path(), "readings", LogPartition(l));
        std::fs::remove_dir_all(path).expect("the index is there");
    }
}

/// A log that withholds a record of log partition 0, and what follows it, until it is let go.
struct Withholding {
    log: Arc<MemoryLog>,
    from: AtomicU64,
}

#[async_trait::async_trait]
impl Log for Withholding {
    async fn ensure_topic(&self, spec: &TopicSpec) -> sanso_log::Result<()> {
        self.log.ensure_topic(spec).await
    }

    async fn partitions(&self, topic: &str) -> sanso_log::Result<u32> {
        self.log.partitions(topic).await
    }

    async fn append(&self, topic: &str, l: u32, records: Vec<Append>) -> sanso_log::Result<Vec<u64>> {
        self.log.append(topic, l, records).await
    }

    async fn read(
        &self,
        topic: &str,
        l: u32,
        from: u64,
        records: usize,
        bytes: usize,
    ) -> sanso_log::Result<Batch> {
        let mut batch = self.log.read(topic, l, from, records, bytes).await?;
        let held = self.from.load(Ordering::SeqCst);
        if l == 0 && from >= held {
            let reason = format!("record {held} waits");
            return Err(LogError::Unavailable { action: "read", reason });
        }
        if l == 0 && batch.next > held {
            batch.records.retain(|record| record.offset < held);
            batch.next = held;
        }
        Ok(batch)
    }

    async fn start_offset(&self, topic: &str, l: u32) -> sanso_log::Result<u64> {
        self.log.start_offset(topic, l).await
    }

    async fn end_offset(&self, topic: &str, l: u32) -> sanso_log::Result<u64> {
        self.log.end_offset(topic, l).await
    }

    async fn wait_beyond(&self, topic: &str, l: u32, from: u64) -> sanso_log::Result<u64> {
        self.log.wait_beyond(topic, l, from).await
    }

    async fn trim(&self, topic: &str, l: u32, before: u64) -> sanso_log::Result<()> {
        self.log.trim(topic, l, before).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_before_a_withheld_record_is_visible_and_what_holds_the_rest_is_said() {
    let mut world = World::new().await;
    world.fill(40, 8);
    let log = Arc::new(Withholding { log: Arc::clone(&world.log), from: AtomicU64::new(25) });
    // A worker reads up to the record long before it would flush.
    let handle = world.start_on(log.clone(), 500).await;
    for index in 0..world.views[0].partitions {
        let id = PartitionId { view: world.views[0].fingerprint, index };
        while world.store.read(id, &ReadRequest::Progress).await.expect("live").progress.applied[0] != 25 {
            tokio::task::yield_now().await;
        }
    }
    while world.board.troubles().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(world.board.troubles()["readings"][&0].contains("record 25 waits"));
    let told = world.board.speed()["readings"][&0].clone();
    assert_eq!((told.position, told.end), (25, 40));
    log.from.store(u64::MAX, Ordering::SeqCst);
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    assert!(world.board.troubles()["readings"].is_empty());
    handle.shutdown().await;
}

/// View partitions of which one takes no delta until it is let go.
struct Held {
    store: PartitionStore,
    held: PartitionId,
    /// Told of each delta for that one.
    asked: Notify,
    let_go: CancellationToken,
}

#[async_trait::async_trait]
impl Partitions for Held {
    async fn submit(&self, id: PartitionId, entry: Entry) -> Result<Outcome, StoreError> {
        if id == self.held {
            self.asked.notify_one();
            self.let_go.cancelled().await;
        }
        self.store.submit(id, entry).await
    }

    async fn read(
        &self,
        id: PartitionId,
        request: &ReadRequest,
        _: &[Offset],
    ) -> Result<ReadReply, StoreError> {
        self.store.read(id, request).await
    }

    fn is_in_touch(&self) -> bool {
        true
    }

    async fn segment(&self, id: PartitionId, _: SegmentId) -> Result<Option<Groups>, StoreError> {
        Err(StoreError::NotLive(id))
    }

    fn changes(&self, id: PartitionId) -> Result<broadcast::Receiver<Arc<Change>>, StoreError> {
        self.store.changes(id)
    }

    fn groups(&self) -> u64 {
        self.store.groups()
    }

    fn emits_here(&self) -> Vec<(PartitionId, Readable)> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_partition_that_does_not_answer_holds_up_no_other_and_then_has_everything() {
    let mut world = World::new().await;
    world.fill(10, 11);
    let held = PartitionId { view: world.views[0].fingerprint, index: 0 };
    let (asked, let_go) = (Notify::new(), CancellationToken::new());
    let partitions = Arc::new(Held { store: world.store.clone(), held, asked, let_go });
    let store = PartitionStore::of_cluster(partitions.clone());
    let handle = world.start_with(world.log.clone(), store, 1).await;
    partitions.asked.notified().await;
    // More than once, so that what comes later finds it waiting.
    for seed in 12..15 {
        world.fill(10, seed);
        let end = world.logs[0].len() as Offset;
        let others = world
            .views
            .iter()
            .flat_map(|view| (0..view.partitions).map(|index| PartitionId { view: view.fingerprint, index }));
        for id in others.filter(|id| *id != held) {
            while world.store.read(id, &ReadRequest::Progress).await.expect("live").progress.applied
                != [end; 2]
            {
                tokio::task::yield_now().await;
            }
        }
        let waits = world.store.read(held, &ReadRequest::Progress).await.expect("live");
        assert_eq!(waits.progress.applied, [0; 2]);
    }
    partitions.let_go.cancel();
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    handle.shutdown().await;
}

fn current_file(path: &Path) -> std::path::PathBuf {
    path.join("CURRENT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_follow_the_log_and_a_restart_with_nothing_in_memory_carries_on() {
    let mut world = World::new().await;
    world.fill(40, 1);
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    world.fill(30, 2);
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    let counts = world.board.speed()["readings"][&0].counts;
    let refused = world.refused(0..Offset::MAX);
    handle.shutdown().await;
    world.fill(10, 3);
    // The process is gone: view partitions start empty, indexes are on disk.
    world.views.iter().for_each(|view| world.make_live(view, None));
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    let after = world.board.speed()["readings"][&0].counts;
    assert!(after.records > counts.records && after.records <= 80, "each record is counted once: {after:?}");
    let progress = world.board.speed()["readings"][&1].clone();
    assert_eq!((progress.position, progress.end), (80, 80));
    let listed = world.refused(0..Offset::MAX);
    assert!(!refused.is_empty() && refused.iter().all(|at| listed.contains(at)), "{refused:?} {listed:?}");
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_index_is_rebuilt_from_the_dataset_and_the_log() {
    let mut world = World::new().await;
    world.fill(40, 4);
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    handle.shutdown().await;
    let blocks = world.archive(vec![24, 16]).await;
    for l in 0..LOG_PARTITIONS {
        world.log.trim("readings", l, [24, 16][l as usize]).await.expect("trim");
    }
    world.views.iter().for_each(|view| world.make_live(view, blocks.get(&view.fingerprint).cloned()));
    world.lose_index(0);
    let broken = index_path(world.folder.path(), "readings", LogPartition(1));
    std::fs::write(current_file(&broken), "MANIFEST-999999\n").expect("break the index");
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    world.fill(20, 5);
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_lost_the_quarantine_is_whole_from_the_cut_on() {
    for lost in [&["index"][..], &["quarantine"], &["index", "quarantine"]] {
        let mut world = World::new().await;
        world.fill(40, 9);
        let handle = world.start().await;
        handle.caught_up().await.expect("caught up");
        let refused = world.refused(16..Offset::MAX);
        assert!(refused.len() > 4, "{refused:?}");
        handle.shutdown().await;
        let blocks = world.archive(vec![16, 16]).await;
        world.views.iter().for_each(|view| world.make_live(view, blocks.get(&view.fingerprint).cloned()));
        for folder in lost {
            std::fs::remove_dir_all(world.folder.path().join(folder)).expect("it is there");
        }
        let handle = world.start().await;
        handle.caught_up().await.expect("caught up");
        assert_eq!(world.refused(16..Offset::MAX), refused, "{lost:?}");
        assert_eq!(world.refused_count(16..Offset::MAX), refused.len(), "{lost:?}");
        handle.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quarantine_of_what_batch_published_is_dropped() {
    let mut world = World::new().await;
    world.fill(40, 10);
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    let left = world.refused(16..Offset::MAX);
    assert!(world.refused(0..Offset::MAX).len() > left.len());
    let cut = Cut::new(vec![16, 16]);
    // Whoever drives the batch layer; here nobody does.
    world.board.post_published("readings", Division { from: Cut::zero(LOG_PARTITIONS), cut });
    // It happens in the worker's next round, at the latest with a heartbeat.
    while world.refused(0..Offset::MAX) != left {
        tokio::task::yield_now().await;
    }
    handle.shutdown().await;
    assert_eq!(world.refused_count(0..Offset::MAX), left.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_comes_later_is_fed_from_its_base_and_one_retired_is_left() {
    let mut world = World::new().await;
    let totals = Arc::clone(&world.views[1]);
    world.catalog.update(|catalog| {
        catalog.live.remove(&totals.fingerprint);
    });
    world.store.remove(totals.fingerprint);
    world.fill(30, 6);
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    world.make_live(&totals, None);
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    let load = world.views[0].fingerprint;
    world.store.remove(load);
    world.catalog.update(|catalog| {
        catalog.live.remove(&load);
    });
    world.fill(10, 7);
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_partition_that_is_refilled_is_found_by_heartbeat() {
    let mut world = World::new().await;
    world.fill(30, 8);
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    let view = Arc::clone(&world.views[0]);
    let id = PartitionId { view: view.fingerprint, index: 1 };
    let empty = Arc::new(Block::empty(view.fingerprint, LOG_PARTITIONS));
    world.store.create(id, ViewPartition::new(view.partition_config(), empty));
    loop {
        let reply = world.store.read(id, &ReadRequest::Progress).await.expect("live");
        if reply.progress.applied == [30, 30] {
            break;
        }
        tokio::task::yield_now().await;
    }
    world.assert_exact().await;
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correction_is_visible_as_soon_as_the_layer_has_caught_up() {
    let mut world = World::new().await;
    world.append(0, &reading(&meter(0, 0), 8, 1, 1, 1));
    let handle = world.start().await;
    handle.caught_up().await.expect("caught up");
    world.append(0, &reading(&meter(0, 0), 8, 7, 1, 2));
    handle.caught_up().await.expect("caught up");
    world.assert_exact().await;
    let counts = world.board.speed()["readings"][&0].counts;
    assert_eq!((counts.new, counts.corrections), (1, 1));
    handle.shutdown().await;
}
