//! A run computes only what is new, and a view that comes later is computed once.

use sanso_batch::{BatchConfig, BatchError, SourceReport};
use sanso_catalog::PartitionProgress;
use sanso_dataset::{DatasetError, ViewId};
use sanso_log::{Log, partition_for_key};
use sanso_state::{LogPartition, SegmentId};

use crate::support::{Reading, SMALL, SOURCE, Shape, World, hasty, views};

/// 2024-07-01 in days since 1970-01-01.
const FIRST_DATE: i32 = 19_905;

#[tokio::test]
async fn a_run_without_new_segments_does_nothing() {
    let mut world = World::new(SMALL).await;
    world.fill(7, 0);
    let life = world.start(hasty()).await.expect("start");
    assert_eq!(life.run().await.version, Some(1));
    let puts = world.dataset().manifest_versions(SOURCE).await.expect("list");
    assert_eq!(life.run().await, SourceReport::default());
    assert_eq!(world.dataset().manifest_versions(SOURCE).await.expect("list"), puts);
}

#[tokio::test]
async fn a_new_segment_touches_only_its_dates_and_its_view_partitions() {
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    world.fill(6, 24);
    world.fill(9, 48);
    let life = world.start(hasty()).await.expect("start");
    let first = life.run().await;
    assert_eq!((first.newest_rewritten.len(), first.newest_carried), (3, 0));
    world.fill(12, 25);
    let second = life.run().await;
    assert_eq!(second.segments, [SegmentId { partition: LogPartition(0), index: 3 }]);
    assert_eq!(second.newest_rewritten, [(LogPartition(0), Some(FIRST_DATE + 1))]);
    assert_eq!(second.newest_carried, 2);
    assert_eq!(second.contributions, world.views.len() as u64);
    assert!(second.recomputed.is_empty());
    // One meter: one of the two partitions of `peaks`; `everything` is one.
    assert!(second.blocks.1 >= 1, "carried {:?}", second.blocks);
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

#[tokio::test]
async fn a_segment_of_duplicates_changes_no_block() {
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    let life = world.start(hasty()).await.expect("start");
    life.run().await;
    let again: Vec<_> = world.history[0].clone();
    for (_, payload) in again {
        let text = String::from_utf8(payload.clone()).expect("JSON");
        let offset = world.append_raw(0, "m", text);
        world.history[0].push((offset, payload));
    }
    let report = life.run().await;
    assert_eq!((report.version, report.blocks.0, report.rows_archived), (Some(2), 0, 3));
    let view = &world.views[0];
    world.check(view, &life.batch.ensure_published(view).await.expect("published"));
}

#[tokio::test]
async fn a_backlog_is_covered_in_bounded_versions() {
    let mut world = World::new(SMALL).await;
    world.fill(30, 0);
    let life = world.start(BatchConfig { segments_per_version_max: 4, ..hasty() }).await.expect("start");
    let mut sizes = Vec::new();
    loop {
        let report = life.run().await;
        sizes.push(report.segments.len());
        if !report.backlog {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 2]);
}

#[tokio::test]
async fn a_new_view_is_backfilled_and_then_extended() {
    let mut world = World::new(SMALL).await;
    world.fill(9, 3);
    let life = world.boot(hasty());
    life.run().await;
    let view = world.views[1].clone();
    life.go_live(&view).await.expect("live");
    assert_eq!(life.progress(&view, 0).await.version, 1);
    world.fill(12, 30);
    let report = life.run().await;
    assert_eq!((report.recomputed.len(), report.contributions), (0, 1));
    world.check(&view, &life.batch.ensure_published(&view).await.expect("published"));
    assert_eq!(life.progress(&view, 0).await.version, 2);
}

#[tokio::test]
async fn a_view_that_is_asked_for_twice_at_once_is_computed_once_and_whole() {
    let mut world = World::new(SMALL).await;
    world.fill(9, 3);
    let life = world.boot(hasty());
    life.run().await;
    let view = world.views[1].clone();
    life.batch.ensure_all_published(&[view.clone(), view.clone()]).await.expect("published");
    world.check(&view, &life.batch.ensure_published(&view).await.expect("published"));
}

#[tokio::test]
async fn a_retired_view_is_extended_no_longer() {
    let mut world = World::new(SMALL).await;
    let life = world.start(hasty()).await.expect("start");
    world.fill(3, 0);
    assert_eq!(life.run().await.contributions, 3);
    life.catalog.update(|catalog| {
        catalog.live.remove(&world.views[0].fingerprint);
    });
    world.fill(6, 0);
    assert_eq!(life.run().await.contributions, 2);
}

#[tokio::test]
async fn the_log_is_trimmed_behind_the_cut_and_runs_go_on() {
    let mut world = World::new(SMALL).await;
    world.fill(12, 0);
    let config = BatchConfig { retain_segments: Some(1), ..hasty() };
    let life = world.start(config.clone()).await.expect("start");
    life.run().await;
    assert_eq!(world.log.start_offset(SOURCE, 0).await.expect("start"), 9);
    world.fill(15, 0);
    let life = world.start(config).await.expect("restart");
    life.run().await;
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

#[tokio::test]
async fn the_log_is_not_trimmed_beyond_what_the_speed_layer_has_read() {
    let mut world = World::new(SMALL).await;
    world.fill(12, 0);
    let speed = |position| PartitionProgress { position, ..PartitionProgress::default() };
    world.board.post_speed(SOURCE, LogPartition(0), speed(5));
    let life = world.start(BatchConfig { retain_segments: Some(0), ..hasty() }).await.expect("start");
    life.run().await;
    assert_eq!(world.log.start_offset(SOURCE, 0).await.expect("start"), 5);
    world.board.post_speed(SOURCE, LogPartition(0), speed(12));
    life.run().await;
    assert_eq!(world.log.start_offset(SOURCE, 0).await.expect("start"), 12);
}

#[tokio::test]
async fn records_that_the_log_no_longer_has_stop_the_source_loudly() {
    let mut world = World::new(SMALL).await;
    world.fill(12, 0);
    world.log.trim(SOURCE, 0, 5).await.expect("trim");
    let life = world.start(hasty()).await.expect("start");
    let error = life.batch.run_once().await.expect_err("offsets 0 to 4 are gone");
    assert!(matches!(error, BatchError::BehindLog { .. }) && !error.is_transient(), "{error}");
    let posted = world.board.batch()[SOURCE].error.clone().expect("posted");
    assert!(posted.contains("no longer in the log"), "{posted}");
}

#[tokio::test]
async fn a_source_declared_otherwise_is_refused() {
    let mut world = World::new(SMALL).await;
    world.fill(3, 0);
    world.start(hasty()).await.expect("start").run().await;
    world.views = views(Shape { segment: 4, ..SMALL });
    let error = world.start(hasty()).await.err().expect("segments never change their size");
    assert!(matches!(error, BatchError::Redeclared { .. }), "{error}");
}

#[tokio::test]
async fn a_second_batch_layer_is_refused() {
    let mut world = World::new(SMALL).await;
    let first = world.start(hasty()).await.expect("start");
    let second = world.start(hasty()).await.expect("start");
    first.run().await;
    second.run().await;
    world.fill(3, 0);
    first.run().await;
    let error = second.batch.run_once().await.expect_err("version 1 is taken");
    assert!(matches!(error, BatchError::Dataset(DatasetError::VersionTaken { version: 1, .. })), "{error}");
}

/// Returns the numbers of groups in the files of each version's block that holds the meter's groups.
async fn files(world: &World, versions: std::ops::RangeInclusive<u64>) -> Vec<Vec<u64>> {
    let view = &world.views[1];
    let id = ViewId { source: SOURCE, name: &view.name, fingerprint: view.fingerprint, kinds: &view.kinds };
    let mut all = Vec::new();
    for version in versions {
        let published = world.dataset().published(id, version).await.expect("published");
        let groups = published.blocks.iter().map(|block| block.files().map(|file| file.groups).collect());
        all.push(groups.max_by_key(|groups: &Vec<u64>| groups.iter().sum::<u64>()).expect("it has blocks"));
    }
    all
}

#[tokio::test]
async fn what_a_version_adds_is_written_beside_its_block_until_that_is_half_as_much() {
    let mut world = World::new(SMALL).await;
    let of_partition_0 =
        |meter: &u8| partition_for_key(format!("m{meter}").as_bytes(), SMALL.partitions) == 0;
    let meter = (0..=255).find(of_partition_0).expect("some meter belongs to it");
    let mut readings =
        (0..).map(|n| Reading { meter, channel: 0, hour: n * 6, value: Some(n as i16), version: 1 });
    let config = BatchConfig { versions_kept: 16, ..hasty() };
    let life = world.start(config.clone()).await.expect("start");
    readings.by_ref().take(24).for_each(|reading| world.append(&reading));
    assert_eq!(life.run().await.version, Some(1));
    for version in 2..=7 {
        readings.by_ref().take(3).for_each(|reading| world.append(&reading));
        assert_eq!(life.run().await.version, Some(version));
    }
    let expected: [&[u64]; 7] =
        [&[24], &[24, 3], &[24, 3, 3], &[24, 3, 3, 3], &[24, 3, 3, 3, 3], &[39], &[39, 3]];
    assert_eq!(files(&world, 1..=7).await, expected);
    // The next life reads what this one has written.
    let life = world.start(config).await.expect("restart");
    for view in &world.views {
        let blocks = life.batch.ensure_published(view).await.expect("published");
        assert_eq!(blocks[0].version, 7);
        world.check(view, &blocks);
    }
    readings.by_ref().take(3).for_each(|reading| world.append(&reading));
    let report = life.run().await;
    assert_eq!((report.version, report.recomputed.len()), (Some(8), 0));
    assert_eq!(files(&world, 8..=8).await, [[39, 3, 3]]);
}
