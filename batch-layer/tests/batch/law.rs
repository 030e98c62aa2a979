//! The law of the batch layer: whatever the history and whenever it runs, a published view is the
//! naive fold of the history below its cut, by contribution as by recomputation.

use proptest::prelude::*;
use sanso_batch::BatchConfig;
use sanso_core::{PartitionId, ReadRequest};
use sanso_log::Log;
use sanso_state::Watermark;

use crate::support::{Reading, SOURCE, Shape, World, hasty};

#[derive(Clone, Debug)]
enum Op {
    Append(Reading),
    Garbage(u32),
    Misplaced(Reading),
    Hole(u32, u64),
    Run,
    Restart,
}

fn reading() -> impl Strategy<Value = Reading> {
    let value = proptest::option::weighted(0.85, -3i16..6);
    (0u8..4, 0u8..2, 0u32..60, value, 0u8..3).prop_map(|(meter, channel, hour, value, version)| Reading {
        meter,
        channel,
        // Few distinct times, so that versions of one reading meet; they span three dates.
        hour: hour / 12 * 12,
        value,
        version,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => reading().prop_map(Op::Append),
        1 => (0u32..3).prop_map(Op::Garbage),
        1 => reading().prop_map(Op::Misplaced),
        1 => (0u32..3, 1u64..7).prop_map(|(partition, count)| Op::Hole(partition, count)),
        3 => Just(Op::Run),
        1 => Just(Op::Restart),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    (2u64..6, 1u32..4, any::<bool>()).prop_map(|(segment, partitions, versioned)| Shape {
        segment,
        partitions,
        versioned,
    })
}

async fn law_holds(shape: Shape, ops: Vec<Op>, segments_per_version_max: usize) {
    let mut world = World::new(shape).await;
    let config = BatchConfig { segments_per_version_max, ..hasty() };
    let mut life = world.start(config.clone()).await.expect("start");
    for op in ops {
        match op {
            Op::Append(reading) => world.append(&reading),
            Op::Garbage(partition) => {
                world.append_raw(partition % shape.partitions, "m1", "{\"usage_point\":".to_owned());
            }
            Op::Misplaced(reading) => {
                let right = sanso_log::partition_for_key(reading.key().as_bytes(), shape.partitions);
                if shape.partitions > 1 {
                    let wrong = (right + 1) % shape.partitions;
                    world.append_raw(wrong, &reading.key(), reading.payload());
                }
            }
            Op::Hole(partition, count) => {
                let hole = world.log.append_hole(SOURCE, partition % shape.partitions, count);
                hole.expect("a hole");
            }
            Op::Run => {
                life.batch.run_once().await.expect("run");
                world.check_quarantine().await;
            }
            Op::Restart => life = world.start(config.clone()).await.expect("restart"),
        }
    }
    life.run_to_end().await.expect("run");
    for view in &world.views {
        let blocks = life.batch.ensure_published(view).await.expect("published");
        world.check(view, &blocks);
        for partition in 0..shape.partitions {
            let end = world.log.end_offset(SOURCE, partition).await.expect("end");
            let cut = blocks[0].cut.offsets()[partition as usize];
            assert_eq!(cut, end / shape.segment * shape.segment, "all complete segments are covered");
        }
        check_watermarks(&world, &blocks[0]);
        for (index, block) in blocks.iter().enumerate() {
            let id = PartitionId { view: view.fingerprint, index: index as u32 };
            let scan = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
            let reply = life.store.read(id, &scan).await.expect("live");
            assert_eq!(reply.progress.version, block.version, "adopted");
            let rows = block.groups.iter().filter(|(_, state)| state.rows > 0);
            assert!(reply.groups.into_iter().eq(rows));
        }
    }
    world.check_quarantine().await;
    recomputation_agrees(&world).await;
}

/// The watermark at the cut is that of the records below it.
fn check_watermarks(world: &World, block: &sanso_state::Block) {
    let source = world.source();
    for (partition, records) in world.history.iter().enumerate() {
        let cut = block.cut.offsets()[partition];
        let below = records.iter().filter(|(offset, _)| *offset < cut);
        let rows = source.decode(below.map(|(_, payload)| payload.as_slice())).rows;
        let mut watermark = Watermark::new(source.lateness_us, source.ahead_us_max);
        for event_us in source.event_times(&rows) {
            watermark.observe(event_us, i64::MAX);
        }
        assert_eq!(block.watermarks_us[partition], watermark.value());
    }
}

/// Without its published versions every view is computed from the newest-version table, all in one
/// pass over it: the same.
async fn recomputation_agrees(world: &World) {
    let kept = world.boot(hasty());
    let dataset = world.dataset();
    let mut loaded = Vec::new();
    for view in &world.views {
        loaded.push(kept.batch.ensure_published(view).await.expect("loaded"));
    }
    dataset.remove_views_before(SOURCE, u64::MAX, &[]).await.expect("removed");
    let fresh = world.boot(hasty());
    fresh.batch.ensure_all_published(&world.views).await.expect("computed");
    for (view, loaded) in world.views.iter().zip(loaded) {
        let computed = fresh.batch.ensure_published(view).await.expect("computed");
        assert_eq!(computed, loaded, "{}", view.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_published_view_is_the_fold_below_its_cut(
        shape in shape(),
        ops in proptest::collection::vec(op(), 0..90),
        segments_per_version_max in 1usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(law_holds(shape, ops, segments_per_version_max));
    }
}
