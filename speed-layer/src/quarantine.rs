//! Records that were refused, kept with all that is needed to mend them.
//!
//! One RocksDB for the whole layer, keyed (source, log partition, offset), so
//! that a record met again on replay is one entry. Writes are synchronised:
//! unlike the index, what is here can't be read from the log for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use sanso_catalog::{QuarantineStore, Quarantined};
use sanso_state::Offset;

use crate::error::{Error, Result};
use crate::rocks::local;
use crate::worker::QuarantineSink;

/// The quarantine of all sources. Clones share it.
#[derive(Clone)]
pub struct Quarantine(Arc<Inner>);

struct Inner {
    db: DB,
    path: PathBuf,
    /// Entries by source, so that counting does not scan; also held while writing.
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Quarantine {
    /// Opens (or creates) the quarantine in a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "create", path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(4 << 20);
        options.set_keep_log_file_num(2);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        let db = DB::open(&options, path).map_err(|e| local("open", path, e))?;
        let mut counts = BTreeMap::new();
        for item in db.iterator(IteratorMode::Start) {
            let (key, _) = item.map_err(|e| local("read", path, e))?;
            if let Some((source, _, _)) = decode_key(&key) {
                *counts.entry(source.to_owned()).or_default() += 1;
            }
        }
        Ok(Self(Arc::new(Inner { db, path: path.to_owned(), counts: Mutex::new(counts) })))
    }

    /// Returns a sink for the records of one source.
    pub fn sink(&self, source: &str) -> SourceQuarantine {
        SourceQuarantine { quarantine: self.clone(), source: source.to_owned() }
    }

    fn put(&self, source: &str, refused: &[Quarantined]) -> Result<()> {
        let inner = &self.0;
        let mut counts = inner.counts.lock();
        let mut merged: BTreeMap<Vec<u8>, Quarantined> = BTreeMap::new();
        let mut added = 0;
        for record in refused {
            let key = encode_key(source, record.partition, record.offset);
            if let Some(known) = merged.get_mut(&key) {
                merge(known, record);
                continue;
            }
            let stored = inner.db.get(&key).map_err(|e| local("read", &inner.path, e))?;
            let mut whole = record.clone();
            match stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                Some(mut known) => {
                    merge(&mut known, record);
                    whole = known;
                }
                None => added += 1,
            }
            merged.insert(key, whole);
        }
        let mut batch = WriteBatch::default();
        for (key, record) in merged {
            batch.put(key, serde_json::to_vec(&record).expect("plain structs are always JSON"));
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        inner.db.write_opt(batch, &options).map_err(|e| local("write", &inner.path, e))?;
        *counts.entry(source.to_owned()).or_default() += added;
        Ok(())
    }
}

/// Adds a second reason for the same record: several views may fail on one row.
fn merge(known: &mut Quarantined, record: &Quarantined) {
    if !known.reason.split('\n').any(|reason| reason == record.reason) {
        known.reason.push('\n');
        known.reason.push_str(&record.reason);
    }
}

/// The quarantine as one source's workers see it.
#[derive(Clone)]
pub struct SourceQuarantine {
    quarantine: Quarantine,
    source: String,
}

impl QuarantineSink for SourceQuarantine {
    fn put(&mut self, refused: &[Quarantined]) -> Result<()> {
        self.quarantine.put(&self.source, refused)
    }
}

impl QuarantineStore for Quarantine {
    fn list(
        &self,
        source: &str,
        after: Option<(u32, Offset)>,
        limit: usize,
    ) -> Result<Vec<Quarantined>, String> {
        let mut start = match after {
            Some((partition, offset)) => encode_key(source, partition, offset),
            None => encode_key(source, 0, 0),
        };
        if after.is_some() {
            start.push(0);
        }
        let mut found = Vec::new();
        for item in self.0.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = item.map_err(|e| local("read", &self.0.path, e).chain())?;
            if found.len() == limit || decode_key(&key).is_none_or(|(name, _, _)| name != source) {
                break;
            }
            found
                .push(serde_json::from_slice(&value).map_err(|e| format!("a broken quarantine entry: {e}"))?);
        }
        Ok(found)
    }

    fn count(&self, source: &str) -> Result<u64, String> {
        Ok(self.0.counts.lock().get(source).copied().unwrap_or_default())
    }
}

/// Source names hold no zero byte, so sources don't run into each other.
fn encode_key(source: &str, partition: u32, offset: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(source.len() + 13);
    key.extend(source.as_bytes());
    key.push(0);
    key.extend(partition.to_be_bytes());
    key.extend(offset.to_be_bytes());
    key
}

fn decode_key(key: &[u8]) -> Option<(&str, u32, Offset)> {
    let (key, offset) = key.split_last_chunk()?;
    let (key, partition) = key.split_last_chunk()?;
    let source = std::str::from_utf8(key.strip_suffix(&[0])?).ok()?;
    Some((source, u32::from_be_bytes(*partition), Offset::from_be_bytes(*offset)))
}
