//! Copies of blocks on other nodes, in one process: nodes that know each other by bytes only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sanso_block::recovery::Way;
use sanso_block::{
    BlockId, BlockNode, BlockStore, Found, Neighbours, NodeBlocks, OfferedBlock, PartId, Reading,
};
use sanso_dataset::{Dataset, NewestFile, with_log_columns};
use sanso_state::{Fingerprint, LogPartition, Replicas, Storage, StorageLevel};

const SOURCE: &str = "readings";

/// The nodes, and what is wrong between them.
#[derive(Default)]
struct Net {
    nodes: Mutex<BTreeMap<BlockNode, Dataset>>,
    places: Mutex<Vec<BlockNode>>,
    is_cut: AtomicBool,
    flips_bits: AtomicBool,
    /// So many offers, and so many fetches, fail before one succeeds.
    failing_offers: AtomicUsize,
    failing_fetches: AtomicUsize,
    fetched: AtomicUsize,
}

/// Fails as long as it is to.
fn fail(failing: &AtomicUsize) -> Result<(), String> {
    let one_less = |left: usize| left.checked_sub(1);
    let failed = failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
    if failed { Err("lost".to_owned()) } else { Ok(()) }
}

/// A node's view of the others.
struct Seen {
    me: BlockNode,
    net: Arc<Net>,
}

impl Seen {
    fn node(&self, node: BlockNode) -> Result<Dataset, String> {
        if self.net.is_cut.load(Ordering::Relaxed) {
            return Err("cut".to_owned());
        }
        self.net.nodes.lock().expect("locked").get(&node).cloned().ok_or_else(|| "gone".to_owned())
    }
}

#[async_trait]
impl Neighbours for Seen {
    fn me(&self) -> BlockNode {
        self.me
    }

    fn places(&self, _source: &str, _partition: LogPartition) -> Vec<BlockNode> {
        self.net.places.lock().expect("locked").clone()
    }

    fn nodes(&self) -> Vec<BlockNode> {
        self.net.places.lock().expect("locked").clone()
    }

    async fn held(&self, of: BlockNode) -> Result<NodeBlocks, String> {
        Ok(self.node(of)?.node_blocks())
    }

    async fn offer(&self, to: BlockNode, blocks: Vec<OfferedBlock>) -> Result<(), String> {
        fail(&self.net.failing_offers)?;
        self.node(to)?.blocks_offered(self.me, blocks);
        Ok(())
    }

    async fn fetch(&self, from: BlockNode, id: BlockId) -> Result<Option<Bytes>, String> {
        fail(&self.net.failing_fetches)?;
        let Some(bytes) = self.node(from)?.exported_block(id).await else { return Ok(None) };
        self.net.fetched.fetch_add(1, Ordering::Relaxed);
        let mut bytes = bytes.to_vec();
        if self.net.flips_bits.load(Ordering::Relaxed) {
            *bytes.last_mut().expect("never empty") ^= 1;
        }
        Ok(Some(bytes.into()))
    }

    async fn forget(&self, at: BlockNode, blocks: Vec<BlockId>) -> Result<(), String> {
        self.node(at)?.forget_blocks(&blocks);
        Ok(())
    }
}

/// Some nodes with one object store.
struct World {
    objects: Arc<InMemory>,
    net: Arc<Net>,
    blocks: Vec<BlockStore>,
    nodes: Vec<Dataset>,
}

fn world(count: u16, replicas: Replicas) -> World {
    let (objects, net) = (Arc::new(InMemory::new()), Arc::new(Net::default()));
    let blocks: Vec<BlockStore> = (0..count).map(|_| BlockStore::in_memory(64 << 20)).collect();
    let node = |(me, blocks): (u16, &BlockStore)| {
        let dataset = Dataset::with_store(Arc::clone(&objects) as Arc<dyn ObjectStore>, Path::default());
        let dataset = dataset.with_blocks(blocks.clone());
        dataset.keep_table(SOURCE, Storage { level: StorageLevel::Memory, replicas });
        let me = BlockNode(me);
        dataset.join_neighbours(Arc::new(Seen { me, net: Arc::clone(&net) }));
        net.nodes.lock().expect("locked").insert(me, dataset.clone());
        net.places.lock().expect("locked").push(me);
        dataset
    };
    let nodes = (0..count).zip(&blocks).map(node).collect();
    World { objects, net, blocks, nodes }
}

impl World {
    /// Lets all nodes copy until something holds.
    async fn until(&self, holds: impl Fn() -> bool) {
        let all = futures::future::join_all(self.nodes.iter().map(Dataset::copy_blocks));
        let held = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = all => panic!("copying ended"),
            () = held => {}
        }
    }

    fn has(&self, node: usize, file: &NewestFile) -> bool {
        self.blocks[node].find(BlockId(file.content)) != Found::Nowhere
    }

    async fn lose_file(&self, file: &NewestFile) {
        let path = self.nodes[0].layout().listed(SOURCE, &file.path);
        self.objects.delete(&path).await.expect("deleted");
    }

    async fn at_hand(&self, node: usize, file: &NewestFile) -> Option<(usize, Way)> {
        let found = self.nodes[node].newest_at_hand(SOURCE, 1, file, Reading::Again).await;
        found.map(|(rows, way)| (rows.batches()[0].num_rows(), way))
    }
}

async fn put(dataset: &Dataset, version: u64, date: i32, count: i64) -> NewestFile {
    put_of(SOURCE, dataset, version, date, count).await
}

async fn put_of(source: &str, dataset: &Dataset, version: u64, date: i32, count: i64) -> NewestFile {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let rows = RecordBatch::try_from_iter([("value", numbers)]).expect("one column");
    let rows =
        with_log_columns(&rows, (0..count as u64).collect(), vec![7; count as usize]).expect("two more");
    let made_from = Fingerprint::of(&[date.to_le_bytes(), (count as i32).to_le_bytes()].concat());
    let put = dataset.put_newest(source, version, LogPartition(0), Some(date), made_from, rows);
    put.await.expect("put")
}

#[tokio::test]
async fn who_would_go_on_has_the_rows_although_all_else_is_lost() {
    let world = world(3, Replicas::Count(2));
    let files = [put(&world.nodes[0], 1, 1, 10).await, put(&world.nodes[0], 1, 2, 20).await];
    world.until(|| files.iter().all(|file| world.has(1, file))).await;
    assert!(files.iter().all(|file| !world.has(2, file)), "two nodes, not three");
    for file in &files {
        world.lose_file(file).await;
    }
    world.net.is_cut.store(true, Ordering::Relaxed);
    assert_eq!(world.at_hand(1, &files[1]).await, Some((20, Way::Memory)));
    assert_eq!(world.at_hand(2, &files[1]).await, None);
}

#[tokio::test]
async fn an_offer_and_a_fetch_that_fail_are_tried_again() {
    let world = world(2, Replicas::Count(2));
    world.net.failing_offers.store(1, Ordering::Relaxed);
    world.net.failing_fetches.store(1, Ordering::Relaxed);
    let file = put(&world.nodes[0], 1, 1, 10).await;
    world.until(|| world.has(1, &file)).await;
    let failing = [&world.net.failing_offers, &world.net.failing_fetches];
    assert!(failing.iter().all(|left| left.load(Ordering::Relaxed) == 0));
}

#[tokio::test]
async fn a_block_that_another_node_has_is_had_from_there() {
    let world = world(2, Replicas::Count(1));
    let file = put(&world.nodes[0], 1, 1, 10).await;
    world.lose_file(&file).await;
    assert_eq!(world.at_hand(1, &file).await, Some((10, Way::Replica)));
    assert_eq!(world.at_hand(1, &file).await, Some((10, Way::Memory)), "it is kept");
    assert_eq!(world.net.fetched.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_another_node_gives_is_checked_and_its_silence_is_no_error() {
    let world = world(2, Replicas::Count(1));
    let file = put(&world.nodes[0], 1, 1, 10).await;
    world.net.flips_bits.store(true, Ordering::Relaxed);
    assert_eq!(world.at_hand(1, &file).await, None);
    world.net.is_cut.store(true, Ordering::Relaxed);
    assert_eq!(world.at_hand(1, &file).await, None);
    assert!(!world.has(1, &file));
}

#[tokio::test]
async fn of_each_part_the_newest_block_is_copied_however_late_an_older_one_is_offered() {
    let world = world(2, Replicas::Count(2));
    let old = put(&world.nodes[0], 1, 1, 10).await;
    world.until(|| world.has(1, &old)).await;
    let new = put(&world.nodes[0], 2, 1, 11).await;
    world.until(|| world.has(1, &new)).await;
    assert!(!world.has(1, &old), "replaced");
    let part = PartId { source: SOURCE.to_owned(), partition: LogPartition(0), date: Some(1) };
    let late = |version, file: &NewestFile| {
        let id = BlockId(file.content);
        world.nodes[1].blocks_offered(BlockNode(0), vec![OfferedBlock { part: part.clone(), version, id }]);
    };
    late(1, &old);
    let other = put(&world.nodes[0], 2, 2, 5).await;
    world.until(|| world.has(1, &other)).await;
    assert!(world.has(1, &new) && !world.has(1, &old));
    let fetched = world.net.fetched.load(Ordering::Relaxed);
    assert_eq!(fetched, 3, "the late one was not asked for");
}

#[tokio::test]
async fn where_a_copy_is_not_worth_it_none_is_made() {
    let world = world(2, Replicas::Auto);
    // Another table is copied, and its parts come after those of this one.
    let copied = Storage { level: StorageLevel::Memory, replicas: Replicas::Count(2) };
    world.nodes.iter().for_each(|node| node.keep_table("zones", copied));
    let small = put(&world.nodes[0], 1, 1, 10).await;
    let zones = put_of("zones", &world.nodes[0], 1, 1, 20).await;
    world.until(|| world.has(1, &zones)).await;
    assert!(!world.has(1, &small));
    let figures = &world.nodes[0].node_blocks().tables[SOURCE];
    assert_eq!((figures.replicas, figures.share.blocks), (1, 1));
    let all = world.nodes[1].all_blocks().await;
    let said: Vec<_> =
        all.iter().map(|(node, said)| (node.0, said.as_ref().map(|said| said.blocks.len()))).collect();
    assert_eq!(said, [(0, Ok(2)), (1, Ok(1))]);
}
