//! Views computed by two stages of tasks: the same blocks as of one process, and what is lost in between is all that
//! is done again.

use std::collections::BTreeMap;
use std::path::Path as DiskPath;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use sanso_batch::{BatchConfig, WorkerId};
use sanso_block::{BlockConfig, BlockStore};
use sanso_state::StorageLevel;

use crate::crash::round;
use crate::fleet::{Fleet, Manner, Net};
use crate::support::{Life, SOURCE, World};
use crate::tasks::{WIDE, config, content};

/// The tasks of the first stage, one for each log partition, and of the second, one for each view partition.
const SPLITS: usize = 3;
const COMBINES: usize = 3 + 2 + 1;

/// A dataset with rows of which no view is published.
async fn archived() -> World {
    let mut world = World::new(WIDE).await;
    round(&mut world, 0);
    round(&mut world, 1);
    world.start(config()).await.expect("start").run_to_end().await.expect("run");
    world.dataset().remove_views_before(SOURCE, u64::MAX, &[]).await.expect("removed");
    world
}

fn stores(memory_bytes_max: u64) -> [BlockStore; 3] {
    std::array::from_fn(|_| BlockStore::in_memory(memory_bytes_max))
}

/// A store that keeps everything on disk, over two folders.
fn on_disk(folder: &DiskPath, name: usize) -> BlockStore {
    let spill_dirs = ["a", "b"].map(|disk| folder.join(format!("{name}{disk}"))).to_vec();
    let config = BlockConfig { memory_bytes_max: 0, disk_bytes_max: 1 << 20, spill_dirs };
    BlockStore::open(&config).expect("open")
}

/// Publishes all views, and holds them against the oracle.
async fn publish(world: &World, life: &Life) {
    life.batch.ensure_all_published(&world.views).await.expect("published");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

/// Publishes by a fleet. Returns how often each task was computed.
async fn published(world: &World, fleet: &Arc<Fleet>) -> BTreeMap<String, usize> {
    publish(world, &world.boot_on(config(), fleet)).await;
    fleet.computed()
}

/// Tells which tasks were computed twice, and holds that all others were computed once.
fn twice(computed: &BTreeMap<String, usize>) -> Vec<&str> {
    assert_eq!(computed.len(), SPLITS + COMBINES, "{computed:?}");
    assert!(computed.values().all(|times| (1..=2).contains(times)), "{computed:?}");
    computed
        .iter()
        .filter(|(_, times)| **times == 2)
        .map(|(task, _)| task.split(" at").next().unwrap_or(task))
        .collect()
}

/// The fleet's stores, what it fetches, and itself.
fn fleet(world: &World, stores: &[BlockStore]) -> (Arc<Fleet>, Arc<Net>) {
    Fleet::keeping(world, stores)
}

#[tokio::test]
async fn two_stages_write_the_bytes_that_one_process_does_wherever_pieces_are_kept() {
    let alone = archived().await;
    publish(&alone, &alone.boot(config())).await;
    let alone = content(&alone).await;
    assert!(alone.1.keys().any(|file| file.contains("/blocks/")));
    let world = archived().await;
    assert_eq!(twice(&published(&world, &Fleet::new(&world, 3)).await), [""; 0]);
    assert_eq!(content(&world).await, alone, "in the dataset");
    let folder = tempfile::tempdir().expect("make a folder");
    let disks: Vec<BlockStore> = (0..3).map(|name| on_disk(folder.path(), name)).collect();
    for (place, stores, is_fetched) in [
        ("in memory", stores(1 << 20).to_vec(), true),
        ("on disks", disks, true),
        ("in the dataset, as nodes have no room", stores(300).to_vec(), false),
    ] {
        let world = archived().await;
        let (fleet, net) = fleet(&world, &stores);
        assert_eq!(twice(&published(&world, &fleet).await), [""; 0], "{place}");
        assert_eq!(net.fetched.load(Ordering::Relaxed) > 0, is_fetched, "{place}");
        assert_eq!(content(&world).await, alone, "{place}");
    }
    let world = archived().await;
    let (fleet, _) = fleet(&world, &stores(1 << 20));
    (1..=3).for_each(|worker| fleet.behave(worker, Manner::Doubled));
    published(&world, &fleet).await;
    assert_eq!(content(&world).await, alone, "every task at two workers at the same time");
}

#[tokio::test]
async fn a_long_history_is_divided_by_date_and_the_bytes_are_the_same() {
    let whole = archived().await;
    publish(&whole, &whole.boot(config())).await;
    let whole = content(&whole).await;
    let divided = |lift_rows_max| BatchConfig { lift_rows_max, ..config() };
    let files = whole.0.last().expect("a version").newest.len();
    assert!(files > SPLITS, "log partitions have several dates");
    for rows_max in [1, 3] {
        let world = archived().await;
        let (fleet, _) = fleet(&world, &stores(1 << 20));
        publish(&world, &world.boot_on(divided(rows_max), &fleet)).await;
        let slices = fleet.computed().keys().filter(|task| task.starts_with("lift of")).count();
        assert!(slices > SPLITS && slices <= files, "{slices} of {files}");
        assert_eq!(content(&world).await, whole, "by three nodes, {rows_max} rows at a time");
        let world = archived().await;
        publish(&world, &world.boot(divided(rows_max))).await;
        assert_eq!(content(&world).await, whole, "by one node, {rows_max} rows at a time");
    }
}

#[tokio::test]
async fn a_worker_that_is_lost_between_the_stages_takes_along_only_what_it_had() {
    let world = archived().await;
    let (fleet, _) = fleet(&world, &stores(1 << 20));
    fleet.before_combining(|fleet| fleet.workers.send_modify(|workers| _ = workers.remove(&WorkerId(2))));
    assert_eq!(twice(&published(&world, &fleet).await), ["lift of readings/1"]);
}

#[tokio::test]
async fn a_lost_piece_has_only_its_own_task_done_again() {
    let world = archived().await;
    let stores = stores(1 << 20);
    let (fleet, _) = fleet(&world, &stores);
    let third = stores[2].clone();
    fleet.before_combining(move |_| {
        let pieces = third.held();
        assert_eq!(pieces.len(), COMBINES, "one for each view partition");
        third.remove(pieces[0].id);
    });
    assert_eq!(twice(&published(&world, &fleet).await), ["lift of readings/2"]);
}

#[tokio::test]
async fn a_piece_of_which_a_bit_flips_on_disk_or_on_the_way_is_made_again() {
    let world = archived().await;
    let folder = tempfile::tempdir().expect("make a folder");
    let disks: Vec<BlockStore> = (0..3).map(|name| on_disk(folder.path(), name)).collect();
    let (flipping, _) = fleet(&world, &disks);
    let first = folder.path().join("0a");
    flipping.before_combining(move |_| {
        let files = walk(&first);
        let file = files.iter().max_by_key(|(_, bytes)| bytes.len()).expect("pieces are spread over both");
        let (path, mut bytes) = (&file.0, file.1.clone());
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(path, bytes).expect("write");
    });
    assert_eq!(twice(&published(&world, &flipping).await), ["lift of readings/0"], "on disk");
    let world = archived().await;
    let (fleet, net) = fleet(&world, &stores(1 << 20));
    fleet.before_combining(move |_| net.flips_a_bit.store(true, Ordering::Relaxed));
    assert_eq!(twice(&published(&world, &fleet).await).len(), 1, "on the way");
}

/// Reads all files below a folder.
fn walk(folder: &DiskPath) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("list") {
        let path = entry.expect("listed").path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push((path.clone(), std::fs::read(&path).expect("read"))),
        }
    }
    files
}

#[tokio::test]
async fn a_piece_that_is_damaged_in_the_dataset_is_made_again() {
    let world = archived().await;
    let fleet = Fleet::new(&world, 3);
    (1..=3).for_each(|worker| fleet.behave(worker, Manner::Splits));
    stop_between_the_stages(&world, &fleet).await;
    let listed: Vec<ObjectMeta> = world.objects.list(None).try_collect().await.expect("listed");
    let pieces = listed.iter().filter(|file| file.location.as_ref().ends_with(".piece"));
    let pieces: Vec<_> = pieces.map(|file| &file.location).collect();
    assert_eq!(pieces.len(), SPLITS * COMBINES);
    world.objects.put(pieces[4], PutPayload::from_static(b"x")).await.expect("damaged");
    (1..=3).for_each(|worker| fleet.behave(worker, Manner::Well));
    let computed = published(&world, &fleet).await;
    assert_eq!(computed.keys().filter(|task| task.starts_with("lift")).count(), 1, "{computed:?}");
    assert_eq!(computed.len(), 1 + COMBINES, "{computed:?}");
}

/// Runs until all is split and nothing combined, then drops the driver.
async fn stop_between_the_stages(world: &World, fleet: &Arc<Fleet>) {
    let life = world.boot_on(config(), fleet);
    tokio::select! {
        _ = life.batch.ensure_all_published(&world.views) => panic!("it can't end"),
        () = fleet.stuck(3) => {}
    }
    let computed = fleet.computed();
    assert_eq!(computed.len(), SPLITS, "{computed:?}");
}

#[tokio::test]
async fn the_driver_after_one_that_was_killed_between_the_stages_splits_nothing_again() {
    for keeps in [false, true] {
        let world = archived().await;
        let fleet = if keeps { fleet(&world, &stores(1 << 20)).0 } else { Fleet::new(&world, 3) };
        (1..=3).for_each(|worker| fleet.behave(worker, Manner::Splits));
        stop_between_the_stages(&world, &fleet).await;
        (1..=3).for_each(|worker| fleet.behave(worker, Manner::Well));
        let computed = published(&world, &fleet).await;
        let combined = computed.keys().filter(|task| task.starts_with("combine"));
        assert_eq!((combined.count(), computed.len()), (COMBINES, COMBINES), "{computed:?}");
    }
}

#[tokio::test]
async fn the_driver_after_one_that_was_killed_while_combining_combines_only_the_rest() {
    let world = archived().await;
    let (fleet, _) = fleet(&world, &stores(1 << 20));
    fleet.behave(3, Manner::Splits);
    let life = world.boot_on(config(), &fleet);
    tokio::select! {
        _ = life.batch.ensure_all_published(&world.views) => panic!("it can't end"),
        () = async {
            // Others are between two tasks now and then, so that it runs alone is not enough.
            let rest = |runs: &(usize, usize)| *runs == (1, 1) && fleet.computed_tasks() == SPLITS + COMBINES - 1;
            fleet.runs.subscribe().wait_for(rest).await.expect("the fleet is there");
        } => {}
    }
    fleet.computed();
    // It had pieces that all others have taken already, but the last one.
    fleet.workers.send_modify(|workers| _ = workers.remove(&WorkerId(3)));
    let computed = published(&world, &fleet).await;
    let lifted = computed.keys().filter(|task| task.starts_with("lift of readings/2")).count();
    assert_eq!((lifted, computed.len()), (1, 2), "{computed:?}");
}

#[tokio::test]
async fn nothing_is_left_of_pieces_once_the_views_are_published() {
    for room in [300, 1 << 20] {
        let mut world = archived().await;
        let stores = stores(room);
        let (fleet, net) = fleet(&world, &stores);
        // The driver is a node that can tell the others.
        world.blocks = Some((BlockStore::in_memory(1 << 20), StorageLevel::Memory));
        world.neighbours = Some(net.seen(9, &fleet.workers));
        published(&world, &fleet).await;
        assert!(stores.iter().all(|store| store.held().is_empty()));
        let (_, files) = content(&world).await;
        assert!(!files.keys().any(|file| file.contains("/tasks/")), "{:?}", files.keys());
    }
}

#[tokio::test]
async fn views_of_no_rows_are_combined_of_nothing() {
    let world = World::new(WIDE).await;
    (0..9).for_each(|at| _ = world.append_raw(at % 3, "m", "no reading".to_owned()));
    world.boot(config()).run_to_end().await.expect("run");
    let fleet = Fleet::new(&world, 2);
    assert_eq!(published(&world, &fleet).await.len(), COMBINES);
}
