//! The record of what output topics hold: by it each distinct content is written once.
//!
//! ```text
//!   append to the topic ──▶ record (revision, content, applied, synced offset)
//!        crash here, or another writes: the topic is read from the synced offset,
//!        so the record learns what it missed
//! ```
//!
//! It is derived from the topics and nothing else, in their order, so that it is the same wherever it is kept.

use std::collections::{BTreeMap, btree_map};
use std::path::{Path, PathBuf};

use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use sanso_core::PartitionId;
use sanso_state::{Fingerprint, Offset};
use sanso_view::View;
use serde::{Deserialize, Serialize};

use crate::emitted::EmittedWindow;
use crate::error::{Error, Remedy, Result};
use crate::rocks::local;

type Row = (Vec<u8>, Vec<u8>);

/// Where a record is kept.
pub(crate) trait Keep {
    /// Returns the value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Puts values, all or none.
    fn put(&mut self, rows: Vec<Row>) -> Result<()>;

    /// Returns at most `most` rows whose keys begin with `prefix` and come after `after`, in order.
    fn scan(&self, prefix: &[u8], after: &[u8], most: usize) -> Result<Vec<Row>>;

    /// Forgets everything, since it is broken.
    fn clear(&mut self) -> Result<()>;
}

/// In memory.
#[cfg(test)]
impl Keep for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.get(key).cloned())
    }

    fn put(&mut self, rows: Vec<Row>) -> Result<()> {
        self.extend(rows);
        Ok(())
    }

    fn scan(&self, prefix: &[u8], after: &[u8], most: usize) -> Result<Vec<Row>> {
        let all = self.range(after.max(prefix).to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let rows = all.filter(|(key, _)| key.as_slice() != after).take(most);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn clear(&mut self) -> Result<()> {
        self.clear();
        Ok(())
    }
}

/// In RocksDB.
pub(crate) struct KeepOnDisk {
    /// None when it could not be made again.
    db: Option<DB>,
    path: PathBuf,
}

impl KeepOnDisk {
    /// Opens the record; a broken one is begun anew.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut this = Self { db: None, path: path.to_owned() };
        match open_db(path) {
            Err(error) if error.remedy() == Remedy::Rebuild => {
                tell_made_again(path, &error);
                this.clear()?;
            }
            opened => this.db = Some(opened?),
        }
        Ok(this)
    }

    fn db(&self) -> Result<&DB> {
        let gone = || Error::Broken { what: "no record of emissions".into(), path: self.path.clone() };
        self.db.as_ref().ok_or_else(gone)
    }
}

fn tell_made_again(path: &Path, broken: &Error) {
    tracing::warn!(
        path = %path.display(), error = broken.chain(),
        "the record of emissions is made again from the output topics"
    );
}

fn open_db(path: &Path) -> Result<DB> {
    let io = |source| Error::Io { action: "create", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(io)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(8 << 20);
    options.set_keep_log_file_num(2);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    DB::open(&options, path).map_err(|e| local("open", path, e))
}

impl Keep for KeepOnDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db()?.get(key).map_err(|e| local("read", &self.path, e))
    }

    fn put(&mut self, rows: Vec<Row>) -> Result<()> {
        let mut batch = WriteBatch::default();
        rows.into_iter().for_each(|(key, value)| batch.put(key, value));
        self.db()?.write(batch).map_err(|e| local("write", &self.path, e))
    }

    fn scan(&self, prefix: &[u8], after: &[u8], most: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let from = IteratorMode::From(after.max(prefix), Direction::Forward);
        for row in self.db()?.iterator(from) {
            let (key, value) = row.map_err(|e| local("read", &self.path, e))?;
            if !key.starts_with(prefix) || rows.len() == most {
                break;
            }
            if *key != *after {
                rows.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(rows)
    }

    fn clear(&mut self) -> Result<()> {
        self.db = None;
        let io = |source| Error::Io { action: "delete", path: self.path.clone(), source };
        std::fs::remove_dir_all(&self.path).map_err(io)?;
        self.db = Some(open_db(&self.path)?);
        Ok(())
    }
}

/// What a topic holds of a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// The highest revision.
    pub(crate) revision: u64,
    /// The content of the last record, in order of offsets.
    content: Fingerprint,
    /// Whether that has values.
    pub(crate) has_values: bool,
    /// The window's end, as it was written.
    pub(crate) window_end: String,
    /// Whether another content has the highest revision, or an equal one: two have written at once.
    disputed: bool,
}

impl Last {
    fn of(window: &EmittedWindow) -> Self {
        Self {
            revision: window.revision,
            content: window.content(),
            has_values: window.values.is_some(),
            window_end: window.window_end.clone(),
            disputed: false,
        }
    }

    /// Takes the next record of the window.
    fn followed_by(self, next: Self) -> Self {
        if next.revision > self.revision {
            return next;
        }
        let disputed = self.disputed || next.content != self.content;
        Self { revision: self.revision, disputed, ..next }
    }
}

/// Windows of a view that a topic says have values.
pub(crate) struct WithValues {
    /// Their identities and ends.
    pub(crate) windows: Vec<(String, String)>,
    /// The identity to go on after; none at the end.
    pub(crate) next: Option<String>,
}

/// The record of what output topics hold.
pub(crate) struct EmittedRecord<K>(K);

impl<K: Keep> EmittedRecord<K> {
    /// Goes on with what was kept.
    pub(crate) fn of(kept: K) -> Self {
        Self(kept)
    }

    /// Begins an empty record in place of one that does not fit the topics, which fill it again.
    pub(crate) fn make_again(&mut self, path: &Path, broken: &Error) -> Result<()> {
        tell_made_again(path, broken);
        self.0.clear()
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, key: &[u8]) -> Result<Option<T>> {
        self.0.get(key)?.map(|bytes| parsed(&bytes)).transpose()
    }

    /// Returns what is known of a window of a view, by its identity.
    pub(crate) fn last(&self, view: &str, identity: &str) -> Result<Option<Last>> {
        self.read(&window_key(view, identity))
    }

    /// Returns the revision that this content is to be written with, since it stands for so many
    /// offsets; none when it is what the topic says, or a retraction of what it never said.
    pub(crate) fn revision(&self, window: &EmittedWindow) -> Result<Option<(u64, bool)>> {
        let offsets = window.applied.iter().sum::<Offset>().max(1);
        Ok(match self.last(&window.view, &window.id)? {
            None => window.values.is_some().then_some((offsets, false)),
            Some(last) if last.content == window.content() && !last.disputed => None,
            Some(last) => Some((offsets.max(last.revision + 1), true)),
        })
    }

    /// Returns windows of a view whose last record has values, after an identity; at most so many windows
    /// are looked at.
    pub(crate) fn with_values(&self, view: &str, after: &str, most: usize) -> Result<WithValues> {
        let prefix = window_key(view, "");
        let rows = self.0.scan(&prefix, &window_key(view, after), most)?;
        let identity = |key: &[u8]| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let next = rows.last().filter(|_| rows.len() == most).map(|(key, _)| identity(key));
        let mut found = Vec::new();
        for (key, value) in &rows {
            let last: Last = parsed(value)?;
            if last.has_values {
                found.push((identity(key), last.window_end));
            }
        }
        Ok(WithValues { windows: found, next })
    }

    /// Returns the greatest offsets that anything written of a view partition stands for; of other versions
    /// of the view, of all their partitions.
    pub(crate) fn applied(&self, view: &View, id: PartitionId) -> Result<Vec<Offset>> {
        let other = PartitionId { view: id.view, index: u32::MAX };
        let own = |key: &[u8]| key == applied_key(&view.name, &view.source.name, id);
        let version = applied_key(&view.name, &view.source.name, other);
        let version = &version[..version.len() - size_of::<u32>()];
        let mut greatest_of_all = Vec::new();
        for (key, value) in self.0.scan(&applied_prefix(&view.name, &view.source.name), b"", usize::MAX)? {
            if own(&key) || !key.starts_with(version) {
                greatest_of_all = greatest(greatest_of_all, &parsed::<Vec<Offset>>(&value)?);
            }
        }
        Ok(greatest_of_all)
    }

    /// Returns the offset below which a topic's partition is in the record.
    pub(crate) fn synced(&self, topic: &str, partition: u32) -> Result<Offset> {
        Ok(self.read(&synced_key(topic, partition))?.unwrap_or_default())
    }

    /// Records what a topic's partition holds in `[synced, to)`, in order.
    pub(crate) fn record(
        &mut self,
        topic: &str,
        partition: u32,
        to: Offset,
        windows: &[EmittedWindow],
    ) -> Result<()> {
        let mut lasts: BTreeMap<Vec<u8>, Last> = BTreeMap::new();
        let mut applied: BTreeMap<Vec<u8>, Vec<Offset>> = BTreeMap::new();
        for window in windows {
            let next = Last::of(window);
            let key = window_key(&window.view, &window.id);
            let before = match lasts.remove(&key) {
                Some(last) => Some(last),
                None => self.read(&key)?,
            };
            lasts.insert(
                key,
                before.map_or_else(|| next.clone(), |last: Last| last.followed_by(next.clone())),
            );
            let vector = match applied.entry(applied_key(&window.view, &window.source, window.origin())) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(new) => {
                    let known = self.read(new.key())?.unwrap_or_default();
                    new.insert(known)
                }
            };
            *vector = greatest(std::mem::take(vector), &window.applied);
        }
        let mut rows: Vec<Row> = lasts.iter().map(|(key, last)| (key.clone(), written(last))).collect();
        rows.extend(applied.into_iter().map(|(key, vector)| (key, written(&vector))));
        rows.push((synced_key(topic, partition), written(&to)));
        self.0.put(rows)
    }
}

fn parsed<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    let broken = |_| Error::Broken { what: "a broken record of emissions".into(), path: "emitted".into() };
    serde_json::from_slice(bytes).map_err(broken)
}

fn written<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs are always JSON")
}

fn greatest(mut vector: Vec<Offset>, other: &[Offset]) -> Vec<Offset> {
    vector.resize(vector.len().max(other.len()), 0);
    vector.iter_mut().zip(other).for_each(|(mine, &theirs)| *mine = (*mine).max(theirs));
    vector
}

fn window_key(view: &str, identity: &str) -> Vec<u8> {
    [b"w", view.as_bytes(), &[0], identity.as_bytes()].concat()
}

fn applied_prefix(view: &str, source: &str) -> Vec<u8> {
    [b"a", view.as_bytes(), &[0], source.as_bytes(), &[0]].concat()
}

fn applied_key(view: &str, source: &str, id: PartitionId) -> Vec<u8> {
    [applied_prefix(view, source).as_slice(), id.view.as_bytes(), &id.index.to_be_bytes()].concat()
}

fn synced_key(topic: &str, partition: u32) -> Vec<u8> {
    [b"s", topic.as_bytes(), &[0], &partition.to_be_bytes()].concat()
}
