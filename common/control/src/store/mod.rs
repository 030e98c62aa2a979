//! What a voter keeps on its disk, in RocksDB.
//!
//! ```text
//!   log       index (big endian) → entry
//!   default   "about"      → format, cluster, node
//!             "vote"       → for whom it has voted
//!             "committed"  → as far as entries are known to be committed
//!             "purged"     → the last entry that a snapshot replaced
//!             "snapshot"   → the state up to an entry
//! ```
//!
//! All is written through one write-ahead log, in order, and reaches the disk by
//! [`Disk::synced`]: so a later write is never there without an earlier one. A log whose
//! middle is damaged refuses to open; an unfinished last write is cut back, as it
//! was never acknowledged. The state itself is in memory, and made anew at each start from
//! the snapshot and the entries after it.

#[cfg(test)]
mod golden_tests;
mod log;
mod machine;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::IOFlushed;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, IteratorMode, Options, WriteBatch, WriteOptions,
};
use sanso_core::cluster::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::bodies;
use crate::error::StoreError;
use crate::runtime::Raft;

pub(crate) use log::LogStore;
pub(crate) use machine::{Machine, Published, Watches};

/// The version of the layout above.
const FORMAT: u32 = 1;
const LOG: &str = "log";
const FAMILIES: [&str; 2] = ["default", LOG];
const ABOUT: &[u8] = b"about";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const SNAPSHOT: &[u8] = b"snapshot";
/// Writes that may wait for the disk.
const SYNCS_MAX: usize = 1_024;

/// Whose folder it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    format: u32,
    cluster: String,
    node: u16,
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {:?} in format {}", self.node, self.cluster, self.format)
    }
}

/// The open folder of a voter.
pub(crate) struct Disk {
    db: DB,
    folder: PathBuf,
    /// Counts what RocksDB does.
    #[cfg(test)]
    counted: Options,
}

/// Who is told when all that was written before is on the disk.
enum Waiting {
    Entries(IOFlushed<Raft>),
    Write(oneshot::Sender<io::Result<()>>),
}

/// Brings writes to the disk, many with one call when many wait.
#[derive(Clone)]
pub(crate) struct Syncer(mpsc::Sender<Waiting>);

impl Disk {
    /// Opens the folder of a voter, or creates it. What is there is read whole.
    pub(crate) fn open(folder: &Path, cluster: &str, node: NodeId) -> Result<Self, StoreError> {
        let disk = |action, source| StoreError::Disk { action, folder: folder.to_owned(), source };
        let about = About { format: FORMAT, cluster: cluster.to_owned(), node: node.0 };
        let new = !folder.join("CURRENT").exists();
        if new && folder.read_dir().is_ok_and(|mut files| files.next().is_some_and(|file| !is_ours(&file))) {
            let found = "something else: it has files but no store of control".to_owned();
            return Err(StoreError::Foreign { folder: folder.into(), found, expected: about.to_string() });
        }
        let mut options = options();
        options.create_if_missing(new);
        options.create_missing_column_families(new);
        #[cfg(test)]
        options.enable_statistics();
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, self::options()));
        let db = DB::open_cf_descriptors(&options, folder, families).map_err(|e| disk("open", e))?;
        let opened = Self {
            db,
            folder: folder.to_owned(),
            #[cfg(test)]
            counted: options,
        };
        let found: Option<About> = opened.get(ABOUT).map_err(|e| opened.damaged(&e))?;
        match found {
            None if new || opened.is_empty() => {
                let mut batch = WriteBatch::default();
                batch.put(ABOUT, bodies::encode(&about));
                let mut synced = WriteOptions::default();
                synced.set_sync(true);
                opened.db.write_opt(batch, &synced).map_err(|e| disk("write to", e))?;
            }
            None => return Err(opened.damaged(&io::Error::other("it does not say whose it is"))),
            Some(found) if found.format > FORMAT => {
                let what = format!("it is in format {}, and this program knows {FORMAT}", found.format);
                return Err(StoreError::Later { folder: folder.into(), what });
            }
            Some(found) if found != about => {
                let (found, expected) = (found.to_string(), about.to_string());
                return Err(StoreError::Foreign { folder: folder.into(), found, expected });
            }
            Some(_) => log::check(&opened).map_err(|e| opened.damaged(&e))?,
        }
        Ok(opened)
    }

    fn is_empty(&self) -> bool {
        FAMILIES
            .iter()
            .all(|name| self.db.iterator_cf(self.family(name), IteratorMode::Start).next().is_none())
    }

    fn damaged(&self, error: &io::Error) -> StoreError {
        let (folder, what) = (self.folder.clone(), error.to_string());
        if error.kind() == LATER {
            StoreError::Later { folder, what }
        } else {
            StoreError::Damaged { folder, what }
        }
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("all column families are opened")
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let found = self.db.get(key).map_err(io::Error::other)?;
        let name = String::from_utf8_lossy(key);
        let decode = |bytes: Vec<u8>| bodies::decode(&bytes).map_err(|e| unreadable(&name, &e));
        found.map(decode).transpose()
    }

    /// Writes into memory and the write-ahead log: readable at once, and safe from the end
    /// of the process, but not yet from a loss of power.
    fn write(&self, batch: WriteBatch) -> io::Result<()> {
        self.db.write(batch).map_err(io::Error::other)
    }

    fn put<T: Serialize>(&self, key: &[u8], value: &T) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(key, bodies::encode(value));
        self.write(batch)
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(4 << 20);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(2);
    // The vote and the entries are what the others rely on: damage in the middle must not be
    // taken for the end.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

/// Says whether a file can be of a store whose creation was interrupted.
fn is_ours(file: &io::Result<std::fs::DirEntry>) -> bool {
    let names = ["LOG", "LOCK", "IDENTITY", "MANIFEST-", "OPTIONS-", "CURRENT"];
    file.as_ref().is_ok_and(|file| {
        let name = file.file_name();
        names.iter().any(|ours| name.to_string_lossy().starts_with(ours))
            || name.to_string_lossy().ends_with(".dbtmp")
    })
}

/// The kind of error that says: this was written by a later version of the program.
const LATER: io::ErrorKind = io::ErrorKind::Unsupported;

fn unreadable(what: &str, error: &bodies::BodyError) -> io::Error {
    let kind = if matches!(error, bodies::BodyError::Later(_)) { LATER } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, format!("{what} is {error}"))
}

impl Syncer {
    /// Starts to sync what is written to this disk.
    pub(crate) fn start(disk: Arc<Disk>) -> Self {
        let (waiting, mut next) = mpsc::channel(SYNCS_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while next.recv_many(&mut batch, SYNCS_MAX).await > 0 {
                let disk = disk.clone();
                let synced = tokio::task::spawn_blocking(move || disk.db.flush_wal(true)).await;
                let synced =
                    synced.map_err(|e| e.to_string()).and_then(|done| done.map_err(|e| e.to_string()));
                for waiting in batch.drain(..) {
                    let result = synced.clone().map_err(io::Error::other);
                    match waiting {
                        Waiting::Entries(flushed) => flushed.io_completed(result),
                        Waiting::Write(done) => drop(done.send(result)),
                    }
                }
            }
        });
        Self(waiting)
    }

    /// Returns when all that is written so far is on the disk.
    async fn synced(&self) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        self.send(Waiting::Write(done)).await?;
        result.await.map_err(|_| stopped())?
    }

    async fn send(&self, waiting: Waiting) -> io::Result<()> {
        self.0.send(waiting).await.map_err(|_| stopped())
    }
}

fn stopped() -> io::Error {
    io::Error::other("control is stopping")
}
