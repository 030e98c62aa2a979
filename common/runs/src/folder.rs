//! One directory of runs: a RocksDB, and what becomes of its errors.

use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator,
    IngestExternalFileOptions, Options, ReadOptions, SstFileWriter,
};
use sanso_state::{AggregateKind, GroupId, GroupState, Part, RunError, RunGroups};

use crate::layout;

/// Files that RocksDB has open; it opens others when they are read.
const FILES_MAX: i32 = 256;
/// Read ahead of who reads a run from its beginning.
const AHEAD_BYTES: usize = 1 << 20;
/// After so many groups it is looked whether a run still fits.
const LOOK: u64 = 65_536;

/// A directory.
pub(crate) struct Folder {
    db: DB,
    options: Options,
    /// Where files are before they are ingested.
    writing: PathBuf,
    next_run: AtomicU64,
    bytes: AtomicU64,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("writing", &self.writing).field("bytes", &self.bytes).finish()
    }
}

impl Folder {
    /// Deletes what is in a directory; one that another process has open is refused.
    pub(crate) fn clear(path: &Path) -> Result<(), String> {
        if !path.exists() {
            return Ok(());
        }
        // It takes the lock that who has it open holds.
        DB::destroy(&Options::default(), path).map_err(|error| error.to_string())?;
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// Empties a directory and opens it; one that another process has open is refused.
    pub(crate) fn open(path: &Path, cache: &Cache) -> Result<Self, String> {
        Self::clear(path)?;
        let writing = path.join("writing");
        std::fs::create_dir_all(&writing).map_err(|error| error.to_string())?;
        let options = options(cache);
        let db = DB::open(&options, path).map_err(|error| error.to_string())?;
        Ok(Self { db, options, writing, next_run: AtomicU64::default(), bytes: AtomicU64::default() })
    }

    /// Returns the bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes a run of at most so many bytes.
    pub(crate) fn write(
        folder: &Arc<Self>,
        kinds: &[AggregateKind],
        groups: RunGroups<'_>,
        room: u64,
    ) -> Result<Range, RunError> {
        let mut groups = groups.peekable();
        let run = folder.next_run.fetch_add(1, Ordering::Relaxed);
        let mut range = Range { folder: Arc::clone(folder), run, groups: 0, bytes: 0 };
        if groups.peek().is_none() {
            // A file of nothing is refused.
            return Ok(range);
        }
        let path = folder.writing.join(format!("{run}.sst"));
        let written = folder.write_file(&path, run, kinds, groups, room);
        let ingested = written.and_then(|written| folder.ingest(&path).map(|()| written));
        // One that was ingested is no longer there.
        let _ = std::fs::remove_file(&path);
        (range.groups, range.bytes) = ingested?;
        folder.bytes.fetch_add(range.bytes, Ordering::Relaxed);
        Ok(range)
    }

    fn ingest(&self, path: &Path) -> Result<(), RunError> {
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        self.db.ingest_external_file_opts(&how, vec![path]).map_err(failed)
    }

    fn write_file(
        &self,
        path: &Path,
        run: u64,
        kinds: &[AggregateKind],
        groups: impl Iterator<Item = Result<(GroupId, GroupState), RunError>>,
        room: u64,
    ) -> Result<(u64, u64), RunError> {
        let mut file = SstFileWriter::create(&self.options);
        file.open(path).map_err(failed)?;
        let mut count = 0;
        for group in groups {
            let (id, state) = group?;
            file.put(layout::of_group(run, &id), state.encode(kinds)).map_err(failed)?;
            count += 1;
            if count % LOOK == 0 {
                fits(file.file_size(), room)?;
            }
        }
        file.finish().map_err(failed)?;
        fits(file.file_size(), room)?;
        Ok((count, file.file_size()))
    }
}

fn fits(bytes: u64, room: u64) -> Result<(), RunError> {
    if bytes > room {
        return Err(RunError("no room is left within the bound of bytes on disk".to_owned()));
    }
    Ok(())
}

fn options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // The index of a large run is larger than its share of the cache, so it has blocks of its own.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_metadata_block_size(8 << 10);
    table.set_block_size(8 << 10);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(FILES_MAX);
    options.set_disable_auto_compactions(true);
    options.set_keep_log_file_num(2);
    options
}

fn failed(error: rocksdb::Error) -> RunError {
    RunError(error.to_string())
}

/// The keys of a run; their file is deleted with this.
#[derive(Debug)]
pub(crate) struct Range {
    folder: Arc<Folder>,
    run: u64,
    pub(crate) groups: u64,
    bytes: u64,
}

impl Range {
    pub(crate) fn read<'a>(&'a self, kinds: &'a [AggregateKind], part: Part<'a>) -> RunGroups<'a> {
        let (from, to) = layout::of_part(self.run, &part);
        let mut how = ReadOptions::default();
        if part.key.is_none() {
            // What is read once is not to take the place of what is read again and again.
            how.fill_cache(false);
            how.set_readahead_size(AHEAD_BYTES);
        }
        how.set_iterate_range(from.clone()..to);
        let mut at = self.folder.db.raw_iterator_opt(how);
        at.seek(from);
        Box::new(Groups { at, kinds, part, over: false })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if self.groups == 0 {
            return;
        }
        let (from, to) = (layout::of_run(self.run), layout::of_run(self.run + 1));
        match self.folder.db.delete_file_in_range(from, to) {
            Ok(()) => _ = self.folder.bytes.fetch_sub(self.bytes, Ordering::Relaxed),
            // It goes at the next start.
            Err(error) => tracing::warn!(%error, run = self.run, "a run is not deleted"),
        }
    }
}

/// Reads groups where an iterator stands.
struct Groups<'a> {
    at: DBRawIterator<'a>,
    kinds: &'a [AggregateKind],
    part: Part<'a>,
    over: bool,
}

impl Groups<'_> {
    /// Returns the next group that is read; skips the windows of a key that are not.
    fn take(&mut self) -> Result<Option<(GroupId, GroupState)>, RunError> {
        let broken = |what: &str| RunError(format!("{what} can't be decoded"));
        while let Some((key, state)) = self.at.item() {
            let (rest, window_start) = layout::window_of(key).ok_or_else(|| broken("a key"))?;
            if self.part.windows.contains(&window_start) {
                let key = layout::key_of(rest).ok_or_else(|| broken("a key"))?;
                let state =
                    GroupState::decode(self.kinds, state).map_err(|error| broken(&error.to_string()))?;
                self.at.next();
                return Ok(Some((GroupId { key, window_start }, state)));
            }
            let next = match self.part.windows.0 {
                Bound::Included(first) if window_start < first => layout::at_window(rest, first),
                Bound::Excluded(before) if window_start <= before => layout::at_window(rest, before + 1),
                _ => layout::behind_key(rest),
            };
            self.at.seek(next);
        }
        self.at.status().map_err(failed)?;
        Ok(None)
    }
}

impl Iterator for Groups<'_> {
    type Item = Result<(GroupId, GroupState), RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let found = self.take().transpose();
        self.over = !matches!(found, Some(Ok(_)));
        found
    }
}
