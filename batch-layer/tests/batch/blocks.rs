//! The newest-version table at hand: the same versions as without, and no reads of what is there.

use std::path::Path as DiskPath;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use sanso_block::{BlockConfig, BlockStore};
use sanso_dataset::Manifest;
use sanso_log::Log;
use sanso_state::StorageLevel;
use tokio::runtime::Builder;

use crate::support::{Reading, SMALL, SOURCE, World, hasty};

fn reading() -> impl Strategy<Value = Reading> {
    (0..4u8, 0..3u8, 0..72u32, prop::option::of(0..9i16), 0..3u8)
        .prop_map(|(meter, channel, hour, value, version)| Reading { meter, channel, hour, value, version })
}

/// Archives lots of readings; then another life computes all views.
async fn archive(lots: &[Vec<Reading>], blocks: Option<(BlockStore, StorageLevel)>) -> Option<Arc<Manifest>> {
    let mut world = World::new(SMALL).await;
    world.blocks = blocks;
    let life = world.boot(hasty());
    for lot in lots {
        lot.iter().for_each(|reading| world.append(reading));
        life.run_to_end().await.expect("run");
    }
    let life = world.start(hasty()).await.expect("start");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
    world.dataset().manifest(SOURCE).await.expect("load")
}

fn store(memory_bytes_max: u64, dir: &DiskPath) -> BlockStore {
    let config = BlockConfig { memory_bytes_max, disk_bytes_max: 1 << 20, spill_dirs: vec![dir.to_owned()] };
    BlockStore::open(&config).expect("open")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn versions_are_the_same_wherever_the_table_is_kept(
        lots in prop::collection::vec(prop::collection::vec(reading(), 1..30), 1..5),
        memory_bytes_max in prop_oneof![Just(0), 2_000..20_000u64, Just(1 << 20)],
    ) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let without = archive(&lots, None).await;
            for level in StorageLevel::ALL {
                let dir = tempfile::tempdir().expect("make a folder");
                let store = store(memory_bytes_max, dir.path());
                assert_eq!(archive(&lots, Some((store, level))).await, without, "{level}");
            }
        });
    }
}

/// Removes all files of the dataset with this in their path.
async fn remove(world: &World, part: &str) -> usize {
    let files: Vec<_> = world.objects.list(None).try_collect().await.expect("list");
    let files: Vec<_> = files.into_iter().filter(|file| file.location.as_ref().contains(part)).collect();
    for file in &files {
        world.objects.delete(&file.location).await.expect("delete");
    }
    files.len()
}

/// Removes the table's files, and all that they could be made of again.
async fn lose_the_table(world: &World) {
    assert!(remove(world, "/newest/").await > 0 && remove(world, "/segments/").await > 0);
    world.log.trim(SOURCE, 0, 6).await.expect("trim");
}

#[tokio::test]
async fn what_is_at_hand_is_not_read() {
    for (memory_bytes_max, level) in [(1 << 20, StorageLevel::Memory), (0, StorageLevel::Disk)] {
        let dir = tempfile::tempdir().expect("make a folder");
        let mut world = World::new(SMALL).await;
        world.blocks = Some((store(memory_bytes_max, dir.path()), level));
        world.fill(6, 0);
        let life = world.boot(hasty());
        life.run_to_end().await.expect("run");
        lose_the_table(&world).await;
        world.fill(9, 0);
        assert_eq!(life.run().await.newest_rewritten.len(), 1);
        assert!(remove(&world, "/newest/").await > 0);
        for view in &world.views {
            world.check(view, &life.batch.ensure_published(view).await.expect("published"));
        }
    }
}

#[tokio::test]
async fn the_next_life_finds_on_disk_what_this_one_kept_there() {
    let dir = tempfile::tempdir().expect("make a folder");
    let mut world = World::new(SMALL).await;
    world.fill(6, 0);
    world.blocks = Some((store(0, dir.path()), StorageLevel::Disk));
    world.boot(hasty()).run_to_end().await.expect("run");
    world.blocks = None;
    lose_the_table(&world).await;
    assert!(world.boot(hasty()).batch.ensure_published(&world.views[0]).await.is_err(), "nowhere else");
    world.blocks = Some((store(0, dir.path()), StorageLevel::Disk));
    let life = world.boot(hasty());
    let blocks = life.batch.ensure_published(&world.views[0]).await.expect("computed from disk");
    world.check(&world.views[0], &blocks);
}
