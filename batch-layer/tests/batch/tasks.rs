//! One driver, tasks at many workers: the same versions whoever did what, and nothing done twice that
//! was not lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use sanso_batch::{BatchConfig, BatchError, WorkerId};
use sanso_catalog::{JobKind, JobOutcome};
use sanso_dataset::Manifest;

use crate::crash::round;
use crate::fleet::{Fleet, Manner};
use crate::support::{SOURCE, Shape, World, hasty};

/// Three log partitions, so that each of three workers has one.
pub(crate) const WIDE: Shape = Shape { segment: 3, partitions: 3, versioned: true };

pub(crate) fn config() -> BatchConfig {
    BatchConfig { segments_per_version_max: 6, versions_kept: 64, ..hasty() }
}

/// Everything that a dataset holds: manifests as they read, and all other files as bytes.
pub(crate) async fn content(world: &World) -> (Vec<Manifest>, BTreeMap<String, Vec<u8>>) {
    let dataset = world.dataset();
    let mut manifests = Vec::new();
    for version in dataset.manifest_versions(SOURCE).await.expect("listed") {
        manifests.push((*dataset.manifest_at(SOURCE, version).await.expect("read")).clone());
    }
    let listed: Vec<ObjectMeta> = world.objects.list(None).try_collect().await.expect("listed");
    let mut files = BTreeMap::new();
    for ObjectMeta { location, .. } in listed {
        let name = location.to_string();
        // These two hold a random mark.
        if !name.contains("/manifests/") && !name.ends_with("in_force.json") {
            let bytes = world.objects.get(&location).await.expect("get").bytes().await.expect("bytes");
            files.insert(name, bytes.to_vec());
        }
    }
    (manifests, files)
}

/// Archives two rounds of readings with whatever workers; returns what is in the dataset then.
async fn archived(
    fleet: impl Fn(&World) -> Option<Arc<Fleet>>,
) -> (Vec<Manifest>, BTreeMap<String, Vec<u8>>) {
    let mut world = World::new(WIDE).await;
    let fleet = fleet(&world);
    let life = match &fleet {
        Some(fleet) => world.start_on(config(), fleet).await,
        None => world.start(config()).await,
    };
    let life = life.expect("start");
    for number in 0..2 {
        round(&mut world, number);
        life.run_to_end().await.expect("run");
    }
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
    let refused = world.check_quarantine().await;
    assert!(refused.undecodable > 0 && refused.misplaced > 0 && refused.conflict > 0, "{refused:?}");
    content(&world).await
}

#[tokio::test]
async fn whoever_does_which_task_every_file_is_the_same() {
    let alone = archived(|_| None).await;
    assert!(alone.0.len() > 2 && alone.1.keys().any(|file| file.contains("/quarantine/")));
    assert_eq!(archived(|world| Some(Fleet::new(world, 3))).await, alone, "three workers");
    let doubled = |world: &World| {
        let fleet = Fleet::new(world, 3);
        (1..=3).for_each(|worker| fleet.behave(worker, Manner::Doubled));
        Some(fleet)
    };
    assert_eq!(archived(doubled).await, alone, "every task at two workers at the same time");
    let outdated = |world: &World| {
        let fleet = Fleet::new(world, 3);
        fleet.behave(2, Manner::Outdated);
        Some(fleet)
    };
    assert_eq!(archived(outdated).await, alone, "one that knows no view");
}

#[tokio::test]
async fn what_a_lost_worker_had_is_done_elsewhere_and_the_rest_is_not_done_again() {
    let mut world = World::new(WIDE).await;
    let fleet = Fleet::new(&world, 3);
    fleet.behave(2, Manner::Hangs);
    let life = world.start_on(config(), &fleet).await.expect("start");
    round(&mut world, 0);
    let lose = async {
        fleet.stuck(1).await;
        fleet.workers.send_modify(|workers| _ = workers.remove(&WorkerId(2)));
    };
    let (ran, ()) = futures::join!(life.run_to_end(), lose);
    ran.expect("run");
    let computed = fleet.computed();
    assert!(computed.len() >= 3 && computed.values().all(|times| *times == 1), "{computed:?}");
    for view in &world.views {
        world.check(view, &life.batch.ensure_published(view).await.expect("published"));
    }
}

#[tokio::test]
async fn a_driver_that_is_dropped_stops_its_tasks_and_the_next_one_uses_what_is_done() {
    let mut world = World::new(WIDE).await;
    let fleet = Fleet::new(&world, 3);
    // One task has no result, one has a result that the driver never heard of.
    fleet.behave(2, Manner::Hangs);
    fleet.behave(3, Manner::Silent);
    let life = world.start_on(config(), &fleet).await.expect("start");
    round(&mut world, 0);
    tokio::select! {
        _ = life.run_to_end() => panic!("it can't end"),
        () = async {
            fleet.stuck(2).await;
            let first = |(running, _): &(usize, usize)| *running == 2;
            fleet.runs.subscribe().wait_for(first).await.expect("the fleet is there");
        } => {}
    }
    assert_eq!(fleet.runs.borrow().0, 0, "nobody works for a driver that is gone");
    let job = world.board.jobs();
    assert!(job.is_empty(), "{job:?}");
    let ended = &world.board.ended_jobs()[SOURCE][0];
    assert_eq!((&ended.outcome, ended.job.tasks, ended.job.version), (&JobOutcome::Stopped, 3, 1));
    let before = fleet.computed();
    assert_eq!(before.len(), 2, "{before:?}");
    // More has come since: the version is made as it was planned all the same.
    round(&mut world, 1);
    [2, 3].into_iter().for_each(|worker| fleet.behave(worker, Manner::Well));
    let next = world.start_on(config(), &fleet).await.expect("start");
    let report = next.run().await;
    assert_eq!((report.version, report.segments.len(), report.backlog), (Some(1), 6, true));
    let after = fleet.computed();
    assert_eq!(after.len(), 1, "only what had no result: {after:?}");
    assert!(after.keys().all(|task| !before.contains_key(task)));
    next.run_to_end().await.expect("run");
    for view in &world.views {
        world.check(view, &next.batch.ensure_published(view).await.expect("published"));
    }
    let (_, files) = content(&world).await;
    assert!(!files.keys().any(|file| file.contains("/tasks/")), "nothing is left of what was done");
}

/// A store that takes no published views.
#[derive(Debug)]
struct Unpublishing(Arc<dyn ObjectStore>);

impl std::fmt::Display for Unpublishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unpublishing")
    }
}

#[async_trait]
impl ObjectStore for Unpublishing {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if path.as_ref().contains("/views/") {
            return Err(object_store::Error::Generic {
                store: "unpublishing",
                source: "the process died".into(),
            });
        }
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_version_that_is_committed_and_not_published_is_published_from_what_its_tasks_gave() {
    for damaged in [false, true] {
        let mut world = World::new(WIDE).await;
        let fleet = Fleet::new(&world, 3);
        round(&mut world, 0);
        world.start_on(config(), &fleet).await.expect("start").run().await;
        let whole: Arc<dyn ObjectStore> = Arc::clone(&world.objects);
        world.objects = Arc::new(Unpublishing(Arc::clone(&whole)));
        let life = world.start_on(config(), &fleet).await.expect("restart");
        let died = life.batch.run_once().await.expect_err("it dies before it publishes");
        assert!(died.is_transient(), "{died}");
        world.objects = whole;
        let version = world.dataset().manifest(SOURCE).await.expect("read").expect("committed").version;
        assert_eq!(version, 2);
        if damaged {
            let (_, files) = content(&world).await;
            let result = files.keys().find(|file| file.ends_with(".groups") && file.contains("/tasks/"));
            let path = Path::from(result.expect("results are kept").as_str());
            world.objects.put(&path, PutPayload::from_static(b"x")).await.expect("put");
        }
        fleet.computed();
        // Its views are asked for by the run, not before.
        let life = world.boot_on(config(), &fleet);
        let report = life.run().await;
        let recomputed = if damaged { world.views.len() } else { 0 };
        assert_eq!(report.recomputed.len(), recomputed, "{:?}", report.recomputed);
        let lifts = fleet.computed().keys().filter(|task| task.starts_with("lift")).count();
        assert_eq!(lifts, if damaged { 3 } else { 0 });
        for view in &world.views {
            world.check(view, &life.batch.ensure_published(view).await.expect("published"));
        }
    }
}

#[tokio::test]
async fn new_views_are_lifted_by_all_workers_from_stored_rows() {
    let mut world = World::new(WIDE).await;
    let fleet = Fleet::new(&world, 3);
    round(&mut world, 0);
    let life = world.start_on(config(), &fleet).await.expect("start");
    life.run_to_end().await.expect("run");
    let mut published = Vec::new();
    for view in &world.views {
        published.push(life.batch.ensure_published(view).await.expect("published"));
    }
    world.dataset().remove_views_before(SOURCE, u64::MAX, &[]).await.expect("removed");
    fleet.computed();
    let life = world.boot_on(config(), &fleet);
    life.batch.ensure_all_published(&world.views).await.expect("computed");
    let computed = fleet.computed();
    let partitions: u32 = world.views.iter().map(|view| view.partitions).sum();
    assert_eq!(computed.len(), 3 + partitions as usize, "{computed:?}");
    for (view, published) in world.views.iter().zip(published) {
        assert_eq!(life.batch.ensure_published(view).await.expect("published"), published, "{}", view.name);
    }
}

#[tokio::test]
async fn a_task_that_fails_everywhere_fails_the_run_by_name() {
    let mut world = World::new(WIDE).await;
    let fleet = Fleet::new(&world, 2);
    let life = world.start_on(config(), &fleet).await.expect("start");
    round(&mut world, 0);
    (1..=2).for_each(|worker| fleet.behave(worker, Manner::Outdated));
    let error = life.batch.run_once().await.expect_err("no worker can do it");
    assert!(matches!(error, BatchError::Task { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains("readings/") && error.to_string().contains("application"), "{error}");
    (1..=2).for_each(|worker| fleet.behave(worker, Manner::Well));
    life.run_to_end().await.expect("the application is there");
}

#[tokio::test]
async fn workers_that_know_no_view_do_not_end_a_job_that_one_can_do() {
    let mut world = World::new(WIDE).await;
    let fleet = Fleet::new(&world, 6);
    let life = world.start_on(config(), &fleet).await.expect("start");
    round(&mut world, 0);
    // More than a task may fail.
    (1..=5).for_each(|worker| fleet.behave(worker, Manner::Outdated));
    let report = life.run().await;
    assert_eq!(report.version, Some(1));
    let ended = &world.board.ended_jobs()[SOURCE][0];
    assert_eq!((&ended.outcome, ended.job.failed), (&JobOutcome::Done, 0));
    assert!(ended.job.refused >= 5, "{ended:?}");
    assert_eq!(ended.job.nodes[&6].done, ended.job.tasks, "{ended:?}");
}

#[tokio::test]
async fn a_view_that_is_wanted_no_longer_is_computed_no_further() {
    let mut world = World::new(WIDE).await;
    let fleet = Fleet::new(&world, 3);
    let life = world.boot_on(config(), &fleet);
    let (stays, goes) = (Arc::clone(&world.views[0]), Arc::clone(&world.views[1]));
    life.catalog.update(|catalog| catalog.live.retain(|view, _| *view == stays.fingerprint));
    round(&mut world, 0);
    life.run_to_end().await.expect("run");
    life.catalog.update(|catalog| _ = catalog.live.insert(goes.fingerprint, Arc::clone(&goes)));
    (1..=3).for_each(|worker| fleet.behave(worker, Manner::Hangs));
    let views = [Arc::clone(&stays), goes];
    let is_taken_back = async {
        fleet.stuck(3).await;
        assert_eq!(world.board.jobs()[SOURCE].views, [views[1].name.clone()]);
        life.catalog.update(|catalog| _ = catalog.live.remove(&views[1].fingerprint));
    };
    let (live, ()) = futures::join!(life.batch.live_views(&views), is_taken_back);
    let mut live = live.expect("one is left");
    assert!(live.blocks(&stays, &[0]).await.expect("loaded").is_some());
    assert!(live.blocks(&views[1], &[0]).await.expect("asked").is_none());
    assert_eq!(fleet.runs.borrow().0, 0, "nobody works for it any longer");
    let ended = &world.board.ended_jobs()[SOURCE][0];
    assert_eq!((ended.job.kind, &ended.outcome), (JobKind::Views, &JobOutcome::Stopped));
}
