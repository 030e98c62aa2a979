//! Emission: each distinct content of a closed window once, over restarts at every step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sanso_catalog::{Catalog, CatalogHandle};
use sanso_core::{PartitionId, PartitionStore};
use sanso_log::{Log, MemoryLog};
use sanso_state::{Block, Delta, Entry, Groups, LogPartition, Offset, Outcome, ViewPartition};
use sanso_view::View;

use super::{LOG_PARTITIONS, meter, reading, views};
use crate::emit::Emitter;
use crate::emitted::EmittedWindow;

struct World {
    view: Arc<View>,
    log: Arc<MemoryLog>,
    store: PartitionStore,
    catalog: CatalogHandle,
}

impl World {
    fn new() -> Self {
        let view = views().remove(0);
        let mut catalog = Catalog::default();
        catalog.sources.insert(view.source.name.clone(), Arc::clone(&view.source));
        catalog.live.insert(view.fingerprint, Arc::clone(&view));
        catalog.serving.insert(view.name.clone(), view.fingerprint);
        let log = Arc::new(MemoryLog::new());
        let world = Self { view, log, store: PartitionStore::new(), catalog: CatalogHandle::new(catalog) };
        world.restart_view();
        world
    }

    /// Every view partition loses what it holds and starts from the empty base.
    fn restart_view(&self) {
        for index in 0..self.view.partitions {
            let base = Arc::new(Block::empty(self.view.fingerprint, LOG_PARTITIONS));
            let id = PartitionId { view: self.view.fingerprint, index };
            self.store.create(id, ViewPartition::new(self.view.partition_config(), base));
        }
    }

    fn emitter(&self, dir: &Path) -> Emitter {
        Emitter::open(dir, self.log.clone(), self.catalog.clone(), self.store.clone()).expect("open")
    }

    /// Submits the delta of one record of log partition 0 to every view
    /// partition; log partition 1 is idle.
    async fn apply(&self, offset: Offset, added: &str, retracted: Option<&str>, watermark_us: i64) {
        let mut groups: BTreeMap<u32, Groups> = BTreeMap::new();
        for (payload, sign) in [(Some(added), 1), (retracted, -1)] {
            let Some(payload) = payload else { continue };
            let rows = self.view.source.decode([payload.as_bytes()]).rows;
            let lifted = self.view.lift(&rows);
            for row in lifted.rows() {
                let (id, inputs) = lifted.grouped.row(row.at as usize);
                let groups = groups.entry(self.view.partition_of(&id.key)).or_default();
                groups.update_one(&self.view.kinds, &id, &inputs, sign);
            }
        }
        for index in 0..self.view.partitions {
            let id = PartitionId { view: self.view.fingerprint, index };
            let view = self.view.fingerprint;
            let quiet = Delta {
                view,
                partition: LogPartition(1),
                from: 0,
                to: 0,
                groups: Groups::new(),
                watermark_us: None,
                idle: true,
            };
            let delta = Delta {
                partition: LogPartition(0),
                from: offset,
                to: offset + 1,
                groups: groups.remove(&index).unwrap_or_default(),
                watermark_us: Some(watermark_us),
                idle: false,
                ..quiet.clone()
            };
            for delta in [quiet, delta] {
                let outcome = self.store.submit(id, Entry::Delta(delta)).await.expect("live");
                assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
            }
        }
    }

    /// The story: a window is filled, closed, corrected twice.
    async fn story(&self, step: usize) {
        let meter = meter(0, 0);
        let slot = |value, version| reading(&meter, 40, value, 1, version);
        let open = 1_717_200_000_000_000; // 2024-06-01T00:00Z
        let closed = open + 86_400_000_000;
        match step {
            0 => self.apply(0, &slot(1, 1), None, open).await,
            1 => self.apply(1, &slot(2, 2), Some(&slot(1, 1)), closed).await,
            2 => self.apply(2, &slot(3, 3), Some(&slot(2, 2)), closed).await,
            _ => self.apply(3, &slot(4, 4), Some(&slot(3, 3)), closed).await,
        }
    }

    async fn emitted(&self) -> Vec<EmittedWindow> {
        let mut windows = Vec::new();
        for partition in 0..self.log.partitions("load_closed").await.unwrap_or_default() {
            let batch = self.log.read("load_closed", partition, 0, 1000, 1 << 20).await.expect("read");
            windows.extend(
                batch.records.iter().map(|r| serde_json::from_slice(&r.payload).expect("our own JSON")),
            );
        }
        windows
    }
}

/// Emits until nothing is left.
async fn settle(emitter: &mut Emitter) {
    while emitter.round().await.expect("emit") {}
}

fn summary(windows: &[EmittedWindow]) -> Vec<(u64, String, bool)> {
    let kwh = |w: &EmittedWindow| w.values.as_ref().map_or("none".into(), |v| v["kwh"].to_string());
    windows.iter().map(|w| (w.revision, kwh(w), w.late)).collect()
}

fn whole_story() -> Vec<(u64, String, bool)> {
    vec![(2, "2.500".into(), false), (3, "3.500".into(), true), (4, "4.500".into(), true)]
}

#[tokio::test]
async fn a_closed_window_is_emitted_and_amended_with_key_times_and_values() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new();
    let mut emitter = world.emitter(folder.path());
    for step in 0..4 {
        world.story(step).await;
        settle(&mut emitter).await;
        settle(&mut emitter).await;
    }
    let windows = world.emitted().await;
    assert_eq!(summary(&windows), whole_story());
    let last = &windows[2];
    assert_eq!((last.view.as_str(), last.window_start.as_str()), ("load", "2024-06-01T10:00:00Z"));
    assert_eq!(last.window_end, "2024-06-01T10:30:00Z");
    assert_eq!(last.key["usage_point"], serde_json::json!(meter(0, 0)));
    assert_eq!(last.applied, [4, 0]);
    assert_eq!(last.values.as_ref().expect("it has rows")["readings"], serde_json::json!(1));
}

#[tokio::test]
async fn a_restart_after_any_step_repeats_nothing_and_loses_nothing() {
    for restart in 0..4 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let world = World::new();
        let mut emitter = world.emitter(folder.path());
        for step in 0..4 {
            world.story(step).await;
            settle(&mut emitter).await;
            if step == restart {
                drop(emitter);
                world.restart_view();
                emitter = world.emitter(folder.path());
                for again in 0..=step {
                    world.story(again).await;
                    settle(&mut emitter).await;
                }
            }
        }
        assert_eq!(summary(&world.emitted().await), whole_story(), "restarted after step {restart}");
    }
}

#[tokio::test]
async fn a_kill_between_append_and_record_doubles_nothing() {
    for killed in 1..4 {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let before = tempfile::tempdir().expect("a temporary folder");
        let world = World::new();
        let mut emitter = world.emitter(folder.path());
        for step in 0..4 {
            world.story(step).await;
            if step == killed {
                // The record as it was before this step is what a kill leaves.
                drop(emitter);
                copy(folder.path(), before.path());
                emitter = world.emitter(folder.path());
                settle(&mut emitter).await;
                drop(emitter);
                world.restart_view();
                emitter = world.emitter(before.path());
                for again in 0..=step {
                    world.story(again).await;
                    settle(&mut emitter).await;
                }
            } else {
                settle(&mut emitter).await;
            }
        }
        assert_eq!(summary(&world.emitted().await), whole_story(), "killed at step {killed}");
    }
}

#[tokio::test]
async fn only_the_version_that_serves_is_emitted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new();
    world.catalog.update(|catalog| catalog.serving.clear());
    let mut emitter = world.emitter(folder.path());
    world.story(0).await;
    world.story(1).await;
    settle(&mut emitter).await;
    assert_eq!(world.emitted().await, []);
    let (name, version) = (world.view.name.clone(), world.view.fingerprint);
    world.catalog.update(|catalog| {
        catalog.serving.insert(name, version);
    });
    settle(&mut emitter).await;
    assert_eq!(summary(&world.emitted().await), whole_story()[..1]);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}
