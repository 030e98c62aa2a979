//! One life of a node in a cluster: its part of the core, and the layers it is told to run.
//!
//! ```text
//!   map ─▶ batch here?   ─▶ drive it; create view partitions that nobody holds, remove what nobody wants
//!   driver, here or elsewhere ─▶ tasks of the batch layer
//!     └──▶ my share of the log's partitions ─▶ speed: feed some, follow others
//!   every node ─▶ views from the cluster's store ─▶ HTTP
//!   files of this node and of others ─▶ the versions of views that are fed, and those that answer here
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sanso_batch::{BatchConfig, BatchLayer, Executor, TaskWorker};
use sanso_block::BlockStore;
use sanso_catalog::{Catalog, CatalogHandle, Registered, Share, Shares, StatusBoard};
use sanso_cluster::{ClusterConfig, ClusterMap, ClusterNode, KindsOf, NodeConfig, NodeId, Timings, owners};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_dataset::{Credentials, Dataset};
use sanso_log::Log;
use sanso_serving::metrics::PrometheusHandle;
use sanso_serving::{Cluster, NodeQuestions, ServingConfig, ServingContext, ServingLayer};
use sanso_speed::{EmitterHandle, SpeedConfig, SpeedHandle, SpeedLayer};
use sanso_state::{Fingerprint, LogPartition};
use sanso_view::View;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::application::{self, Declared};
use crate::background::Background;
use crate::cluster::admin::Admin;
use crate::cluster::applications::Applications;
use crate::cluster::blocks::{Host, copy};
use crate::cluster::file::{NodeFile, Role};
use crate::cluster::published::Published;
use crate::cluster::questions;
use crate::cluster::tasks::ClusterTasks;
use crate::node::{open_log, run_alarm, run_serving, stopped};
use crate::{blocks, bounds};

/// How often the node with the batch layer looks for view partitions that nobody holds.
const RECONCILE: Duration = Duration::from_millis(500);

/// How long a division of the log partitions has to hold before anybody begins to follow one, which
/// takes an index. Who feeds changes at once.
const FOLLOW_AFTER: Duration = Duration::from_secs(10);

/// How often a node looks for what the batch layer has published, to keep no longer what that keeps.
const PUBLISHED: Duration = Duration::from_secs(30);

/// How long the batch layer has to be this node's before it runs here, and another's before it ends here: a
/// run that is broken off is work lost, and nobody waits for it.
const BATCH_BEGINS_AFTER: Duration = Duration::from_millis(500);
const BATCH_ENDS_AFTER: Duration = Duration::from_secs(2);

/// A running node of a cluster.
pub(crate) struct Member {
    /// The address HTTP is served at, if this node serves.
    pub(crate) address: Option<SocketAddr>,
    cluster: Arc<ClusterNode>,
    applications: Arc<Applications>,
    stop: watch::Sender<bool>,
    speed: Option<SpeedHandle>,
    emitter: Option<EmitterHandle>,
    tasks: Vec<JoinHandle<()>>,
    background: Background,
    _limits: Vec<Registered>,
}

/// What the layers of this node stand on.
#[derive(Clone)]
struct World {
    batch: BatchConfig,
    cluster: Arc<ClusterNode>,
    log: Arc<dyn Log>,
    dataset: Dataset,
    catalog: CatalogHandle,
    store: PartitionStore,
    board: StatusBoard,
    applications: Arc<Applications>,
}

impl Member {
    /// Begins a life of this node; returns once HTTP is served, which may be before the node is
    /// given anything.
    /// `blocks` outlive its lives; `before` is what the life before declared, if there was one.
    pub(crate) async fn start(
        file: &NodeFile,
        metrics: &PrometheusHandle,
        blocks: &BlockStore,
        before: Option<Arc<Declared>>,
    ) -> anyhow::Result<Self> {
        let declared = read_or_keep(&file.own.application, before)?;
        let catalog = catalog_of(&declared);
        let cluster = ClusterNode::start(cluster_config(file)?, kinds_of(&catalog)).await?;
        let cluster = Arc::new(cluster);
        tracing::info!(me = %cluster.me(), "takes part in the cluster");
        let kafka = file.settings.kafka.clone();
        let log = open_log(&file.own.log.url, kafka, &declared).await?;
        let beside = file.own.data.join("dataset");
        let dataset = Dataset::open(&file.settings.dataset, &beside, Credentials::Standard)
            .await
            .context("open master dataset")?;
        let dataset = blocks::keep(dataset, blocks, &declared.application);
        let (store, app) = (cluster.store(), file.own.application.clone());
        let applications =
            Applications::tell(Arc::clone(&cluster), catalog.clone(), store.clone(), app, declared);
        let world = World {
            batch: file.settings.batch.clone(),
            store,
            cluster,
            log,
            dataset,
            catalog,
            board: StatusBoard::new(),
            applications,
        };
        questions::serve(&world.cluster, &NodeQuestions::new(world.catalog.clone(), world.board.clone()));
        let mut member = Self::run(file, &world, metrics).await?;
        let limits = blocks::register(&world.board.limits(), &world.batch, blocks);
        member._limits.extend(limits);
        Ok(member)
    }

    async fn run(file: &NodeFile, world: &World, metrics: &PrometheusHandle) -> anyhow::Result<Self> {
        let mut member = Self {
            address: None,
            cluster: Arc::clone(&world.cluster),
            applications: Arc::clone(&world.applications),
            stop: watch::Sender::new(false),
            speed: None,
            emitter: None,
            tasks: Vec::new(),
            background: Background::start()?,
            _limits: bounds::register(&world.board.limits(), &world.log),
        };
        let me = NodeId(file.own.node);
        let stop = member.stop.subscribe();
        let host = Arc::new(Host { dataset: world.dataset.clone(), catalog: world.catalog.clone() });
        let blocks = super::blocks::serve(&world.cluster, file.with_role(Role::Batch), Arc::clone(&host));
        let speed_dir = file.own.data.join("speed");
        member.emitter = Some(world.emitter(&speed_dir).await?);
        if file.with_role(Role::Speed).contains(&me) {
            let config = SpeedConfig { dir: speed_dir, ..file.settings.speed.clone() };
            member.speed = Some(world.speed(config).await?);
            let follow = follow_shares(world.clone(), file.with_role(Role::Speed), stop.clone());
            member.tasks.push(tokio::spawn(follow));
            member.tasks.push(tokio::spawn(follow_published(world.clone(), stop.clone())));
        }
        if file.with_role(Role::Batch).contains(&me) {
            member.tasks.push(member.background.spawn(copy(blocks, host, stop.clone())));
            let tasks = world.tasks(file.with_role(Role::Batch), member.background.handle());
            let batch = run_batch(world.clone(), tasks, stop.clone());
            member.tasks.push(member.background.spawn(batch));
        }
        let drivers = file.with_role(Role::Batch);
        let cluster = Arc::clone(&world.cluster);
        let drives = move || drives_batch(&cluster.maps().borrow(), &drivers, me);
        member.tasks.push(tokio::spawn(Arc::clone(&world.applications).follow(drives, stop.clone())));
        if file.with_role(Role::Serving).contains(&me) {
            let admin = Admin::new(Arc::clone(&world.cluster), Arc::clone(&world.applications), file);
            let serving =
                world.serving(file.settings.serving.clone(), Arc::new(admin)).with_metrics(metrics.clone());
            let listen = file.own.listen;
            let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
            member.address = Some(listener.local_addr().context("read listen address")?);
            member.tasks.push(tokio::spawn(run_serving(serving, listener, stop.clone())));
        }
        member.tasks.push(tokio::spawn(run_alarm(world.board.clone(), stop)));
        Ok(member)
    }

    /// Returns what this node declares.
    pub(crate) fn declared(&self) -> Arc<Declared> {
        self.applications.declared()
    }

    /// Resolves when the cluster goes on without this life: another one is to be begun.
    pub(crate) async fn superseded(&self) {
        // The engine lives as long as the member.
        let _ = self.cluster.superseded().wait_for(|over| *over).await;
    }

    /// Stops all layers; what was acknowledged is in the log already.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the node ended badly");
            }
        }
        if let Some(speed) = self.speed {
            speed.shutdown().await;
        }
        if let Some(emitter) = self.emitter {
            emitter.shutdown().await;
        }
        self.cluster.shutdown().await;
    }
}

impl World {
    async fn speed(&self, config: SpeedConfig) -> anyhow::Result<SpeedHandle> {
        let started = SpeedLayer::start(
            config,
            Arc::clone(&self.log),
            self.dataset.clone(),
            self.catalog.clone(),
            self.store.clone(),
            self.board.clone(),
        );
        started.await.context("start speed layer")
    }

    /// Writes the closed windows of what this node is the primary of, whatever its layers are.
    async fn emitter(&self, dir: &Path) -> anyhow::Result<EmitterHandle> {
        let started =
            EmitterHandle::start(dir, Arc::clone(&self.log), self.catalog.clone(), self.store.clone());
        started.await.context("start to write closed windows")
    }

    fn serving(&self, config: ServingConfig, cluster: Arc<dyn Cluster>) -> ServingLayer {
        let context = ServingContext {
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            dataset: self.dataset.clone(),
            log: Arc::clone(&self.log),
            board: self.board.clone(),
            cluster: Some(cluster),
        };
        ServingLayer::new(config, context)
    }
}

/// Reads the application. A file that is refused leaves a node that had another one with that, as while it runs.
fn read_or_keep(path: &Path, before: Option<Arc<Declared>>) -> anyhow::Result<Arc<Declared>> {
    match (application::read(path), before) {
        (Ok(declared), _) => Ok(Arc::new(declared)),
        (Err(error), None) => Err(error),
        (Err(error), Some(before)) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "the application is refused; the node goes on with the one it had");
            Ok(before)
        }
    }
}

fn catalog_of(declared: &Declared) -> CatalogHandle {
    let sources = declared.application.sources.iter();
    CatalogHandle::new(Catalog {
        sources: sources.map(|source| (source.name.clone(), Arc::clone(source))).collect(),
        live: declared.views.iter().map(|view| (view.fingerprint, Arc::clone(view))).collect(),
        serving: declared.views.iter().map(|view| (view.name.clone(), view.fingerprint)).collect(),
        // None yet: the cluster's map says which, and the other members.
        shares: Some(Shares::new()),
        emits: Some(BTreeMap::new()),
    })
}

fn kinds_of(catalog: &CatalogHandle) -> KindsOf {
    let catalog = catalog.clone();
    Arc::new(move |view: Fingerprint| {
        catalog.current().live.get(&view).map(|view| Arc::clone(&view.partition_config().kinds))
    })
}

fn cluster_config(file: &NodeFile) -> anyhow::Result<ClusterConfig> {
    let cluster = &file.own.cluster;
    Ok(ClusterConfig {
        name: cluster.name.clone(),
        node: NodeId(file.own.node),
        listen: file.peer_listen()?,
        members: file.members(),
        partitions: cluster.partitions,
        replicas: cluster.replicas,
        folder: file.own.data.join("cluster"),
        tls: file.tls(),
        insecure: cluster.insecure,
        versions: sanso_cluster::VERSIONS,
        core: NodeConfig::default(),
        // Longer than control's own defaults: a machine that is short of processors would else elect
        // again and again. Reads don't wait for elections, and most failovers need none.
        control: Timings {
            heartbeat_ms: 50,
            election_ms_min: 200,
            election_ms_max: 400,
            ..Timings::default()
        },
    })
}

/// Follows which log partitions are this node's, by the map.
async fn follow_shares(world: World, speed: BTreeSet<NodeId>, stop: watch::Receiver<bool>) {
    let mut maps = world.cluster.maps();
    let me = world.cluster.me().node;
    let sources = world.catalog.current().sources.clone();
    let take = |shares: Shares| world.catalog.update(|catalog| catalog.shares = Some(shares));
    let follow = async {
        let (mut wanted, mut holds) = (Shares::new(), Instant::now());
        loop {
            let nodes = owners::usable(&maps.borrow_and_update(), |node| speed.contains(&node));
            let mut mine = Shares::new();
            // Each source by itself: nodes that differ in the others agree on it.
            for source in sources.values() {
                let jobs: Vec<LogPartition> = (0..source.partitions).map(LogPartition).collect();
                let weight = |l: &LogPartition, node| owners::weight(&source.name, l.0, node);
                for (l, (feeds, follows)) in owners::assign_with_followers(&jobs, &nodes, weight) {
                    let job = (source.name.clone(), l);
                    if feeds == me {
                        mine.insert(job, Share::Feeds);
                    } else if follows == Some(me) {
                        mine.insert(job, Share::Follows);
                    }
                }
            }
            if mine != wanted {
                (wanted, holds) = (mine, Instant::now() + FOLLOW_AFTER);
                let held = world.catalog.current().shares.clone().unwrap_or_default();
                take(at_once(&held, &wanted));
            }
            let is_taken = world.catalog.current().shares.as_ref() == Some(&wanted);
            tokio::select! {
                changed = maps.changed() => if changed.is_err() { return },
                () = sleep_until(holds), if !is_taken => take(wanted.clone()),
            }
        }
    };
    tokio::select! {
        () = stopped(stop) => {}
        () = follow => {}
    }
}

/// Learns what the batch layer has published, wherever it is driven.
async fn follow_published(world: World, stop: watch::Receiver<bool>) {
    let sources = world.catalog.current().sources.clone();
    let mut published = Published::default();
    let follow = async {
        loop {
            for source in sources.keys() {
                if let Err(error) = published.look(&world.dataset, &world.board, source).await {
                    tracing::debug!(%error, source, "look for what is published");
                }
            }
            tokio::time::sleep(PUBLISHED).await;
        }
    };
    tokio::select! {
        () = stopped(stop) => {}
        () = follow => {}
    }
}

/// Returns what to do at once of what is wanted, by one who holds some shares: to feed, and to keep what
/// it has until others have begun.
fn at_once(held: &Shares, wanted: &Shares) -> Shares {
    let mut shares: Shares = held.keys().map(|job| (job.clone(), Share::Follows)).collect();
    let feeds = wanted.iter().filter(|(_, share)| **share == Share::Feeds);
    shares.extend(feeds.map(|(job, share)| (job.clone(), *share)));
    shares
}

/// Says whether a node drives the batch layer, of those that have it.
fn drives_batch(map: &ClusterMap, nodes: &BTreeSet<NodeId>, node: NodeId) -> bool {
    owners::holder_of("batch", &owners::usable(map, |node| nodes.contains(&node))) == Some(node)
}

/// Drives the batch layer whenever it is this node's to drive. Two that drive it for a moment do no
/// harm: one of them is refused its version by the dataset.
async fn run_batch(world: World, tasks: Arc<ClusterTasks>, stop: watch::Receiver<bool>) {
    let me = world.cluster.me().node;
    let is_mine = |map: &Arc<ClusterMap>| drives_batch(map, tasks.nodes(), me);
    let follow = async {
        while held_for(BATCH_BEGINS_AFTER, world.cluster.maps(), is_mine).await {
            tracing::info!("the batch layer is driven here");
            tokio::select! {
                _ = held_for(BATCH_ENDS_AFTER, world.cluster.maps(), |map| !is_mine(map)) => {
                    tracing::info!("the batch layer is driven elsewhere");
                }
                () = world.run_batch(&tasks) => {}
            }
            world.board.forget_batch();
        }
    };
    tokio::select! {
        () = stopped(stop.clone()) => {}
        () = follow => {}
    }
}

/// Waits until something has held of the newest map for a while; false when there will be no other map.
async fn held_for(
    time: Duration,
    mut maps: watch::Receiver<Arc<ClusterMap>>,
    holds: impl Fn(&Arc<ClusterMap>) -> bool,
) -> bool {
    while maps.wait_for(&holds).await.is_ok() {
        match tokio::time::timeout(time, maps.wait_for(|map| !holds(map))).await {
            Err(_) => return true,
            Ok(Err(_)) => return false,
            Ok(Ok(_)) => {}
        }
    }
    false
}

impl World {
    /// Begins to do what is driven elsewhere, too.
    fn tasks(&self, nodes: BTreeSet<NodeId>, background: Handle) -> Arc<ClusterTasks> {
        let worker = TaskWorker::new(
            self.batch.clone(),
            Arc::clone(&self.log),
            self.dataset.clone(),
            self.catalog.clone(),
        );
        ClusterTasks::serve(Arc::clone(&self.cluster), nodes, (worker, self.catalog.clone()), background)
    }

    async fn run_batch(&self, tasks: &Arc<ClusterTasks>) {
        let batch = BatchLayer::new(
            self.batch.clone(),
            Arc::clone(&self.log),
            self.dataset.clone(),
            self.catalog.clone(),
            self.store.clone(),
            self.board.clone(),
        );
        let batch = batch.with_executor(Arc::clone(tasks) as Arc<dyn Executor>);
        tokio::join!(batch.run(std::future::pending()), self.reconcile(&batch), tasks.follow());
    }

    /// Sees to it that every view partition is held: those of new views, and those of which all
    /// replicas were lost, from the newest version.
    async fn reconcile(&self, batch: &BatchLayer) {
        let mut told = None;
        loop {
            let error = self.create_missing(batch).await.err().map(|error| format!("{error:#}"));
            if let Some(error) = error.as_ref().filter(|_| told != error) {
                tracing::warn!(error, "view partitions are missing");
            }
            told = error;
            tokio::time::sleep(RECONCILE).await;
        }
    }

    async fn create_missing(&self, batch: &BatchLayer) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        let catalog = self.catalog.current();
        for view in catalog.live.values() {
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                match self.store.read(id, &ReadRequest::Progress).await {
                    Ok(_) => {}
                    Err(StoreError::NotLive(_)) => missing.push((view, id)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let views: Vec<Arc<View>> = missing.iter().map(|(view, _)| Arc::clone(view)).collect();
        let blocks = batch.live_blocks(&views).await.context("load or compute the views")?;
        for (view, id) in missing {
            // One that was retired meanwhile needs none.
            let Some(blocks) = blocks.get(&view.fingerprint) else { continue };
            let block = blocks.get(id.index as usize).context("a block is missing")?;
            self.cluster.create(id, view.partition_config(), Arc::clone(block)).await?;
            tracing::info!(view = view.name, partition = id.index, "view partition is made");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_feeds_begins_at_once_and_nobody_lets_go_before_the_division_holds() {
        let shares = |shares: &[(u32, Share)]| -> Shares {
            shares.iter().map(|(l, share)| (("readings".to_owned(), LogPartition(*l)), *share)).collect()
        };
        let held = shares(&[(0, Share::Feeds), (1, Share::Feeds), (2, Share::Follows), (3, Share::Follows)]);
        let wanted =
            shares(&[(0, Share::Follows), (2, Share::Feeds), (4, Share::Feeds), (5, Share::Follows)]);
        let first = [
            (0, Share::Follows),
            (1, Share::Follows),
            (2, Share::Feeds),
            (3, Share::Follows),
            (4, Share::Feeds),
        ];
        assert_eq!(at_once(&held, &wanted), shares(&first));
        assert_eq!(at_once(&Shares::new(), &held), shares(&[(0, Share::Feeds), (1, Share::Feeds)]));
    }

    #[test]
    fn a_refused_file_leaves_a_node_with_what_its_life_before_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.sql");
        std::fs::write(&path, "CREATE SOURCE").expect("written");
        assert!(read_or_keep(&path, None).is_err(), "there is nothing to go on with");
        let good = "CREATE SOURCE readings (k TEXT, t TIMESTAMP) WITH (topic = 'r', key = 'k', identity = 'k, t');\n\
                    CREATE VIEW counts AS SELECT k, COUNT(*) AS n FROM readings GROUP BY k;\n";
        std::fs::write(&path, good).expect("written");
        let first = read_or_keep(&path, None).expect("it is good");
        std::fs::write(&path, "CREATE SOURCE").expect("written");
        let kept = read_or_keep(&path, Some(Arc::clone(&first))).expect("it goes on");
        assert_eq!(kept.content, first.content);
        std::fs::write(&path, good.replace("counts", "numbers")).expect("written");
        let changed = read_or_keep(&path, Some(first)).expect("it is good");
        assert_eq!(changed.views[0].name, "numbers");
    }
}
