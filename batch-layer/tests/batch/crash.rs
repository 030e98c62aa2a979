//! Crashes between any two writes, and files that are not what was written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sanso_batch::BatchConfig;
use sanso_log::{Log, partition_for_key};

use crate::fleet::Fleet;
use crate::support::{Life, Reading, SMALL, SOURCE, World, hasty};

/// Lets a number of writes and deletions through; from then on the process is dead.
#[derive(Debug)]
struct Mortal {
    objects: Arc<dyn ObjectStore>,
    writes_left: AtomicI64,
    /// Whether the fatal write still reached the store.
    after: bool,
}

impl Mortal {
    fn dead() -> object_store::Error {
        object_store::Error::Generic { store: "mortal", source: "the process died".into() }
    }

    /// Counts a write: none when it may go on, else whether it is the fatal one.
    fn count(&self) -> Option<bool> {
        let left = self.writes_left.fetch_sub(1, Ordering::SeqCst);
        (left <= 0).then_some(left == 0)
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal")
    }
}

#[async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.count() {
            None => self.objects.put_opts(path, payload, options).await,
            Some(fatal) => {
                if fatal && self.after {
                    self.objects.put_opts(path, payload, options).await?;
                }
                Err(Self::dead())
            }
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Self::dead())
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.count() {
            None => self.objects.delete_stream(paths),
            Some(_) => futures::stream::once(async { Err(Self::dead()) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// Two rounds of readings with corrections of the first in the second, and of each kind of refusal
/// one or more.
pub(crate) fn round(world: &mut World, number: u8) {
    // Enough of them that each log partition has some.
    for meter in 0..if world.shape.partitions == 2 { 3 } else { 5 } {
        for hour in [0, 12, 30] {
            world.append(&Reading {
                meter,
                channel: number % 2,
                hour,
                value: Some(i16::from(number) + 1),
                version: number,
            });
            world.append(&Reading { meter, channel: 0, hour, value: Some(7), version: number });
        }
        let other = Reading { meter, channel: 0, hour: 12, value: Some(8), version: number };
        let partitions = world.shape.partitions;
        let home = partition_for_key(other.key().as_bytes(), partitions);
        world.append_raw(home, &other.key(), other.payload());
        world.append_raw((home + 1) % partitions, &other.key(), other.payload());
        world.append_raw(home, &other.key(), "{".to_owned());
    }
}

/// Starts a process, on its own or with two workers.
async fn start(world: &World, config: BatchConfig, fleet: bool) -> sanso_batch::Result<Life> {
    if fleet { world.start_on(config, &Fleet::new(world, 2)).await } else { world.start(config).await }
}

/// Runs a fixed history with a process that dies after `writes` writes, then another to the end.
/// Says whether the process survived.
async fn survives(writes: i64, after: bool, fleet: bool) -> bool {
    let mut world = World::new(SMALL).await;
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let config = BatchConfig { segments_per_version_max: 3, versions_kept: 2, ..hasty() };
    round(&mut world, 0);
    let mortal = Mortal { objects: Arc::clone(&objects), writes_left: AtomicI64::new(writes), after };
    world.objects = Arc::new(mortal);
    let mut survived = false;
    if let Ok(life) = start(&world, config.clone(), fleet).await
        && life.run_to_end().await.is_ok()
    {
        round(&mut world, 1);
        survived = life.run_to_end().await.is_ok();
    }
    if world.history.iter().map(Vec::len).sum::<usize>() < 36 {
        round(&mut world, 1);
    }
    world.objects = objects;
    let life = start(&world, config, fleet).await.expect("restart");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
    world.check_quarantine().await;
    life.run_to_end().await.expect("run");
    for view in &world.views {
        let blocks = life.batch.ensure_published(view).await.expect("published");
        world.check(view, &blocks);
        for partition in 0..SMALL.partitions {
            let end = world.log.end_offset(SOURCE, partition).await.expect("end");
            assert_eq!(blocks[0].cut.offsets()[partition as usize], end / SMALL.segment * SMALL.segment);
        }
    }
    let refused = world.check_quarantine().await;
    assert!(refused.undecodable > 0 && refused.misplaced > 0 && refused.conflict > 0, "{refused:?}");
    survived
}

#[tokio::test]
async fn a_crash_between_any_two_writes_loses_and_doubles_nothing() {
    for (after, fleet) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut writes = 0;
        while !survives(writes, after, fleet).await {
            writes += 1;
            assert!(writes < 2_000, "it survives at last");
        }
        assert!(writes > 20, "there are writes to die at: {writes}");
    }
}

#[tokio::test]
async fn a_process_goes_on_after_a_write_failed() {
    let mut world = World::new(SMALL).await;
    round(&mut world, 0);
    let mortal =
        Arc::new(Mortal { objects: Arc::new(InMemory::new()), writes_left: AtomicI64::new(9), after: false });
    world.objects = Arc::clone(&mortal) as Arc<dyn ObjectStore>;
    let life = world.start(hasty()).await.expect("start");
    let error = life.batch.run_once().await.expect_err("the tenth write fails");
    assert!(error.is_transient(), "{error}");
    assert!(world.board.batch()[SOURCE].error.is_some());
    mortal.writes_left.store(i64::MAX, Ordering::SeqCst);
    life.run_to_end().await.expect("the store is back");
    assert_eq!(world.board.batch()[SOURCE].error, None);
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

async fn damage(world: &World, part: &str) -> String {
    let found: Vec<ObjectMeta> = world
        .objects
        .list(None)
        .filter_map(|file| async { file.ok() })
        .filter(|file| {
            let path = file.location.as_ref();
            futures::future::ready(path.contains(part) && !path.contains("/quarantine/"))
        })
        .collect()
        .await;
    let path =
        found.iter().max_by_key(|file| (file.size, &file.location)).expect("there is one").location.clone();
    let mut bytes = world.objects.get(&path).await.expect("get").bytes().await.expect("bytes").to_vec();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    world.objects.put(&path, PutPayload::from(bytes)).await.expect("put");
    path.to_string()
}

async fn damaged(part: &str) -> (World, String) {
    let mut world = World::new(SMALL).await;
    round(&mut world, 0);
    world.start(hasty()).await.expect("start").run_to_end().await.expect("run");
    let path = damage(&world, part).await;
    round(&mut world, 1);
    (world, path)
}

#[tokio::test]
async fn a_damaged_block_is_computed_again() {
    for part in ["/blocks/", "/versions/"] {
        let (world, _) = damaged(part).await;
        let life = world.start(hasty()).await.expect("the views are computed again");
        life.run_to_end().await.expect("run");
        for view in &world.views {
            world.check(view, &life.batch.ensure_published(view).await.expect("published"));
        }
    }
}

#[tokio::test]
async fn a_block_that_is_damaged_while_the_process_runs_is_computed_again_once_it_is_needed() {
    let mut world = World::new(SMALL).await;
    let life = world.start(hasty()).await.expect("start");
    round(&mut world, 0);
    life.run_to_end().await.expect("run");
    damage(&world, "/blocks/").await;
    // As much again, so that the block is written anew.
    round(&mut world, 1);
    let mut recomputed = Vec::new();
    loop {
        let report = life.run().await;
        recomputed.extend(report.recomputed);
        if !report.backlog {
            break;
        }
    }
    assert_eq!(recomputed.len(), 1, "{recomputed:?}");
    damage(&world, "/blocks/").await;
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

#[tokio::test]
async fn a_newest_file_is_made_again_from_those_segments_alone_that_may_hold_its_date() {
    let mut world = World::new(SMALL).await;
    for (count, hour) in [(3, 0), (6, 24), (9, 48)] {
        world.fill(count, hour);
    }
    world.start(hasty()).await.expect("start").run_to_end().await.expect("run");
    let manifest = world.dataset().manifest(SOURCE).await.expect("whole").expect("committed");
    let dates: Vec<_> = manifest.segments.iter().map(|file| file.dates).collect();
    let date = manifest.newest[0].date.expect("the table is divided by date");
    assert_eq!(dates, [0, 1, 2].map(|day| Some((date + day, date + day))));
    world.log.trim(SOURCE, 0, 9).await.expect("trim");
    let path = world.dataset().newest_files(&manifest).remove(1);
    world.objects.put(&path, PutPayload::from_static(b"x")).await.expect("put");
    for other in [0, 2] {
        let path = world.dataset().segment_files(&manifest).remove(other);
        world.objects.put(&path, PutPayload::from_static(b"x")).await.expect("put");
    }
    world.fill(12, 25);
    let life = world.boot(hasty());
    life.run_to_end().await.expect("run");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

#[tokio::test]
async fn a_damaged_newest_file_is_made_again_from_its_segments() {
    let (world, _) = damaged("/newest/").await;
    let life = world.start(hasty()).await.expect("start");
    life.run_to_end().await.expect("run");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

#[tokio::test]
async fn a_view_is_backfilled_though_a_newest_file_is_damaged() {
    let (world, _) = damaged("/newest/").await;
    world.dataset().remove_views_before(SOURCE, u64::MAX, &[]).await.expect("removed");
    let life = world.boot(hasty());
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("backfilled"));
    }
}

/// A newest file is damaged, and so are the segments it could be made of.
async fn damaged_with_segments() -> (World, Vec<String>) {
    let (world, _) = damaged("/newest/").await;
    let mut segments = Vec::new();
    for number in 0..4 {
        segments.push(damage(&world, &format!("/00000000000{number}.parquet")).await);
    }
    (world, segments)
}

#[tokio::test]
async fn a_damaged_segment_is_archived_again_while_the_log_has_it() {
    let (world, _) = damaged_with_segments().await;
    let life = world.start(hasty()).await.expect("start");
    life.run_to_end().await.expect("run");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
    // With the conflicts in it, which the file of a segment alone does not have.
    assert!(world.check_quarantine().await.conflict > 0);
}

#[tokio::test]
async fn a_newest_file_whose_segments_are_damaged_too_is_refused_by_name() {
    let (world, segments) = damaged_with_segments().await;
    let manifest = world.dataset().manifest(SOURCE).await.expect("whole").expect("committed");
    for (partition, &cut) in (0..).zip(manifest.cut.offsets()) {
        world.log.trim(SOURCE, partition, cut).await.expect("trim");
    }
    let life = world.start(hasty()).await.expect("start");
    let error = life.batch.run_once().await.expect_err("nothing to make it from").to_string();
    assert!(segments.iter().any(|path| error.contains(path)) && error.contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_damaged_manifest_is_refused_by_name() {
    let (world, path) = damaged("/manifests/").await;
    let error = world.start(hasty()).await.err().expect("nothing is known without it").to_string();
    assert!(error.contains(&path) && error.contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_view_published_for_a_version_that_was_rolled_back_is_not_taken_for_the_new_one() {
    let mut world = World::new(SMALL).await;
    world.fill(12, 0);
    let steps = |segments_per_version_max| BatchConfig { segments_per_version_max, ..hasty() };
    world.start(steps(2)).await.expect("start").run_to_end().await.expect("two versions");
    let dataset = world.dataset();
    let listed: Vec<ObjectMeta> =
        world.objects.list(Some(&dataset.layout().views(SOURCE))).try_collect().await.expect("listed");
    let mut published = Vec::new();
    for ObjectMeta { location, .. } in listed {
        let bytes = world.objects.get(&location).await.expect("get").bytes().await.expect("bytes");
        published.push((location, bytes));
    }
    // A person takes version 2 back, and it is made again with another cut.
    world.objects.delete(&dataset.layout().manifest(SOURCE, 2)).await.expect("delete");
    let life = world.start(steps(1)).await.expect("restart");
    life.batch.run_once().await.expect("another version 2");
    for (path, bytes) in published {
        world.objects.put(&path, PutPayload::from_bytes(bytes)).await.expect("put");
    }
    let life = world.boot(hasty());
    for view in &world.views {
        let blocks = life.batch.ensure_published(view).await.expect("published");
        assert_eq!(blocks[0].cut.offsets(), [9, 0]);
        world.check(view, &blocks);
    }
}
