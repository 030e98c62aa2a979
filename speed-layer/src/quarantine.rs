//! Records that were refused after the batch cut, kept with all that is needed to mend them.
//!
//! ```text
//!   default      source, log partition, offset                → head, payload
//!   expressions  source, log partition, offset, view version  → head, payload
//!   begun        source, log partition                        → nothing
//! ```
//!
//! One RocksDB for the whole layer, keyed by place, so that a record met again on replay is one
//! entry. Entries are synchronised to disk before the index commits their span. What the batch layer
//! has published is dropped ([`SourceQuarantine::discard`]): a reader takes that from the dataset.
//!
//! Invariant: from the batch cut to the index's position every refused record is here. An index that
//! is rebuilt reads from the cut again, which makes it true; and where this store is lost and the
//! index is not, `begun` is missing, and the index is rebuilt.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions,
};
use sanso_catalog::{Order, QuarantineStore};
use sanso_state::{Fingerprint, LogPartition, Offset, Quarantined, Refusal, RefusalCounts, Segments};
use sanso_view::Source;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Remedy, Result};
use crate::rocks::local;
use crate::worker::QuarantineSink;

const REFUSED: &str = "default";
const EXPRESSIONS: &str = "expressions";
const BEGUN: &str = "begun";

/// The quarantine of all sources. Clones share it.
#[derive(Clone)]
pub struct Quarantine(Arc<Inner>);

struct Inner {
    db: DB,
    path: PathBuf,
    /// Also held while writing.
    tally: Mutex<Tally>,
}

/// How many entries there are, so that counting does not read them.
#[derive(Default)]
struct Tally {
    /// The sources whose entries are counted.
    sources: BTreeMap<String, Segments>,
    /// What the source refused, by segment.
    refused: BTreeMap<(String, u32, u64), RefusalCounts>,
    /// What expressions failed on.
    expressions: BTreeMap<(String, u32, Fingerprint), u64>,
}

/// An entry but for its place and its payload.
#[derive(Serialize, Deserialize)]
struct Head {
    kind: Refusal,
    reason: String,
    #[serde(default)]
    append_time_us: i64,
    /// Only in entries of a program that kept the payload as text.
    #[serde(default, skip_serializing)]
    payload: String,
}

impl Quarantine {
    /// Opens (or creates) the quarantine in a directory. One that is damaged is begun anew: what it
    /// held is judged again.
    pub fn open(path: &Path) -> Result<Self> {
        let db = match open_db(path) {
            Err(error) if error.remedy() == Remedy::Rebuild => {
                tracing::warn!(
                    error = error.chain(),
                    "the speed layer's quarantine is damaged and begun anew"
                );
                let io = |source| Error::Io { action: "delete", path: path.to_owned(), source };
                std::fs::remove_dir_all(path).map_err(io)?;
                open_db(path)?
            }
            opened => opened?,
        };
        Ok(Self(Arc::new(Inner { db, path: path.to_owned(), tally: Mutex::default() })))
    }

    /// Returns the quarantine of one source. The first call counts its entries.
    pub fn of(&self, source: &Source) -> Result<SourceQuarantine> {
        let mut tally = self.0.tally.lock();
        if !tally.sources.contains_key(&source.name) {
            self.0.count(&source.name, source.segments(), &mut tally)?;
            tally.sources.insert(source.name.clone(), source.segments());
        }
        Ok(SourceQuarantine { quarantine: self.clone(), source: source.name.clone() })
    }
}

fn open_db(path: &Path) -> Result<DB> {
    let io = |source| Error::Io { action: "create", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(io)?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(4 << 20);
    options.set_keep_log_file_num(2);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    let families = [REFUSED, EXPRESSIONS, BEGUN];
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    DB::open_cf_descriptors(&options, path, families).map_err(|e| local("open", path, e))
}

impl Inner {
    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family was opened")
    }

    fn failed(&self, action: &'static str) -> impl Fn(rocksdb::Error) -> Error + '_ {
        move |error| local(action, &self.path, error)
    }

    fn count(&self, source: &str, segments: Segments, tally: &mut Tally) -> Result<()> {
        let prefix = place(source, 0, 0)[..source.len() + 1].to_vec();
        for (name, width) in [(REFUSED, 12), (EXPRESSIONS, 44)] {
            let from = IteratorMode::From(&prefix, Direction::Forward);
            for item in self.db.iterator_cf(self.family(name), from) {
                let (key, value) = item.map_err(self.failed("read"))?;
                let Some(rest) = key.strip_prefix(&prefix[..]) else { break };
                let Some((partition, offset, view)) = parse(rest).filter(|_| rest.len() == width) else {
                    continue;
                };
                match view {
                    None => {
                        let at = (source.to_owned(), partition, segments.index_of(offset));
                        *tally.refused.entry(at).or_default().at_mut(head(&value, &self.path)?.0.kind) += 1;
                    }
                    Some(view) => {
                        *tally.expressions.entry((source.to_owned(), partition, view)).or_default() += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn put(&self, source: &str, refused: &[Quarantined]) -> Result<()> {
        let mut tally = self.tally.lock();
        let segments = tally.sources[source];
        let mut batch = WriteBatch::default();
        let mut new: BTreeMap<Vec<u8>, &Quarantined> = BTreeMap::new();
        for record in refused {
            let mut key = place(source, record.partition, record.offset);
            let family = match &record.view {
                None => REFUSED,
                Some(view) => {
                    key.extend(view.as_bytes());
                    EXPRESSIONS
                }
            };
            let family = self.family(family);
            if self.db.get_pinned_cf(family, &key).map_err(self.failed("read"))?.is_none() {
                batch.put_cf(family, &key, value(record));
                new.insert(key, record);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(self.failed("write"))?;
        for record in new.into_values() {
            let (name, partition) = (source.to_owned(), record.partition);
            match record.view {
                None => {
                    let at = (name, partition, segments.index_of(record.offset));
                    *tally.refused.entry(at).or_default().at_mut(record.kind) += 1;
                }
                Some(view) => *tally.expressions.entry((name, partition, view)).or_default() += 1,
            }
        }
        Ok(())
    }

    fn visit(
        &self,
        family: &str,
        (source, partition): (&str, u32),
        (range, order): (Range<Offset>, Order),
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<()> {
        let (low, high) = (place(source, partition, range.start), place(source, partition, range.end));
        let from = match order {
            Order::Rising => IteratorMode::From(&low, Direction::Forward),
            Order::Falling => IteratorMode::From(&high, Direction::Reverse),
        };
        for item in self.db.iterator_cf(self.family(family), from) {
            let (key, value) = item.map_err(self.failed("read"))?;
            if key.as_ref() >= high.as_slice() {
                if order == Order::Rising {
                    break;
                }
                continue;
            }
            if key.as_ref() < low.as_slice() {
                break;
            }
            let Some((partition, offset, view)) = parse(&key[source.len() + 1..]) else { continue };
            let (head, payload) = head(&value, &self.path)?;
            let payload = if payload.is_empty() { head.payload.as_bytes() } else { payload };
            let record = Quarantined {
                partition,
                offset,
                append_time_us: head.append_time_us,
                kind: head.kind,
                reason: head.reason,
                view,
                payload: payload.to_vec(),
            };
            if visit(record).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The quarantine of one source.
#[derive(Clone)]
pub struct SourceQuarantine {
    quarantine: Quarantine,
    source: String,
}

impl SourceQuarantine {
    /// Says whether a log partition's entries were begun in this store: else those of before are lost,
    /// and its index must be rebuilt.
    pub fn has_begun(&self, partition: LogPartition) -> Result<bool> {
        let inner = &self.quarantine.0;
        let key = place(&self.source, partition.0, 0);
        let found = inner.db.get_pinned_cf(inner.family(BEGUN), key).map_err(inner.failed("read"))?;
        Ok(found.is_some())
    }

    /// Marks a log partition whose index has just been built.
    pub fn begin(&self, partition: LogPartition) -> Result<()> {
        let inner = &self.quarantine.0;
        let key = place(&self.source, partition.0, 0);
        inner.db.put_cf(inner.family(BEGUN), key, []).map_err(inner.failed("write"))
    }

    /// Drops what the source refused at these offsets, whose ends are segment boundaries: the batch
    /// layer has published it.
    pub fn discard(&self, partition: LogPartition, published: Range<Offset>) -> Result<()> {
        let inner = &self.quarantine.0;
        let mut tally = inner.tally.lock();
        let segments = tally.sources[&self.source];
        let dropped = tally.within(&self.source, partition.0, &published, segments);
        if dropped.is_empty() {
            return Ok(());
        }
        let at = |offset| place(&self.source, partition.0, offset);
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(inner.family(REFUSED), at(published.start), at(published.end));
        inner.db.write(batch).map_err(inner.failed("write"))?;
        dropped.iter().for_each(|segment| {
            tally.refused.remove(segment);
        });
        Ok(())
    }

    /// Drops what expressions failed on of view versions that are no longer live.
    pub fn retain_views(&self, partition: LogPartition, live: &[Fingerprint]) -> Result<()> {
        let inner = &self.quarantine.0;
        let mut tally = inner.tally.lock();
        let mine = tally.expressions.keys().filter(|(name, p, _)| (name, *p) == (&self.source, partition.0));
        if mine.map(|(_, _, view)| view).all(|view| live.contains(view)) {
            return Ok(());
        }
        let (low, high) = (place(&self.source, partition.0, 0), place(&self.source, partition.0, u64::MAX));
        let mut batch = WriteBatch::default();
        let family = inner.family(EXPRESSIONS);
        for item in inner.db.iterator_cf(family, IteratorMode::From(&low, Direction::Forward)) {
            let (key, _) = item.map_err(inner.failed("read"))?;
            if key.as_ref() >= high.as_slice() {
                break;
            }
            let view = parse(&key[self.source.len() + 1..]).and_then(|(_, _, view)| view);
            if view.is_none_or(|view| !live.contains(&view)) {
                batch.delete_cf(family, key);
            }
        }
        inner.db.write(batch).map_err(inner.failed("write"))?;
        tally
            .expressions
            .retain(|(name, p, view), _| (name, *p) != (&self.source, partition.0) || live.contains(view));
        Ok(())
    }
}

impl QuarantineSink for SourceQuarantine {
    fn put(&mut self, refused: &[Quarantined]) -> Result<()> {
        self.quarantine.0.put(&self.source, refused)
    }
}

impl QuarantineStore for Quarantine {
    fn visit(
        &self,
        source: &str,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let visited = self.0.visit(REFUSED, (source, partition), (range, order), visit);
        visited.map_err(|error| error.chain())
    }

    fn visit_expressions(
        &self,
        source: &str,
        partition: u32,
        range: Range<Offset>,
        order: Order,
        visit: &mut dyn FnMut(Quarantined) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let visited = self.0.visit(EXPRESSIONS, (source, partition), (range, order), visit);
        visited.map_err(|error| error.chain())
    }

    fn counts(&self, source: &str, partition: u32, range: Range<Offset>) -> Result<RefusalCounts, String> {
        let tally = self.0.tally.lock();
        let segments = *tally.sources.get(source).ok_or("its entries are not counted yet")?;
        let mut counts = RefusalCounts::default();
        let within = tally.within(source, partition, &range, segments);
        within.iter().for_each(|segment| counts.add(&tally.refused[segment]));
        Ok(counts)
    }

    fn expressions(&self, source: &str, partition: u32, views: &[Fingerprint]) -> Result<u64, String> {
        let tally = self.0.tally.lock();
        let of = |view: &Fingerprint| tally.expressions.get(&(source.to_owned(), partition, *view)).copied();
        Ok(views.iter().filter_map(of).sum())
    }
}

impl Tally {
    /// Returns the segments with entries that begin within a range.
    fn within(
        &self,
        source: &str,
        partition: u32,
        range: &Range<Offset>,
        segments: Segments,
    ) -> Vec<(String, u32, u64)> {
        let at = |index| (source.to_owned(), partition, index);
        let index = |offset: Offset| offset.div_ceil(segments.size());
        if range.is_empty() {
            return Vec::new();
        }
        let found = self.refused.range(at(index(range.start))..at(index(range.end)));
        found.map(|(segment, _)| segment.clone()).collect()
    }
}

fn value(record: &Quarantined) -> Vec<u8> {
    let (kind, reason) = (record.kind, record.reason.clone());
    let head = Head { kind, reason, append_time_us: record.append_time_us, payload: String::new() };
    let mut value = serde_json::to_vec(&head).expect("plain structs are always JSON");
    value.push(b'\n');
    value.extend(&record.payload);
    value
}

/// Divides a stored entry; JSON written in one line has no line break of its own.
fn head<'a>(value: &'a [u8], path: &Path) -> Result<(Head, &'a [u8])> {
    let end = value.iter().position(|byte| *byte == b'\n').unwrap_or(value.len());
    let broken = |error: serde_json::Error| Error::Broken {
        what: format!("a broken entry: {error}"),
        path: path.to_owned(),
    };
    let head = serde_json::from_slice(&value[..end]).map_err(broken)?;
    Ok((head, value.get(end + 1..).unwrap_or_default()))
}

/// Source names hold no zero byte, so sources don't run into each other.
fn place(source: &str, partition: u32, offset: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(source.len() + 45);
    key.extend(source.as_bytes());
    key.push(0);
    key.extend(partition.to_be_bytes());
    key.extend(offset.to_be_bytes());
    key
}

/// Parses what follows the source in a key.
fn parse(rest: &[u8]) -> Option<(u32, Offset, Option<Fingerprint>)> {
    let (partition, rest) = rest.split_first_chunk()?;
    let (offset, view) = rest.split_first_chunk()?;
    let view = match view {
        [] => None,
        view => Some(Fingerprint::from_bytes(view.try_into().ok()?)),
    };
    Some((u32::from_be_bytes(*partition), Offset::from_be_bytes(*offset), view))
}
