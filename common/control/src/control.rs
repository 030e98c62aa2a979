//! A voter: proposes, shows what is agreed, and takes part in the votes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::raft::TransferLeaderRequest;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ChangeMembers, EmptyNode, Instant as _, RaftMetrics, ServerState};
use sanso_core::cluster::{Change, ClusterMap, NodeId, Refused};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::agreed::{Answer, Command, Founding, Put, Sealed};
use crate::bodies;
use crate::config::{ControlConfig, Timings};
use crate::error::{ControlError, HandleError};
use crate::network::{Links, SentSnapshot, node};
use crate::runtime::{Raft, RaftThread};
use crate::store::{Disk, LogStore, Machine, Published, Syncer, Watches};
use crate::table::{PutRefused, Table};
use crate::transport::{self, Proposal, Proposed, RETRY, Transport};

type Group = openraft::Raft<Raft, Machine>;
type WriteError = RaftError<Raft, ClientWriteError<Raft>>;

/// A voter of control, or a node that becomes one.
///
/// Dropped, it stops at once, as if the process had ended; [`Control::shutdown`] takes leave.
pub struct Control {
    node: NodeId,
    timings: Timings,
    transport: Arc<dyn Transport>,
    group: Group,
    watches: Watches,
    leads: watch::Receiver<bool>,
    status: watch::Receiver<Status>,
    // Last: what the fields above hold of it is gone when it ends.
    thread: RaftThread,
}

/// How a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who leads, as far as this voter knows.
    pub leader: Option<NodeId>,
    /// Grows with each election.
    pub term: u64,
    /// Those who vote.
    pub voters: BTreeSet<NodeId>,
    /// Those who learn what is agreed, and do not vote yet.
    pub learners: BTreeSet<NodeId>,
    /// Whether no change of the voters is under way.
    pub settled: bool,
    /// As the leader: those who have some of its log.
    pub reached: BTreeSet<NodeId>,
    /// Number of the last entry of its log.
    pub last: Option<u64>,
    /// Number of the last entry that is applied.
    pub applied: Option<u64>,
    /// Number of the last entry that its snapshot covers.
    pub snapshot: Option<u64>,
    /// Number of the last entry that only the snapshot still has. A leader purges nothing
    /// while it waits for a voter that does not answer.
    pub purged: Option<u64>,
}

impl Status {
    fn of(metrics: &RaftMetrics<Raft>) -> Self {
        let members = metrics.membership_config.membership();
        let followers = metrics.replication.iter().flatten();
        let reached = followers.filter(|(_, matched)| matched.is_some()).map(|(id, _)| node(*id));
        Self {
            leader: metrics.current_leader.map(node),
            term: metrics.current_term,
            voters: members.voter_ids().map(node).collect(),
            learners: members.learner_ids().map(node).collect(),
            settled: members.get_joint_config().len() == 1,
            reached: reached.collect(),
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("node", &self.node)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the folder and starts to take part. A voter that is new waits to be told of the
    /// others, by [`Control::bootstrap`] or by being added.
    ///
    /// Messages of the other voters must reach [`Control::handle`] from now on.
    pub async fn open(config: ControlConfig, transport: Arc<dyn Transport>) -> Result<Self, ControlError> {
        let raft = Arc::new(config.raft()?);
        let ControlConfig { node, cluster, folder, timings, .. } = config;
        let thread = RaftThread::start().map_err(|error| ControlError::Stopped(error.to_string()))?;
        let opening = tokio::task::spawn_blocking(move || Disk::open(&folder, &cluster, node));
        let disk = opening.await.map_err(|error| ControlError::Stopped(error.to_string()))??;
        let (published, watches) = Published::new();
        let muted = Arc::new(AtomicBool::new(false));
        let links = Links { me: node, transport: transport.clone(), timings, muted: muted.clone() };
        let (lead, leads) = watch::channel(false);
        let (tell, status) = watch::channel(Status::default());
        let starting = thread.handle().spawn(async move {
            let disk = Arc::new(disk);
            let syncer = Syncer::start(disk.clone());
            let log = LogStore::new(disk.clone(), syncer.clone());
            let machine = Machine::new(disk, syncer, published);
            let group = Group::new(u64::from(node.0), raft, links, log, machine).await?;
            tell.send_replace(Status::of(&group.metrics().borrow_watched()));
            let lead = Lead { lease: timings.lease(), lead, muted };
            tokio::spawn(observe(group.metrics(), lead, tell));
            Ok::<_, Fatal<Raft>>(group)
        });
        let group = starting.await.map_err(|error| ControlError::Stopped(error.to_string()))?;
        let group = group.map_err(|fatal| stopped(&fatal))?;
        Ok(Self { node, timings, transport, group, watches, leads, status, thread })
    }

    /// Says whether this node knows nothing of any cluster: it has no log and has not voted.
    pub async fn is_new(&self) -> Result<bool, ControlError> {
        self.group.is_initialized().await.map(|known| !known).map_err(|fatal| stopped(&fatal))
    }

    /// Founds the cluster: its first voters, and its map. Returns the map once this voter has it.
    ///
    /// Every first voter may call it, at each start, with the same voters and founding; a cluster that
    /// is founded is left as it is. Waits for a majority of the voters, for ever; may be dropped and
    /// called again. A voter that is added later must not call it.
    pub async fn bootstrap(
        &self,
        voters: &BTreeSet<NodeId>,
        founding: Founding,
    ) -> Result<Arc<ClusterMap>, ControlError> {
        if !voters.contains(&self.node) {
            return Err(ControlError::Voters(format!(
                "{} founds no cluster that it is no voter of",
                self.node
            )));
        }
        let members: BTreeMap<u64, EmptyNode> =
            voters.iter().map(|voter| (u64::from(voter.0), EmptyNode::new())).collect();
        match self.group.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(RaftError::APIError(error)) => return Err(ControlError::Voters(error.to_string())),
            Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
        }
        let mut maps = self.maps();
        loop {
            match self.submit(Command::Found(founding).seal()).await {
                Ok(Answer::Done(_)) => break,
                Ok(Answer::Founded(founded)) => {
                    return Err(ControlError::FoundedOtherwise { founded, configured: founding });
                }
                Ok(Answer::Change(_)) => {
                    return Err(ControlError::Config("a cluster has partitions and replicas".to_owned()));
                }
                // It is the same when it is done twice.
                Err(ControlError::NoLeader | ControlError::Unknown) => {}
                Ok(other) => {
                    return Err(ControlError::Stopped(format!("founding was answered by {other:?}")));
                }
                Err(error) => return Err(error),
            }
        }
        let map = maps.wait_for(Option::is_some).await.map_err(|_| gone())?;
        map.clone().ok_or_else(gone)
    }

    /// Proposes a change of the map and returns the version that has it, or why the map refuses it.
    ///
    /// Passed on to the leader when this voter does not lead. Once it is answered here,
    /// the leader shows it; another voter shows it soon after.
    pub async fn propose(&self, change: Change) -> Result<Result<u64, Refused>, ControlError> {
        transport::changed(self.submit(Command::Change(change).seal()).await?)
    }

    /// Puts a value into the table, or removes it (none), if its key is at version `expect`
    /// (0: not there). Returns the version that it has now.
    pub async fn put(
        &self,
        key: &str,
        expect: u64,
        value: Option<Vec<u8>>,
    ) -> Result<Result<u64, PutRefused>, ControlError> {
        transport::put(self.submit(Command::Put(Put { key: key.to_owned(), expect, value }).seal()).await?)
    }

    /// Returns the committed maps as this voter applies them; none before the cluster is founded.
    /// A map may be passed over for a newer one. After a start, older ones may come again.
    pub fn maps(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        self.watches.map.clone()
    }

    /// Returns the committed table as this voter applies it, like [`Control::maps`].
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.watches.table.clone()
    }

    /// Says whether this voter leads and has heard from a majority within the last election time.
    /// Two voters may believe it at once for a moment, but only one can commit.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Returns those who vote, as far as this voter knows.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        Status::of(&self.group.metrics().borrow_watched()).voters
    }

    /// Says how this voter is. The watch ends when control has stopped, as after an error of its disk.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Makes these the voters. New ones must be open; they catch up before they vote. Interrupted, it is
    /// done by being called again.
    ///
    /// Passed on to the leader when this voter does not lead; a leader that is removed hands over.
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), ControlError> {
        let end = Instant::now() + self.timings.catch_up() + self.timings.proposal();
        loop {
            match self.leader() {
                Some(leader) if leader == self.node => return self.change_voters_here(voters).await,
                Some(leader) => return transport::change_voters(&*self.transport, leader, voters, end).await,
                None if Instant::now() < end => tokio::time::sleep(RETRY).await,
                None => return Err(ControlError::NoLeader),
            }
        }
    }

    /// Lets there be a new leader at once, instead of that of a node which is known to be gone: voters
    /// otherwise vote for nobody before the time is over in which they would hear of theirs. To be
    /// called at all voters; they come forward in turn, and nothing happens where another leads.
    ///
    /// Nothing but an election comes of it when the leader is not gone after all.
    pub async fn succeed(&self, gone: NodeId) -> Result<(), ControlError> {
        let mut others = self.voters();
        others.remove(&gone);
        let Some(turn) = others.iter().position(|voter| *voter == self.node) else { return Ok(()) };
        tokio::time::sleep(self.timings.turn() * turn as u32).await;
        let metrics = self.group.metrics().borrow_watched().clone();
        if metrics.current_leader.map(node) != Some(gone) {
            return Ok(());
        }
        // As if the leader had handed over, which is what makes the others forget its time.
        let handed_over = TransferLeaderRequest::new(metrics.vote, u64::from(self.node.0), None);
        match self.group.handle_transfer_leader(handed_over).await {
            // Not taken means that there has been another election.
            Ok(_) => Ok(()),
            Err(fatal) => Err(stopped(&fatal)),
        }
    }

    /// Stops taking part. When it returns, the folder is free.
    pub async fn shutdown(self) {
        // A group that has stopped already is what is asked for.
        let _ = self.group.shutdown().await;
        let thread = self.thread;
        // It waits for the thread.
        let _ = tokio::task::spawn_blocking(move || drop(thread)).await;
    }

    /// Handles a message of another node, one of [`KINDS`](crate::KINDS), and returns the answer.
    pub async fn handle(&self, kind: &str, body: &[u8]) -> Result<Vec<u8>, HandleError> {
        match kind {
            transport::APPEND => answer(self.group.append_entries(read(kind, body)?).await),
            transport::VOTE => answer(self.group.vote(read(kind, body)?).await),
            transport::PRE_VOTE => answer(self.group.pre_vote(read(kind, body)?).await),
            transport::SNAPSHOT => {
                let SentSnapshot { vote, meta, body } = read(kind, body)?;
                let snapshot = openraft::Snapshot { meta, snapshot: body };
                answer(self.group.install_full_snapshot(vote, snapshot).await)
            }
            transport::TRANSFER => answer(self.group.handle_transfer_leader(read(kind, body)?).await),
            transport::PROPOSE => {
                let Proposal { command, forward } = read(kind, body)?;
                let answer = match forward {
                    true if !self.voters().contains(&self.node) => Err(ControlError::NoLeader),
                    true => self.submit(command).await,
                    false => self.write(command).await,
                };
                Ok(bodies::encode(&match answer {
                    Ok(answer) => Proposed::Answer(answer),
                    Err(ControlError::Unknown) => Proposed::Unknown,
                    Err(ControlError::Stopped(why)) => return Err(HandleError::Stopped(why)),
                    Err(_) => Proposed::NoLeader,
                }))
            }
            transport::VOTERS => {
                let voters: BTreeSet<NodeId> = read(kind, body)?;
                let changed = self.change_voters_here(&voters).await;
                Ok(bodies::encode(&changed.map_err(|error| error.to_string())))
            }
            _ => Err(HandleError::UnknownKind(kind.to_owned())),
        }
    }

    fn leader(&self) -> Option<NodeId> {
        self.group.metrics().borrow_watched().current_leader.map(node)
    }

    /// Proposes here or at the leader, until somebody has taken it.
    async fn submit(&self, command: Sealed) -> Result<Answer, ControlError> {
        let end = Instant::now() + self.timings.proposal();
        let mut metrics = self.group.metrics();
        loop {
            let taken = match self.leader() {
                Some(leader) if leader == self.node => self.write(command.clone()).await,
                Some(leader) => self.send(leader, command.clone(), end).await,
                None => Err(ControlError::NoLeader),
            };
            match taken {
                Err(ControlError::NoLeader) if Instant::now() < end => {
                    // Whatever changes may be a leader, and one that is lost changes nothing here.
                    let _ = timeout(RETRY, metrics.changed()).await;
                }
                taken => return taken,
            }
        }
    }

    async fn send(&self, leader: NodeId, command: Sealed, end: Instant) -> Result<Answer, ControlError> {
        let body = bodies::encode(&Proposal { command, forward: false });
        let left = end.saturating_duration_since(Instant::now()).max(RETRY);
        let proposed = tokio::select! {
            proposed = transport::call(&*self.transport, leader, body, left) => proposed?,
            // One that is cut off would be waited for to the end.
            () = self.other_leader(leader) => Proposed::Unknown,
        };
        match proposed {
            Proposed::Answer(answer) => Ok(answer),
            Proposed::NoLeader => Err(ControlError::NoLeader),
            Proposed::Unknown => Err(ControlError::Unknown),
        }
    }

    /// Returns when somebody else leads.
    async fn other_leader(&self, leader: NodeId) {
        let mut metrics = self.group.metrics();
        while metrics.borrow_and_update().current_leader.is_none_or(|now| node(now) == leader) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Proposes as the leader.
    async fn write(&self, command: Sealed) -> Result<Answer, ControlError> {
        // What another voter may not know is not even proposed.
        if !command.is_known(*self.watches.level.borrow()) {
            return Ok(Answer::UnknownKind);
        }
        let written = timeout(self.timings.proposal(), self.group.client_write(command)).await;
        match written.map_err(|_| ControlError::Unknown)? {
            Ok(done) => Ok(done.data),
            Err(error) => Err(write_error(&error)),
        }
    }

    /// Changes the voters as the leader: learners first, then all at once.
    async fn change_voters_here(&self, voters: &BTreeSet<NodeId>) -> Result<(), ControlError> {
        let Status { voters: voting, learners, .. } = Status::of(&self.group.metrics().borrow_watched());
        for new in voters.difference(&voting) {
            let joined = timeout(self.timings.catch_up(), self.teach(*new)).await;
            joined.map_err(|_| {
                let late = format!("{new} has not caught up in time; it learns on, and can be added again");
                ControlError::Voters(late)
            })??;
        }
        self.change_members(ChangeMembers::ReplaceAllVoters(raft_ids(voters))).await?;
        // Those that once began to join and are not to vote.
        let left = learners.difference(voters).copied().collect();
        if !learners.is_subset(voters) {
            self.change_members(ChangeMembers::RemoveNodes(raft_ids(&left))).await?;
        }
        Ok(())
    }

    /// Makes a node a learner, and waits until it has what is committed now. (Raft's own
    /// waiting takes an empty log for nearly as good as a short one.)
    async fn teach(&self, node: NodeId) -> Result<(), ControlError> {
        let id = u64::from(node.0);
        let added = self.group.add_learner(id, EmptyNode::new(), false).await;
        let upto = added.map_err(|error| write_error(&error))?.log_id.index;
        let mut metrics = self.group.metrics();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                // Whoever takes over does not go on with this.
                let Some(replication) = &metrics.replication else { return Err(ControlError::Unknown) };
                let has = replication.get(&id).and_then(|has| has.as_ref());
                if has.is_some_and(|has| has.index >= upto) {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|_| gone())?;
        }
    }

    async fn change_members(&self, change: ChangeMembers<u64, EmptyNode>) -> Result<(), ControlError> {
        let changed = timeout(self.timings.catch_up(), self.group.change_membership(change, false)).await;
        changed.map_err(|_| ControlError::Unknown)?.map_err(|error| write_error(&error))?;
        Ok(())
    }
}

/// Who is told whether this voter leads.
struct Lead {
    /// How long a leader goes on without hearing from a majority.
    lease: Duration,
    lead: watch::Sender<bool>,
    /// Set while this leader hears no majority; see [`Links`].
    muted: Arc<AtomicBool>,
}

/// Tells how this voter is, until it stops.
async fn observe(
    mut metrics: WatchReceiverOf<Raft, RaftMetrics<Raft>>,
    lead: Lead,
    status: watch::Sender<Status>,
) {
    let mut since: Option<Instant> = None;
    loop {
        let (now, leading, alone, recent) = {
            let metrics = metrics.borrow_and_update();
            let now = Status::of(&metrics);
            let alone = now.voters.len() == 1;
            let recent = metrics.last_quorum_acked.is_some_and(|heard| heard.elapsed() < lead.lease);
            (now, metrics.state == ServerState::Leader, alone, recent)
        };
        since = if leading { since.or(Some(Instant::now())) } else { None };
        let new = since.is_some_and(|since| since.elapsed() < lead.lease);
        lead.muted.store(leading && !alone && !recent && !new, Ordering::Relaxed);
        let leads = leading && (alone || recent);
        lead.lead.send_if_modified(|held| std::mem::replace(held, leads) != leads);
        status.send_if_modified(|held| {
            let changed = *held != now;
            *held = now;
            changed
        });
        // Time alone ends a lease.
        if let Ok(Err(_)) = timeout(lead.lease / 4, metrics.changed()).await {
            break;
        }
    }
    lead.lead.send_replace(false);
}

fn raft_ids(nodes: &BTreeSet<NodeId>) -> BTreeSet<u64> {
    nodes.iter().map(|node| u64::from(node.0)).collect()
}

fn read<T: DeserializeOwned>(kind: &str, body: &[u8]) -> Result<T, HandleError> {
    bodies::decode(body).map_err(|error| HandleError::body(kind, &error))
}

fn answer<T: Serialize, E: std::fmt::Display>(answer: Result<T, E>) -> Result<Vec<u8>, HandleError> {
    answer.map(|answer| bodies::encode(&answer)).map_err(|error| HandleError::Stopped(error.to_string()))
}

fn write_error(error: &WriteError) -> ControlError {
    match error {
        RaftError::Fatal(fatal) => stopped(fatal),
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ControlError::NoLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ControlError::Unknown,
        RaftError::APIError(error) => ControlError::Voters(error.to_string()),
    }
}

fn stopped(fatal: &Fatal<Raft>) -> ControlError {
    ControlError::Stopped(fatal.to_string())
}

fn gone() -> ControlError {
    ControlError::Stopped("its state is no longer shown".to_owned())
}
