//! The log and the vote of a voter.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, entry::RaftEntry};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::{COMMITTED, Disk, LOG, PURGED, SNAPSHOT, Syncer, VOTE, Waiting, unreadable};
use crate::bodies;
use crate::runtime::{Entry, LogId, Raft, Vote};
use crate::store::machine::Snapshot;

/// Bytes of entries that are checked at a time.
const CHECK_BYTES: usize = 1 << 20;

/// Writes the log; there is one for a folder.
pub(crate) struct LogStore {
    pub(super) disk: Arc<Disk>,
    syncer: Syncer,
}

/// Reads the log.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Disk>);

/// Reads all that is stored, and says what contradicts itself.
pub(super) fn check(disk: &Disk) -> io::Result<()> {
    let purged: Option<LogId> = disk.get(PURGED)?;
    let snapshot: Option<Snapshot> = disk.get(SNAPSHOT)?;
    disk.get::<Vote>(VOTE)?;
    disk.get::<LogId>(COMMITTED)?;
    if let Some(snapshot) = &snapshot {
        snapshot.open()?;
    }
    let covered = snapshot.and_then(|snapshot| snapshot.meta.last_log_id).map(|id| id.index);
    let purged = purged.map(|id| id.index);
    if purged > covered {
        let what = format!("entries up to {purged:?} are gone, but the snapshot goes to {covered:?}");
        return Err(io::Error::other(what));
    }
    let mut next = purged.map_or(0, |index| index + 1);
    loop {
        let entries = read(disk, next.., CHECK_BYTES)?;
        let Some((first, last)) = entries.first().zip(entries.last()) else { return Ok(()) };
        if first.index() != next {
            return Err(io::Error::other(format!("the log has a hole before entry {}", first.index())));
        }
        next = last.index() + 1;
    }
}

/// Reads the entries of a range in order, at least one, then until they are `bytes_max` together.
/// A hole is an error.
fn read(disk: &Disk, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    let start = from.to_be_bytes();
    for item in disk.db.iterator_cf(disk.family(LOG), IteratorMode::From(&start, Direction::Forward)) {
        let (key, value) = item.map_err(io::Error::other)?;
        let index = key.as_ref().try_into().map(u64::from_be_bytes).map_err(io::Error::other)?;
        if !range.contains(&index) {
            break;
        }
        bytes += value.len();
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        let entry: Entry = bodies::decode(&value).map_err(|e| unreadable(&format!("entry {index}"), &e))?;
        let follows = entries.last().is_none_or(|before| before.index() + 1 == index);
        if entry.index() != index || !follows {
            return Err(io::Error::other(format!("the log has a hole before entry {index}")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl LogStore {
    pub(crate) fn new(disk: Arc<Disk>, syncer: Syncer) -> Self {
        Self { disk, syncer }
    }
}

impl RaftLogReader<Raft> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        read(&self.0, range, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.0.get(VOTE)
    }
}

impl RaftLogStorage<Raft> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Raft>, io::Error> {
        let last_purged_log_id: Option<LogId> = self.disk.get(PURGED)?;
        let last = self.disk.db.iterator_cf(self.disk.family(LOG), IteratorMode::End).next();
        let last = last.transpose().map_err(io::Error::other)?;
        let last: Option<Entry> =
            last.map(|(_, value)| bodies::decode(&value)).transpose().map_err(io::Error::other)?;
        let last_log_id = last.map(|entry| entry.log_id()).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.disk.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.disk.put(VOTE, vote)?;
        self.syncer.synced().await
    }

    /// Saves how far entries are committed. Not synced: it can be learned again from the others,
    /// but as far as the process alone ends, none is shown earlier than before.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(committed) => self.disk.put(COMMITTED, &committed),
            None => self.disk.db.delete(COMMITTED).map_err(io::Error::other),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.disk.get(COMMITTED)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Raft>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put_cf(self.disk.family(LOG), entry.index().to_be_bytes(), bodies::encode(&entry));
        }
        self.disk.write(batch)?;
        self.syncer.send(Waiting::Entries(callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.disk.family(LOG), &from.to_be_bytes()[..], &[0xff; 9][..]);
        self.disk.write(batch)
    }

    async fn purge(&mut self, last: LogId) -> Result<(), io::Error> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.disk.family(LOG), 0_u64.to_be_bytes(), (last.index + 1).to_be_bytes());
        batch.put(PURGED, bodies::encode(&last));
        self.disk.write(batch)
    }
}
