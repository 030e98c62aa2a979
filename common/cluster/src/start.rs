//! Puts a node's parts together, and keeps them running until the node is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use sanso_control::{Control, ControlConfig, ControlError, Founding, Proposer, Timings};
use sanso_core::cluster::{
    Change, ClusterMap, Incarnation, Instance, NodeConfig, NodeId, Partition, Position, Refused,
};
use sanso_core::{PartitionId, PartitionStore, StoreError};
use sanso_peer::{Handler, LinkFilter, PeerConfig, PeerError, Peers, Tls};
use sanso_state::{Block, Fingerprint, ViewPartitionConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::{Engine, Outside};
use crate::hub::{Hub, KindsOf};
use crate::life;
use crate::seat::{self, Seat};
use crate::store::ClusterStore;
use crate::voters::{self, Voters, VotersError, VotersPatience};

/// Where another node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// Where nodes reach it, as `host:port`.
    pub peer: String,
    /// Whether it votes in control when the cluster is founded; later on, who votes is agreed.
    pub voter: bool,
}

/// A node's part in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster's name; nodes of another are refused.
    pub name: String,
    /// This node.
    pub node: NodeId,
    /// Where it listens to the others.
    pub listen: SocketAddr,
    /// All nodes, this one too.
    pub members: BTreeMap<NodeId, MemberAddress>,
    /// The number of partitions; decided when the cluster is founded.
    pub partitions: u32,
    /// The replicas of each partition; decided when the cluster is founded.
    pub replicas: usize,
    /// Where this node keeps what it must not forget.
    pub folder: PathBuf,
    /// The cluster's certificates; without them only loopback addresses are listened on.
    pub tls: Option<Tls>,
    /// Listens on any address without certificates.
    pub insecure: bool,
    /// The versions of the wire that are spoken; [`VERSIONS`](crate::VERSIONS) unless a test says otherwise.
    pub versions: RangeInclusive<u32>,
    /// The core's times and limits.
    pub core: NodeConfig,
    /// Control's times.
    pub control: Timings,
    /// The times of those who look at the voters or change them.
    pub patience: VotersPatience,
}

/// Why a node can't take part.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The configuration can't be.
    #[error("the cluster's configuration: {0}")]
    Config(String),
    /// Its folder can't be used.
    #[error("use {}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The system has no thread for it.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// The wire does not start.
    #[error("listen to the other nodes")]
    Peer(#[from] PeerError),
    /// Control does not start.
    #[error("take part in control")]
    Control(#[from] ControlError),
}

/// What this node has of one partition.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// The partition.
    pub partition: Partition,
    /// The position of what it shows.
    pub at: Position,
    /// Entries that it has and does not show yet.
    pub behind: u64,
    /// The view partitions in it.
    pub held: Vec<PartitionId>,
    /// Their groups.
    pub groups: u64,
}

/// What a node says and hears.
pub(crate) struct Faces {
    pub(crate) outside: Arc<dyn Outside>,
    pub(crate) handler: Arc<dyn Handler>,
}

/// A node in a cluster. [`ClusterNode::shutdown`] ends it; dropping it does not.
pub struct ClusterNode {
    pub(crate) hub: Arc<Hub>,
    me: Instance,
    pub(crate) all: BTreeSet<NodeId>,
    patience: VotersPatience,
    follows: Mutex<Vec<JoinHandle<()>>>,
}

impl ClusterNode {
    /// Begins a life of this node: listens, and takes part in control if it votes. It becomes a
    /// member, and is given partitions, in the background. `kinds_of` tells the aggregates of the
    /// views that this node has declared. Call within a tokio runtime of several threads.
    pub async fn start(config: ClusterConfig, kinds_of: KindsOf) -> Result<Self, ClusterError> {
        let hub = |hub: &Arc<Hub>| Faces { outside: Arc::clone(hub) as _, handler: Arc::clone(hub) as _ };
        Self::start_behind(config, kinds_of, hub).await
    }

    /// Begins a cluster of one node that will have no other: it listens to nobody, agrees with nobody, and
    /// keeps nothing on disk. All partitions are its own when this returns. Call within a tokio runtime of
    /// several threads.
    pub fn alone(kinds_of: KindsOf) -> Result<Self, ClusterError> {
        let me = Instance { node: NodeId(1), incarnation: Incarnation(1) };
        let hub = Hub::new(me.node, true, kinds_of).map_err(ClusterError::Thread)?;
        let outside = Arc::clone(&hub) as Arc<dyn Outside>;
        let engine = Engine::start(me, with_replicas(NodeConfig::default(), 1), outside);
        let engine = engine.map_err(ClusterError::Thread)?;
        let mut map = ClusterMap::new(1, 1);
        map.apply(&Change::Join(me)).expect("it is the first to join");
        engine.knows(Arc::new(map), &*hub);
        let _ = hub.engine.set(engine);
        let (all, patience) = (BTreeSet::from([me.node]), VotersPatience::default());
        Ok(Self { hub, me, all, patience, follows: Mutex::default() })
    }

    /// Starts, with what `faces` makes of the hub between this node and the others.
    pub(crate) async fn start_behind(
        config: ClusterConfig,
        kinds_of: KindsOf,
        faces: impl FnOnce(&Arc<Hub>) -> Faces,
    ) -> Result<Self, ClusterError> {
        check(&config)?;
        let folder = config.folder.clone();
        let begun = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            life::begin(&folder)
        });
        let begun = begun.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let incarnation =
            begun.map_err(|source| ClusterError::Folder { folder: config.folder.clone(), source })?;
        let me = Instance { node: config.node, incarnation };
        crate::figures::describe();
        let hub = Hub::new(config.node, false, kinds_of).map_err(ClusterError::Thread)?;
        let core = with_replicas(config.core, config.replicas);
        let Faces { outside, handler } = faces(&hub);
        let engine = Engine::start(me, core, outside).map_err(ClusterError::Thread)?;
        let maps = engine.maps();
        let _ = hub.engine.set(engine);
        let peers = Peers::start(peer_config(&config, me), handler)?;
        let _ = hub.peers.set(peers);
        let follows = take_part(&config, &hub, maps).await?;
        let (all, patience) = (config.members.into_keys().collect(), config.patience);
        Ok(Self { hub, me, all, patience, follows: Mutex::new(follows) })
    }

    /// Returns this life's name.
    pub fn me(&self) -> Instance {
        self.me
    }

    /// Returns the cluster's view partitions.
    pub fn store(&self) -> PartitionStore {
        PartitionStore::of_cluster(Arc::new(ClusterStore(Arc::clone(&self.hub))))
    }

    /// Adds a view partition that stands on a block, unless it is there.
    pub async fn create(
        &self,
        id: PartitionId,
        config: ViewPartitionConfig,
        base: Arc<Block>,
    ) -> Result<(), StoreError> {
        ClusterStore(Arc::clone(&self.hub)).create(id, config, base).await
    }

    /// Removes all partitions of a view version, everywhere.
    pub async fn remove(&self, view: Fingerprint) -> Result<(), StoreError> {
        ClusterStore(Arc::clone(&self.hub)).remove(view).await
    }

    /// Follows the newest map that this node has; of version 0 before it knows any.
    pub fn maps(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.engine().maps()
    }

    /// Becomes true when the cluster goes on without this life: begin another.
    pub fn superseded(&self) -> watch::Receiver<bool> {
        self.engine().superseded()
    }

    /// Says whether this node hears from most members, so that it would know of a newer map.
    pub fn is_in_touch(&self) -> bool {
        self.engine().with(|node, now_us| node.is_in_touch(now_us))
    }

    /// Returns who leads control, as far as this node knows; only those who take part know.
    pub fn control_leader(&self) -> Option<NodeId> {
        self.hub.part().leader
    }

    /// Asks all nodes who votes in control; takes no longer than [`VotersPatience::answer_ms_max`].
    pub async fn voters(&self) -> Voters {
        voters::look(&self.hub, &self.all, self.patience).await
    }

    /// Makes these the voters of control, unless that would do harm; less is harm with `force`. Returns
    /// what is to be warned of. New voters catch up first, for ten seconds at most; interrupted, it is
    /// done by being asked for again.
    pub async fn change_voters(
        &self,
        voters: &BTreeSet<NodeId>,
        force: bool,
    ) -> Result<Option<String>, VotersError> {
        voters::change(&self.hub, &self.all, voters, force, self.patience).await
    }

    /// Proposes a change of the map; gives the version that has it.
    pub async fn propose(&self, change: Change) -> Result<Result<u64, Refused>, ControlError> {
        self.hub.agree(change).await
    }

    /// Returns what this node has of each partition that it holds.
    pub fn replicas(&self) -> Vec<Replicas> {
        let held = self.engine().held();
        let shown = self.engine().with(|node, _| {
            let all = node.replicas().map(|(partition, replica)| {
                let at = replica.position(replica.commit()).unwrap_or_default();
                (partition, (at, replica.end() - replica.commit()))
            });
            all.collect::<BTreeMap<_, _>>()
        });
        let all = held.into_iter().filter_map(|(partition, readable)| {
            let (at, behind) = *shown.get(&partition)?;
            Some(Replicas { partition, at, behind, held: readable.list(), groups: readable.groups() })
        });
        all.collect()
    }

    /// Returns the filter of this node's links, for drills.
    ///
    /// # Panics
    /// When it is alone: it has no links.
    pub fn filter(&self) -> &LinkFilter {
        self.hub.peers.get().expect("it is not alone").filter()
    }

    /// Ends this life. The others notice by the broken connections. Who answered questions is let go of.
    pub async fn shutdown(&self) {
        let follows: Vec<_> = self.follows.lock().drain(..).collect();
        for follow in follows {
            follow.abort();
            // One that waits for its seat holds control itself.
            let _ = follow.await;
        }
        self.engine().stop();
        if let Some(peers) = self.hub.peers.get() {
            peers.close().await;
        }
        // The engine's threads may hold the hub a little longer, but not what answers stand on.
        self.hub.answering.write().clear();
        let mut control = self.hub.set_control(None);
        // Who is under way with it, a proposal say, ends within its deadline.
        while let Some(held) = control.take() {
            match Arc::try_unwrap(held) {
                Ok(control) => control.shutdown().await,
                Err(held) => {
                    control = Some(held);
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.hub.engine().expect("it was set at the start")
    }
}

/// The core's configuration where there are so many replicas.
fn with_replicas(core: NodeConfig, replicas: usize) -> NodeConfig {
    let copies_min = core.replica.copies_min.min(replicas);
    NodeConfig { replica: sanso_core::cluster::ReplicaConfig { copies_min, ..core.replica }, ..core }
}

fn check(config: &ClusterConfig) -> Result<(), ClusterError> {
    let wrong = |what: String| Err(ClusterError::Config(what));
    if !config.members.contains_key(&config.node) {
        return wrong(format!("{} is not among the nodes", config.node));
    }
    let voters = config.members.values().filter(|member| member.voter).count();
    if voters == 0 || voters.is_multiple_of(2) {
        return wrong(format!(
            "{voters} nodes vote: make it 1, 3 or 5, an even number stands no more losses"
        ));
    }
    if config.partitions == 0 || config.replicas == 0 {
        return wrong("partitions and replicas are at least 1".to_owned());
    }
    Ok(())
}

fn peer_config(config: &ClusterConfig, me: Instance) -> PeerConfig {
    let mut peer = PeerConfig::new(config.name.clone(), me, config.listen);
    let others = config.members.iter().filter(|(node, _)| **node != config.node);
    peer.addresses = others.map(|(node, member)| (*node, member.peer.clone())).collect();
    peer.tls = config.tls.clone();
    peer.insecure = config.insecure;
    peer.versions = config.versions.clone();
    peer
}

/// Opens control on every node: who votes is agreed, and may be any of them.
async fn take_part(
    config: &ClusterConfig,
    hub: &Arc<Hub>,
    maps: watch::Receiver<Arc<ClusterMap>>,
) -> Result<Vec<JoinHandle<()>>, ClusterError> {
    let transport: Arc<dyn sanso_control::Transport> = Arc::clone(hub) as Arc<_>;
    let mut control_config =
        ControlConfig::new(config.node, config.name.clone(), config.folder.join("control"));
    control_config.timings = config.control;
    let control = Control::open(control_config, Arc::clone(&transport)).await?;
    let is_new = control.is_new().await?;
    hub.is_new.store(is_new, Ordering::Relaxed);
    if let (Some(map), Some(engine)) = (control.maps().borrow().clone(), hub.engine()) {
        engine.knows(map, &**hub);
    }
    let (founders, others): (Vec<_>, Vec<_>) = config.members.iter().partition(|(_, member)| member.voter);
    let first_asked = founders.iter().chain(&others).map(|(node, _)| **node);
    hub.set_proposer(Proposer::new(
        transport,
        first_asked.filter(|node| *node != config.node),
        config.control,
    ));
    let newcomer = Newcomer {
        hub: Arc::clone(hub),
        founders: founders.iter().map(|(node, _)| **node).collect(),
        all: config.members.keys().copied().collect(),
        founding: Founding { partitions: config.partitions, replicas: config.replicas },
    };
    let follow = follow_agreed(Arc::clone(hub), maps, newcomer.founding);
    Ok(vec![tokio::spawn(newcomer.take_seat(control, is_new)), tokio::spawn(follow)])
}

/// A node that has opened control.
struct Newcomer {
    hub: Arc<Hub>,
    founders: BTreeSet<NodeId>,
    pub(crate) all: BTreeSet<NodeId>,
    founding: Founding,
}

impl Newcomer {
    /// Takes part in control for good, once it is certain that this node may.
    async fn take_seat(self, control: Control, is_new: bool) {
        let Self { hub, founders, all, founding } = self;
        let founds = match is_new {
            true => seat::find(&hub, &founders, &all).await == Seat::Founds,
            // It may have been interrupted.
            false => founders.contains(&hub.me),
        };
        let control = Arc::new(control);
        hub.set_control(Some(Arc::clone(&control)));
        let follows = async {
            tokio::join!(
                follow_map(Arc::clone(&hub), control.maps()),
                follow_leads(Arc::clone(&hub), control.leads()),
                voters::announce(Arc::clone(&hub), Arc::clone(&control)),
                async {
                    if founds {
                        found(&hub, &control, &founders, founding).await;
                    }
                },
            )
        };
        follows.await;
    }
}

/// Founds the cluster with the other voters, whenever most of them are there, unless it is known to be.
async fn found(hub: &Hub, control: &Control, founders: &BTreeSet<NodeId>, founding: Founding) {
    let Some(engine) = hub.engine() else { return };
    let mut maps = engine.maps();
    loop {
        let founded = tokio::select! {
            _ = maps.wait_for(|map| map.version > 0) => return,
            founded = control.bootstrap(founders, founding) => founded,
        };
        match founded {
            // Otherwise than this node would: `follow_agreed` tells.
            Ok(_) | Err(ControlError::FoundedOtherwise { .. }) => return,
            Err(error) => {
                tracing::info!(%error, "the cluster is not founded yet");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

/// Asks those who vote now, and says so if the cluster was founded otherwise than this node is configured.
async fn follow_agreed(hub: Arc<Hub>, mut maps: watch::Receiver<Arc<ClusterMap>>, configured: Founding) {
    let mut told = false;
    loop {
        let map = maps.borrow_and_update().clone();
        hub.drop_unwanted_states();
        if !map.voters.is_empty()
            && let Some(proposer) = hub.proposer()
        {
            proposer.set_voters(map.voters.iter().copied().filter(|voter| *voter != hub.me));
        }
        let founded = Founding { partitions: map.partitions.len() as u32, replicas: map.replicas };
        if map.version > 0 && founded != configured && !told {
            let error = ControlError::FoundedOtherwise { founded, configured };
            tracing::error!(%error, "partitions and replicas stay as the cluster was founded");
            told = true;
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_map(hub: Arc<Hub>, mut committed: watch::Receiver<Option<Arc<ClusterMap>>>) {
    loop {
        let map = committed.borrow_and_update().clone();
        if let (Some(map), Some(engine)) = (map, hub.engine()) {
            engine.knows(Arc::clone(&map), &*hub);
        }
        if committed.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the engine whether this node leads; a leader tells all members of new maps.
async fn follow_leads(hub: Arc<Hub>, mut leads: watch::Receiver<bool>) {
    let Some(mut maps) = hub.engine().map(|engine| engine.maps()) else { return };
    loop {
        let leading = *leads.borrow_and_update();
        if let Some(engine) = hub.engine() {
            engine.leads(leading, &*hub);
        }
        let map = maps.borrow_and_update().clone();
        if leading {
            hub.tell_all(&map);
        }
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { return },
            changed = maps.changed() => if changed.is_err() { return },
        }
    }
}
