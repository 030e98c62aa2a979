//! The agreed state of a voter: in memory, with a snapshot on disk.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use sanso_core::cluster::ClusterMap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Disk, LATER, SNAPSHOT, Syncer, unreadable};
use crate::agreed::{Agreed, Answer};
use crate::bodies;
use crate::runtime::{LogId, Raft, SnapshotMeta, StoredMembership};
use crate::table::Table;

/// Shows what is applied.
pub(crate) struct Published {
    map: watch::Sender<Option<Arc<ClusterMap>>>,
    table: watch::Sender<Arc<Table>>,
    level: watch::Sender<u32>,
}

/// Where what is applied is seen.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) map: watch::Receiver<Option<Arc<ClusterMap>>>,
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) level: watch::Receiver<u32>,
}

/// Applies committed entries.
pub(crate) struct Machine {
    now: Applied,
    published: Published,
    disk: Arc<Disk>,
    syncer: Syncer,
}

/// The state after an entry.
#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
    agreed: Agreed,
}

/// Keeps a snapshot of the state as it was.
pub(crate) struct Builder {
    state: Applied,
    disk: Arc<Disk>,
    syncer: Syncer,
}

/// A snapshot as it lies on disk. Its body is what voters send each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) meta: SnapshotMeta,
    #[serde(with = "serde_bytes")]
    pub(super) body: Vec<u8>,
}

type Sent = openraft::type_config::alias::SnapshotOf<Raft, Vec<u8>>;

impl Published {
    /// Begins to show a state in which nothing is agreed yet.
    pub(crate) fn new() -> (Self, Watches) {
        let (map, see_map) = watch::channel(None);
        let (table, see_table) = watch::channel(Arc::default());
        let (level, see_level) = watch::channel(Agreed::default().level);
        (Self { map, table, level }, Watches { map: see_map, table: see_table, level: see_level })
    }

    fn show(&self, agreed: &Agreed) {
        self.map.send_if_modified(|held| {
            let changed = held.as_ref().map(Arc::as_ptr) != agreed.map.as_ref().map(Arc::as_ptr);
            held.clone_from(&agreed.map);
            changed
        });
        self.table.send_if_modified(|held| {
            let changed = !Arc::ptr_eq(held, &agreed.table);
            held.clone_from(&agreed.table);
            changed
        });
        self.level.send_if_modified(|held| std::mem::replace(held, agreed.level) != agreed.level);
    }
}

impl Snapshot {
    pub(super) fn open(&self) -> io::Result<Agreed> {
        let agreed: Agreed =
            bodies::decode(&self.body).map_err(|error| unreadable("the snapshot", &error))?;
        agreed.check().map_err(|later| io::Error::new(LATER, later))?;
        Ok(agreed)
    }
}

impl Machine {
    pub(crate) fn new(disk: Arc<Disk>, syncer: Syncer, published: Published) -> Self {
        Self { now: Applied::default(), published, disk, syncer }
    }
}

impl Builder {
    async fn keep(&self) -> io::Result<Sent> {
        let meta =
            SnapshotMeta { last_log_id: self.state.last, last_membership: self.state.membership.clone() };
        let snapshot = Snapshot { meta, body: bodies::encode(&self.state.agreed) };
        self.disk.put(SNAPSHOT, &snapshot)?;
        self.syncer.synced().await?;
        Ok(Sent { meta: snapshot.meta, snapshot: snapshot.body })
    }
}

impl RaftSnapshotBuilder<Raft> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Sent, io::Error> {
        self.keep().await
    }
}

impl RaftStateMachine<Raft> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.now.last, self.now.membership.clone()))
    }

    /// Applies entries one after the other; each is shown before its proposer is answered.
    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Raft>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.now.last = Some(entry.log_id);
            let answer = match entry.payload {
                EntryPayload::Blank => Answer::Nothing,
                EntryPayload::Normal(sealed) => {
                    self.now.agreed.apply(&sealed).map_err(|later| io::Error::new(LATER, later))?
                }
                EntryPayload::Membership(membership) => {
                    self.now.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answer::Nothing
                }
            };
            self.published.show(&self.now.agreed);
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { state: self.now.clone(), disk: self.disk.clone(), syncer: self.syncer.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, body: Vec<u8>) -> Result<(), io::Error> {
        let snapshot = Snapshot { meta: meta.clone(), body };
        let agreed = snapshot.open()?;
        self.disk.put(SNAPSHOT, &snapshot)?;
        self.syncer.synced().await?;
        self.now = Applied { last: meta.last_log_id, membership: meta.last_membership.clone(), agreed };
        self.published.show(&self.now.agreed);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Sent>, io::Error> {
        let snapshot: Option<Snapshot> = self.disk.get(SNAPSHOT)?;
        Ok(snapshot.map(|snapshot| Sent { meta: snapshot.meta, snapshot: snapshot.body }))
    }
}
