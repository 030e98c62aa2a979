//! The index of newest versions on local disk, in RocksDB.
//!
//! ```text
//!   newest       identity                        → offset | version | content | row
//!   superseded   identity length, identity, ~offset → superseded at | as above
//!   checkpoints  offset                          → largest event time
//!   default      "about"                         → format, source, floor, position, counts
//! ```
//!
//! The newest version of an identity is one point lookup, batched for a whole
//! span; only a replay that comes upon a later version looks among the
//! superseded ones, by the inverted offset.
//!
//! Each commit is one write batch, without a write-ahead log: the log that is
//! indexed is one already. All families reach their files together, when a
//! buffer is full and when the index is closed, so after a crash the index is an
//! earlier prefix as a whole, and the log is read again from there. An index of
//! another format, of another declaration of the source, or half built, is not
//! opened; it is rebuilt.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, IteratorMode, Options,
    WriteBatch, WriteBufferManager, WriteOptions,
};
use sanso_catalog::RecordCounts;
use sanso_state::Offset;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::newest::{Commit, NewestIndex, Version};

/// The version of the layout above.
const FORMAT: u32 = 1;
const NEWEST: &str = "newest";
const SUPERSEDED: &str = "superseded";
const CHECKPOINTS: &str = "checkpoints";
const FAMILIES: [&str; 4] = ["default", NEWEST, SUPERSEDED, CHECKPOINTS];
const ABOUT: &[u8] = b"about";
/// Entries written at once while an index is built or collapsed.
const BATCH_ENTRIES: usize = 4_096;

/// What an index says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    format: u32,
    source: String,
    floor: Offset,
    position: Offset,
    max_event_us: Option<i64>,
    counts: RecordCounts,
}

/// Memory and files shared by the indexes of a process.
#[derive(Clone)]
pub struct RocksShare {
    cache: Cache,
    writes: WriteBufferManager,
}

impl RocksShare {
    /// Creates a share with a block cache of `cache_bytes` and `write_bytes`
    /// for what is not yet flushed; beyond it the oldest is flushed, so it is
    /// passed for as long as that takes.
    pub fn new(cache_bytes: usize, write_bytes: usize) -> Self {
        Self {
            cache: Cache::new_lru_cache(cache_bytes),
            writes: WriteBufferManager::new_write_buffer_manager(write_bytes, false),
        }
    }

    /// Returns the bytes of the blocks cached.
    pub fn cached_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// Returns the bytes written and not yet flushed.
    pub fn unflushed_bytes(&self) -> usize {
        self.writes.get_usage()
    }

    fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(16 << 20);
        options.set_write_buffer_manager(&self.writes);
        // Most identities that are asked for are new: not looked for among those just written either.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        options
    }
}

/// The index of one log partition in a directory of its own.
pub struct RocksIndex {
    db: DB,
    path: PathBuf,
    about: About,
}

impl std::fmt::Debug for RocksIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksIndex").field("path", &self.path).field("about", &self.about).finish()
    }
}

impl RocksIndex {
    /// Opens the index in `path`. `source`: all of the source's declaration
    /// that decides what is stored. None when there is no whole index of this
    /// format and declaration; build it then with [`RocksIndex::build`].
    pub fn open(path: &Path, source: &str, share: &RocksShare) -> Result<Option<Self>> {
        if !path.join("CURRENT").exists() {
            return Ok(None);
        }
        let db = open_db(path, share, false)?;
        let about = db.get(ABOUT).map_err(|e| local("read", path, e))?;
        let Some(about) = about.and_then(|bytes| serde_json::from_slice::<About>(&bytes).ok()) else {
            return Ok(None);
        };
        if about.format != FORMAT || about.source != source {
            return Ok(None);
        }
        Ok(Some(Self { db, path: path.to_owned(), about }))
    }

    /// Deletes what is in `path` and starts to build an index there, from the
    /// newest-version table at `floor`. Until [`RocksBuild::finish`] it can't be opened.
    pub fn build(path: &Path, share: &RocksShare) -> Result<RocksBuild> {
        let io = |action, source| Error::Io { action, path: path.to_owned(), source };
        if path.exists() {
            std::fs::remove_dir_all(path).map_err(|e| io("delete", e))?;
        }
        std::fs::create_dir_all(path).map_err(|e| io("create", e))?;
        Ok(RocksBuild { db: open_db(path, share, true)?, path: path.to_owned(), rows: 0 })
    }

    /// Counts the finished files of the newest versions.
    #[cfg(test)]
    pub(crate) fn newest_tables(&self) -> u64 {
        let count = self.db.property_int_value_cf(self.family(NEWEST), "rocksdb.num-files-at-level0");
        count.expect("a property of every database").unwrap_or_default()
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        family(&self.db, name)
    }

    fn broken(&self, what: &str) -> Error {
        Error::Broken { what: what.to_owned(), path: self.path.clone() }
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        write(&self.db, &self.path, batch)
    }

    fn put_about(&self, batch: &mut WriteBatch, about: &About) {
        batch.put(ABOUT, serde_json::to_vec(about).expect("plain structs are always JSON"));
    }

    /// Finds the greatest version below `offset` among the superseded.
    fn superseded_before(&self, identity: &[u8], offset: Offset) -> Result<Option<Version>> {
        if offset == 0 {
            return Ok(None);
        }
        let mut iterator = self.db.raw_iterator_cf(self.family(SUPERSEDED));
        iterator.seek(superseded_key(identity, offset - 1));
        if let Some((key, value)) = iterator.item()
            && key.len() == superseded_len(identity)
            && key.starts_with(&superseded_key(identity, 0)[..key.len() - 8])
        {
            let version = value.get(8..).and_then(decode_version);
            return version.map(Some).ok_or_else(|| self.broken("a broken superseded version"));
        }
        iterator.status().map_err(|e| local("read", &self.path, e))?;
        Ok(None)
    }
}

impl NewestIndex for RocksIndex {
    fn floor(&self) -> Offset {
        self.about.floor
    }

    fn position(&self) -> Offset {
        self.about.position
    }

    fn counts(&self) -> RecordCounts {
        self.about.counts
    }

    fn max_event_us(&self) -> Option<i64> {
        self.about.max_event_us
    }

    fn checkpoint(&self, offset: Offset) -> Result<Option<i64>> {
        let mut iterator = self.db.raw_iterator_cf(self.family(CHECKPOINTS));
        iterator.seek_for_prev(offset.to_be_bytes());
        let found = iterator.value().map(|value| value.try_into().ok().map(i64::from_be_bytes));
        iterator.status().map_err(|e| local("read", &self.path, e))?;
        Ok(found.flatten())
    }

    fn as_of(&self, questions: &[(&[u8], Offset)]) -> Result<Vec<Option<Version>>> {
        let order = in_order(questions, |(identity, _)| identity);
        let identities = order.iter().map(|&at| questions[at].0);
        let found = self.db.batched_multi_get_cf(self.family(NEWEST), identities, true);
        let mut answers = vec![None; questions.len()];
        for (&at, found) in order.iter().zip(found) {
            let Some(value) = found.map_err(|e| local("read", &self.path, e))? else { continue };
            let newest = decode_version(&value).ok_or_else(|| self.broken("a broken newest version"))?;
            let (identity, offset) = questions[at];
            answers[at] = match newest.offset < offset {
                true => Some(newest),
                false => self.superseded_before(identity, offset)?,
            };
        }
        Ok(answers)
    }

    fn commit(&mut self, commit: Commit) -> Result<()> {
        assert_eq!(commit.from, self.about.position, "the index is filled without holes");
        let mut batch = WriteBatch::default();
        let mut value = Vec::with_capacity(256);
        for at in in_order(&commit.accepted, |accepted| &accepted.identity) {
            let accepted = &commit.accepted[at];
            if let Some(superseded) = &accepted.superseded {
                let key = superseded_key(&accepted.identity, superseded.offset);
                value.clear();
                value.extend(accepted.version.offset.to_be_bytes());
                append_version(superseded, &mut value);
                batch.put_cf(self.family(SUPERSEDED), key, &value);
            }
            value.clear();
            append_version(&accepted.version, &mut value);
            batch.put_cf(self.family(NEWEST), &accepted.identity, &value);
        }
        if commit.checkpoint {
            put_checkpoint(&mut batch, self.family(CHECKPOINTS), commit.to, commit.max_event_us);
        }
        let about = About {
            position: commit.to,
            max_event_us: commit.max_event_us,
            counts: commit.counts,
            ..self.about.clone()
        };
        self.put_about(&mut batch, &about);
        self.write(batch)?;
        self.about = about;
        Ok(())
    }

    fn collapse(&mut self, floor: Offset) -> Result<()> {
        if floor <= self.about.floor || floor > self.about.position {
            return Ok(());
        }
        let at_floor = self.checkpoint(floor)?;
        // The floor rises before anything is forgotten, so that a crash in
        // between leaves only too much.
        let about = About { floor, ..self.about.clone() };
        let mut batch = WriteBatch::default();
        put_checkpoint(&mut batch, self.family(CHECKPOINTS), floor, at_floor);
        self.put_about(&mut batch, &about);
        batch.delete_range_cf(self.family(CHECKPOINTS), 0u64.to_be_bytes(), floor.to_be_bytes());
        self.write(batch)?;
        self.about = about;
        let mut batch = WriteBatch::default();
        for item in self.db.iterator_cf(self.family(SUPERSEDED), IteratorMode::Start) {
            let (key, value) = item.map_err(|e| local("read", &self.path, e))?;
            let at = value.first_chunk().map(|at| Offset::from_be_bytes(*at));
            // A question as of the floor itself still needs what is superseded there.
            if at.is_some_and(|at| at < floor) {
                batch.delete_cf(self.family(SUPERSEDED), key);
            }
            if batch.len() >= BATCH_ENTRIES {
                self.write(std::mem::take(&mut batch))?;
            }
        }
        self.write(batch)
    }
}

/// An index being built.
pub struct RocksBuild {
    db: DB,
    path: PathBuf,
    rows: u64,
}

impl RocksBuild {
    /// Adds rows of the newest-version table.
    pub fn add(&mut self, base: impl IntoIterator<Item = (Bytes, Version)>) -> Result<()> {
        let newest = family(&self.db, NEWEST);
        let mut batch = WriteBatch::default();
        let mut value = Vec::with_capacity(256);
        for (identity, version) in base {
            value.clear();
            append_version(&version, &mut value);
            batch.put_cf(newest, identity, &value);
            self.rows += 1;
            if batch.len() >= BATCH_ENTRIES {
                write(&self.db, &self.path, std::mem::take(&mut batch))?;
            }
        }
        write(&self.db, &self.path, batch)
    }

    /// Makes the index whole. Its counts start with the readings of the table:
    /// how the records below the floor were judged is no longer known.
    pub fn finish(self, source: &str, floor: Offset, max_event_us: Option<i64>) -> Result<RocksIndex> {
        let counts = RecordCounts { records: self.rows, new: self.rows, ..RecordCounts::default() };
        let about =
            About { format: FORMAT, source: source.to_owned(), floor, position: floor, max_event_us, counts };
        let index = RocksIndex { db: self.db, path: self.path, about };
        let mut batch = WriteBatch::default();
        put_checkpoint(&mut batch, index.family(CHECKPOINTS), floor, max_event_us);
        index.put_about(&mut batch, &index.about);
        index.write(batch)?;
        // Not to be built again if the process is killed before a buffer is full.
        let families = FAMILIES.map(|name| index.family(name));
        let flushed = index.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|e| local("write", &index.path, e))?;
        Ok(index)
    }
}

pub(crate) fn local(action: &'static str, path: &Path, source: rocksdb::Error) -> Error {
    Error::Local { action, path: path.to_owned(), source }
}

pub(crate) fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("all column families are opened")
}

fn write(db: &DB, path: &Path, batch: WriteBatch) -> Result<()> {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    db.write_opt(batch, &options).map_err(|e| local("write", path, e))
}

/// Opens a database, or creates it. One that is there must have all families: where the file that
/// lists them was cut, those that are missing would come back empty.
fn open_db(path: &Path, share: &RocksShare, create: bool) -> Result<DB> {
    let mut options = share.options();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    // Never a newer version without what it superseded.
    options.set_atomic_flush(true);
    let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, share.options()));
    DB::open_cf_descriptors(&options, path, families).map_err(|e| local("open", path, e))
}

/// Returns the indexes of `all` by identity, equal ones as they stand: whoever looks for keys in their
/// order, or adds them so, finds the way to each in the processor's cache.
fn in_order<T>(all: &[T], identity: impl Fn(&T) -> &[u8]) -> Vec<usize> {
    let mut order = Vec::from_iter(0..all.len());
    order.sort_by(|&a, &b| identity(&all[a]).cmp(identity(&all[b])));
    order
}

fn superseded_len(identity: &[u8]) -> usize {
    4 + identity.len() + 8
}

/// The length first, so that no identity's keys run into another's; the offset
/// inverted, so that a seek finds the greatest at or below it.
fn superseded_key(identity: &[u8], offset: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(superseded_len(identity));
    key.extend((identity.len() as u32).to_be_bytes());
    key.extend(identity);
    key.extend((!offset).to_be_bytes());
    key
}

fn append_version(version: &Version, out: &mut Vec<u8>) {
    out.extend(version.offset.to_be_bytes());
    out.extend(version.version.to_be_bytes());
    out.extend(version.content);
    out.extend(&version.row);
}

fn decode_version(bytes: &[u8]) -> Option<Version> {
    let (offset, bytes) = bytes.split_first_chunk()?;
    let (version, bytes) = bytes.split_first_chunk()?;
    let (content, row) = bytes.split_first_chunk()?;
    Some(Version {
        offset: Offset::from_be_bytes(*offset),
        version: i64::from_be_bytes(*version),
        content: *content,
        row: Bytes::copy_from_slice(row),
    })
}

fn put_checkpoint(batch: &mut WriteBatch, family: &ColumnFamily, offset: Offset, max_event_us: Option<i64>) {
    let value: &[u8] = &max_event_us.map(i64::to_be_bytes).unwrap_or_default();
    let value = if max_event_us.is_some() { value } else { &[] };
    batch.put_cf(family, offset.to_be_bytes(), value);
}
