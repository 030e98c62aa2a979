//! One life of a node, alone or in a cluster: its part of the core, and the layers it is told to run.
//!
//! ```text
//!   map ─▶ batch here?   ─▶ drive it; create view partitions that nobody holds, remove what nobody wants
//!   driver, here or elsewhere ─▶ tasks of the batch layer
//!     └──▶ my share of the log's partitions ─▶ speed: feed some, follow others
//!   every node ─▶ views from the cluster's store ─▶ HTTP
//!   files of this node and of others ─▶ the versions of views that are fed, and those that answer here
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use sanso_batch::BatchConfig;
use sanso_catalog::{Catalog, CatalogHandle, Registered, Shares, StatusBoard};
use sanso_cluster::{ClusterConfig, ClusterNode, KindsOf, NodeId, Timings, VotersPatience};
use sanso_core::PartitionStore;
use sanso_dataset::{Credentials, Dataset};
use sanso_log::Log;
use sanso_serving::metrics::PrometheusHandle;
use sanso_serving::{Cluster, NodeQuestions, ServingConfig, ServingContext, ServingLayer};
use sanso_speed::{EmitterHandle, SpeedConfig, SpeedHandle, SpeedLayer};
use sanso_state::Fingerprint;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::application::{self, Declared};
use crate::background::Background;
use crate::cluster::admin::Admin;
use crate::cluster::applications::Applications;
use crate::cluster::blocks::{Host, copy};
use crate::cluster::file::{NodeFile, Role};
use crate::cluster::spilling::Spiller;
use crate::cluster::{driver, published, questions, shares};
use crate::disks::Disks;
use crate::{bounds, source_log};

/// A running node.
pub(crate) struct Member {
    /// The address HTTP is served at, if this node serves.
    pub(crate) address: Option<SocketAddr>,
    /// What the layers say of themselves.
    pub(crate) board: StatusBoard,
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
pub(super) struct World {
    pub(super) batch: BatchConfig,
    pub(super) cluster: Arc<ClusterNode>,
    pub(super) log: Arc<dyn Log>,
    pub(super) dataset: Dataset,
    pub(super) catalog: CatalogHandle,
    pub(super) store: PartitionStore,
    pub(super) board: StatusBoard,
    pub(super) spiller: Spiller,
    applications: Arc<Applications>,
}

impl Member {
    /// Begins a life of this node; returns once HTTP is served, which may be before the node is
    /// given anything.
    /// `disks` outlive its lives; `before` is what the life before declared, if there was one.
    pub(crate) async fn start(
        file: &NodeFile,
        metrics: &PrometheusHandle,
        disks: &Disks,
        before: Option<Arc<Declared>>,
    ) -> anyhow::Result<Self> {
        let declared = read_or_keep(&file.own.application, before)?;
        let background = Background::start()?;
        let catalog = catalog_of(&declared, file.is_alone);
        let kinds_of = kinds_of(&catalog);
        let cluster = Arc::new(match file.is_alone {
            true => ClusterNode::alone(kinds_of)?,
            false => ClusterNode::start(cluster_config(file)?, kinds_of).await?,
        });
        if !file.is_alone {
            tracing::info!(me = %cluster.me(), "takes part in the cluster");
        }
        // What a start that fails has begun is not to outlive the runtime, nor to be in the way of another try.
        let world = match World::open(file, Arc::clone(&cluster), catalog, disks, declared).await {
            Ok(world) => world,
            Err(error) => {
                cluster.shutdown().await;
                return Err(error);
            }
        };
        let mut member = Self::new(&world, background);
        member._limits.extend(disks.register(&world.board.limits(), &file.settings));
        if let Err(error) = member.run(file, &world, metrics).await {
            member.stop().await;
            return Err(error);
        }
        Ok(member)
    }

    /// Nothing runs yet.
    fn new(world: &World, background: Background) -> Self {
        Self {
            address: None,
            board: world.board.clone(),
            cluster: Arc::clone(&world.cluster),
            applications: Arc::clone(&world.applications),
            stop: watch::Sender::new(false),
            speed: None,
            emitter: None,
            tasks: Vec::new(),
            background,
            _limits: bounds::register(&world.board.limits(), &world.log),
        }
    }

    async fn run(
        &mut self,
        file: &NodeFile,
        world: &World,
        metrics: &PrometheusHandle,
    ) -> anyhow::Result<()> {
        let me = NodeId(file.own.node);
        let stop = self.stop.subscribe();
        let host = Arc::new(Host { dataset: world.dataset.clone(), catalog: world.catalog.clone() });
        let blocks = super::blocks::serve(&world.cluster, file.with_role(Role::Batch), Arc::clone(&host));
        let alone = file.is_alone.then(|| world.batch_layer());
        if let Some(batch) = &alone {
            // Nobody else has them, and who comes first is to find them.
            world.create_missing(batch).await.context("load or compute the views")?;
        }
        let speed_dir = file.own.data.join("speed");
        self.emitter = Some(world.emitter(&speed_dir).await?);
        if file.with_role(Role::Speed).contains(&me) {
            let config = SpeedConfig { dir: speed_dir, ..file.settings.speed.clone() };
            self.speed = Some(world.speed(config).await?);
        }
        if file.with_role(Role::Speed).contains(&me) && !file.is_alone {
            let follow = shares::follow(world.clone(), file.with_role(Role::Speed), stop.clone());
            self.tasks.push(tokio::spawn(follow));
            self.tasks.push(tokio::spawn(published::follow(world.clone(), stop.clone())));
        }
        if let Some(batch) = alone {
            let batch = driver::run_alone(world.clone(), batch, stop.clone());
            self.tasks.push(self.background.spawn(batch));
        } else if file.with_role(Role::Batch).contains(&me) {
            self.tasks.push(self.background.spawn(copy(blocks, host, stop.clone())));
            let tasks = world.tasks(file.with_role(Role::Batch), self.background.handle());
            let batch = driver::run(world.clone(), tasks, stop.clone());
            self.tasks.push(self.background.spawn(batch));
        }
        self.tasks.push(self.background.spawn(world.spiller.clone().follow(stop.clone())));
        let drivers = file.with_role(Role::Batch);
        let cluster = Arc::clone(&world.cluster);
        let drives = move || driver::drives(&cluster.maps().borrow(), &drivers, me);
        self.tasks.push(tokio::spawn(Arc::clone(&world.applications).follow(drives, stop.clone())));
        if file.with_role(Role::Serving).contains(&me) {
            let admin = Admin::new(Arc::clone(&world.cluster), Arc::clone(&world.applications), file);
            let admin = (!file.is_alone).then(|| Arc::new(admin) as Arc<dyn Cluster>);
            let serving = world.serving(file.settings.serving.clone(), admin).with_metrics(metrics.clone());
            let listen = file.own.listen;
            let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
            self.address = Some(listener.local_addr().context("read listen address")?);
            self.tasks.push(tokio::spawn(run_serving(serving, listener, stop.clone())));
        }
        self.tasks.push(tokio::spawn(run_alarm(world.board.clone(), stop)));
        Ok(())
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
    /// Opens the log and the dataset, and begins to tell other nodes what this one declares.
    async fn open(
        file: &NodeFile,
        cluster: Arc<ClusterNode>,
        catalog: CatalogHandle,
        disks: &Disks,
        declared: Arc<Declared>,
    ) -> anyhow::Result<Self> {
        let log = source_log::open(&file.own.log.url, file.settings.kafka.clone(), &declared).await?;
        let beside = file.own.data.join("dataset");
        let dataset = Dataset::open(&file.settings.dataset, &beside, Credentials::Standard)
            .await
            .context("open master dataset")?;
        let dataset = disks.keep(dataset, &declared.application);
        let (store, app) = (cluster.store(), file.own.application.clone());
        let applications =
            Applications::tell(Arc::clone(&cluster), catalog.clone(), store.clone(), app, declared);
        let spiller = Spiller::new(
            catalog.clone(),
            store.clone(),
            dataset.clone(),
            disks.runs.clone(),
            &file.settings.serving,
        );
        let world = Self {
            batch: file.settings.batch.clone(),
            spiller,
            store,
            cluster,
            log,
            dataset,
            catalog,
            board: StatusBoard::new(),
            applications,
        };
        questions::serve(&world.cluster, &NodeQuestions::new(world.catalog.clone(), world.board.clone()));
        Ok(world)
    }

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

    fn serving(&self, config: ServingConfig, cluster: Option<Arc<dyn Cluster>>) -> ServingLayer {
        let context = ServingContext {
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            dataset: self.dataset.clone(),
            log: Arc::clone(&self.log),
            board: self.board.clone(),
            cluster,
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

fn catalog_of(declared: &Declared, is_alone: bool) -> CatalogHandle {
    let sources = declared.application.sources.iter();
    CatalogHandle::new(Catalog {
        sources: sources.map(|source| (source.name.clone(), Arc::clone(source))).collect(),
        live: declared.views.iter().map(|view| (view.fingerprint, Arc::clone(view))).collect(),
        serving: declared.views.iter().map(|view| (view.name.clone(), view.fingerprint)).collect(),
        // None yet: the cluster's map says which, and the other members.
        shares: (!is_alone).then(Shares::new),
        emits: (!is_alone).then(BTreeMap::new),
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
        patience: VotersPatience::default(),
        core: file.core(),
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

/// Resolves when the node is stopped.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error says that the node is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Watches the limits until the node is stopped.
async fn run_alarm(board: StatusBoard, stop: watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(stop) => {}
        () = bounds::watch(board.limits()) => {}
    }
}

/// Serves HTTP until the node is stopped.
async fn run_serving(serving: ServingLayer, listener: TcpListener, stop: watch::Receiver<bool>) {
    serving.serve(listener, stopped(stop)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    const SQL: &str = "\
         CREATE SOURCE readings (k TEXT, t TIMESTAMP) WITH (topic = 'r', key = 'k', identity = 'k, t');\n\
         CREATE VIEW counts AS SELECT k, COUNT(*) AS n FROM readings GROUP BY k;\n";

    /// Each of the two would find the files of the other locked.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_that_fails_leaves_nothing_in_the_way_of_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let (app, data) = (folder.path().join("app.sql"), folder.path().join("data"));
        std::fs::write(&app, SQL).expect("written");
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("any port");
        let taken_at = taken.local_addr().expect("it has an address");
        let metrics = sanso_serving::metrics::install().expect("the only one");
        let settings = || Settings::read(None).expect("the built-in settings");
        let disks = Disks::open(&settings(), folder.path()).expect("opened");
        let file = |listen| NodeFile::alone(app.clone(), data.clone(), listen, None, settings());
        for _ in 0..2 {
            let refused = Member::start(&file(taken_at), &metrics, &disks, None).await.err();
            let error = format!("{:#}", refused.expect("the port is taken"));
            assert!(error.contains(&taken_at.to_string()), "{error}");
        }
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let member = Member::start(&file(anywhere), &metrics, &disks, None).await.expect("started");
        assert!(member.address.is_some());
        member.stop().await;
    }

    #[test]
    fn a_refused_file_leaves_a_node_with_what_its_life_before_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.sql");
        std::fs::write(&path, "CREATE SOURCE").expect("written");
        assert!(read_or_keep(&path, None).is_err(), "there is nothing to go on with");
        std::fs::write(&path, SQL).expect("written");
        let first = read_or_keep(&path, None).expect("it is good");
        std::fs::write(&path, "CREATE SOURCE").expect("written");
        let kept = read_or_keep(&path, Some(Arc::clone(&first))).expect("it goes on");
        assert_eq!(kept.content, first.content);
        std::fs::write(&path, SQL.replace("counts", "numbers")).expect("written");
        let changed = read_or_keep(&path, Some(first)).expect("it is good");
        assert_eq!(changed.views[0].name, "numbers");
    }
}
