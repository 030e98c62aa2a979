//! One partition: which files it has, what of them is committed, and reading them.
//!
//! ```text
//!   complete files                     active file         recent (memory)
//!   ├ 000…000.log ┤├ 000…731.log ┤├ 000…1502.log ┄┄┄┄┄┄▶     ┊        ┊
//!   start                                      len: committed bytes   end
//! ```
//!
//! The writer alone appends; it publishes here what is durable. Readers see nothing else.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::disk::{delete, failed, file_path};
use super::frame::{
    FRAME_BYTES, Flaw, Frame, Index, Kind, TRAILER_BYTES, decode, decode_index, decode_trailer,
};
use super::recent::Recent;
use super::scan::scan;
use crate::take::{Limit, Take};
use crate::{Batch, LogError, Record, Result};

/// Indexes of complete files kept in memory, for readers far from the end.
const INDEXES_MAX: usize = 4;
/// Least and most bytes that are read from disk at once, unless one record is larger.
const CHUNK_BYTES_MIN: usize = 64 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The state that the writer and the readers of a partition share.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) dir: PathBuf,
    pub(super) retention_bytes: Option<u64>,
    state: Mutex<State>,
    end: watch::Sender<u64>,
    indexes: Mutex<VecDeque<(u64, Arc<Index>)>>,
    /// Held while files are deleted: always the oldest first, so that no crash leaves a gap.
    deleting: Mutex<()>,
}

#[derive(Debug)]
struct State {
    complete: VecDeque<Complete>,
    active: Active,
    end: u64,
    recent: Recent,
}

/// A file that is no longer written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    pub(super) base: u64,
    pub(super) end: u64,
    pub(super) bytes: u64,
}

/// The file that is written to, as far as it is committed.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) base: u64,
    pub(super) file: Arc<File>,
    pub(super) index: Index,
    pub(super) len: u64,
}

/// What a read needs to go to disk.
#[derive(Debug)]
pub(super) struct Lookup {
    base: u64,
    /// The active file, open; a complete one is opened by the read.
    active: Option<Arc<File>>,
    /// A frame at or before the one wanted: its offset and position; for the active file.
    near: (u64, u64),
    /// Committed bytes of the file and the offset they end at.
    len: u64,
    file_end: u64,
    /// End of the partition.
    end: u64,
}

/// Where a read is served from.
#[derive(Debug)]
pub(super) enum Found {
    Now(Batch),
    OnDisk(Lookup),
}

impl Partition {
    pub(super) fn new(
        (topic, partition, dir): (&str, u32, PathBuf),
        retention_bytes: Option<u64>,
        (complete, active, end): (VecDeque<Complete>, Active, u64),
        recent_bytes_max: usize,
    ) -> Self {
        let recent = Recent::new(recent_bytes_max);
        Self {
            topic: topic.to_owned(),
            partition,
            dir,
            retention_bytes,
            state: Mutex::new(State { complete, active, end, recent }),
            end: watch::Sender::new(end),
            indexes: Mutex::default(),
            deleting: Mutex::default(),
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.state.lock().start()
    }

    /// Returns the memory of the newest records.
    pub(super) fn recent_bytes(&self) -> usize {
        self.state.lock().recent.bytes()
    }

    pub(super) fn end(&self) -> u64 {
        self.state.lock().end
    }

    pub(super) fn watch_end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Makes records visible that are durable: the active file is committed up to `len`.
    pub(super) fn publish(&self, records: Vec<Record>, index: &[(u64, u64)], len: u64) {
        let mut state = self.state.lock();
        for (offset, position) in index {
            state.active.index.note(*offset, *position);
        }
        state.active.len = len;
        state.end = records.last().map_or(state.end, |last| last.offset + 1);
        state.recent.extend(records);
        // Sent while locked, so that it never steps back.
        self.end.send_replace(state.end);
    }

    /// Gives the index of the active file, to write its footer.
    pub(super) fn active_index(&self) -> Index {
        self.state.lock().active.index.clone()
    }

    /// Makes `next` the active file; the one before it is complete with `bytes` bytes.
    pub(super) fn roll(&self, bytes: u64, next: Active) {
        let mut state = self.state.lock();
        let end = state.end;
        let before = std::mem::replace(&mut state.active, next);
        state.complete.push_back(Complete { base: before.base, end, bytes });
    }

    /// Refuses a position outside `[start, end]`.
    pub(super) fn check(&self, from: u64) -> Result<()> {
        self.check_in(&self.state.lock(), from)
    }

    fn check_in(&self, state: &State, from: u64) -> Result<()> {
        let (topic, partition, start) = (self.topic.clone(), self.partition, state.start());
        if from < start {
            return Err(LogError::Truncated { topic, partition, from, start });
        }
        if from > state.end {
            return Err(LogError::BeyondEnd { topic, partition, from, end: state.end });
        }
        Ok(())
    }

    /// Serves a read from memory, or says where on disk to look.
    pub(super) fn find(&self, from: u64, limit: &Limit) -> Result<Found> {
        let state = self.state.lock();
        self.check_in(&state, from)?;
        let end = state.end;
        if from == end || limit.records_max == 0 {
            return Ok(Found::Now(Batch { records: Vec::new(), next: from, end }));
        }
        if let Some(batch) = state.recent.read(from, end, limit) {
            return Ok(Found::Now(batch));
        }
        let active = &state.active;
        if from >= active.base {
            let (near, file) = (active.index.before(from, active.base), active.file.clone());
            let (base, len) = (active.base, active.len);
            let active = Some(file);
            return Ok(Found::OnDisk(Lookup { base, active, near, len, file_end: end, end }));
        }
        let at = state.complete.partition_point(|file| file.base <= from) - 1;
        let Complete { base, end: file_end, bytes: len } = state.complete[at];
        Ok(Found::OnDisk(Lookup { base, active: None, near: (0, 0), len, file_end, end }))
    }

    /// Reads from disk, to the end of one file at most. Blocks.
    pub(super) fn read_disk(&self, lookup: Lookup, from: u64, limit: Limit) -> Result<Batch> {
        let path = file_path(&self.dir, lookup.base);
        let complete = match lookup.active {
            Some(_) => None,
            None => Some(File::open(&path)),
        };
        let (file, near) = match (&lookup.active, complete) {
            (Some(active), _) => (active.clone(), lookup.near),
            (None, Some(Ok(file))) => {
                let index = self.index(&file, lookup.base, lookup.len)?;
                (Arc::new(file), index.before(from, lookup.base))
            }
            (None, Some(Err(error))) => {
                // Deleted since it was looked up, or an error to tell.
                self.check(from)?;
                return Err(failed("open", &path, error));
            }
            (None, None) => unreachable!("a file that isn't active was opened"),
        };
        let end = lookup.end;
        let mut frames = Frames::new(&file, path, near, &lookup, limit);
        let mut take = Take::new(from, limit);
        while take.next() < lookup.file_end {
            let (frame, bytes) = frames.next()?;
            if frame.offset < from {
                continue;
            }
            let key = (frame.kind == Kind::Keyed).then(|| bytes.slice(frame.key.clone()));
            let (offset, append_time_us) = (frame.offset, frame.append_time_us);
            let payload = bytes.slice(frame.payload);
            let record = Record { offset, append_time_us, key, payload };
            if !take.fits(record.bytes()) {
                break;
            }
            take.push(record);
        }
        Ok(take.batch(end))
    }

    /// Gives the index of a complete file: as kept, from its footer, or made anew.
    fn index(&self, file: &File, base: u64, len: u64) -> Result<Arc<Index>> {
        let kept = {
            let mut indexes = self.indexes.lock();
            let at = indexes.iter().position(|(kept, _)| *kept == base);
            let entry = at.and_then(|at| indexes.remove(at));
            entry.inspect(|entry| indexes.push_front(entry.clone()))
        };
        if let Some((_, index)) = kept {
            return Ok(index);
        }
        let path = file_path(&self.dir, base);
        let index = match read_footer(file, len).map_err(|e| failed("read", &path, e))? {
            Some(index) => index,
            None => {
                tracing::warn!(path = %path.display(), "the index is damaged, it is made anew");
                let bytes = std::fs::read(&path).map_err(|e| failed("read", &path, e))?;
                let found = scan(&bytes, base).map_err(|damage| LogError::Corrupt {
                    path: path.clone(),
                    position: damage.position,
                    what: damage.what,
                })?;
                found.index
            }
        };
        let index = Arc::new(index);
        let mut indexes = self.indexes.lock();
        indexes.push_front((base, index.clone()));
        indexes.truncate(INDEXES_MAX);
        Ok(index)
    }

    /// Deletes the complete files that hold nothing from `before` on. Blocks.
    pub(super) fn trim(&self, before: u64) -> Result<()> {
        self.delete_while(|file, _| file.end <= before)
    }

    /// Deletes the oldest complete files while there is more than may be kept. Blocks.
    pub(super) fn retain(&self) -> Result<()> {
        match self.retention_bytes {
            Some(bytes_max) => self.delete_while(|_, bytes| bytes > bytes_max),
            None => Ok(()),
        }
    }

    fn delete_while(&self, delete_it: impl Fn(&Complete, u64) -> bool) -> Result<()> {
        let _one_at_a_time = self.deleting.lock();
        loop {
            let oldest = {
                let mut state = self.state.lock();
                let bytes = state.complete.iter().map(|file| file.bytes).sum::<u64>();
                let bytes = bytes + state.active.len;
                match state.complete.front() {
                    Some(oldest) if delete_it(oldest, bytes) => {}
                    _ => return Ok(()),
                }
                // Gone for readers first; those that have the file open finish undisturbed.
                state.complete.pop_front()
            };
            if let Some(oldest) = oldest
                && let Err(error) = delete(&file_path(&self.dir, oldest.base))
            {
                // A later file must not go before this one.
                self.state.lock().complete.push_front(oldest);
                return Err(error);
            }
        }
    }
}

impl State {
    fn start(&self) -> u64 {
        self.complete.front().map_or(self.active.base, |oldest| oldest.base)
    }
}

/// Reads the index in a complete file's footer; nothing where it is damaged.
fn read_footer(file: &File, len: u64) -> std::io::Result<Option<Index>> {
    let Some((_, position)) = read_trailer(file, len)? else {
        return Ok(None);
    };
    let Some(bytes) = len.checked_sub(position) else {
        return Ok(None);
    };
    let mut footer = vec![0; usize::try_from(bytes).expect("files are smaller than memory")];
    file.read_exact_at(&mut footer, position)?;
    Ok(decode(&footer).ok().and_then(|frame| decode_index(&footer, &frame)))
}

/// Reads the trailer of a complete file: its end offset and its footer's position.
pub(super) fn read_trailer(file: &File, len: u64) -> std::io::Result<Option<(u64, u64)>> {
    let mut trailer = [0; TRAILER_BYTES];
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    file.read_exact_at(&mut trailer, at)?;
    Ok(decode_trailer(&trailer))
}

/// Walks the records of a file from a known frame on, checking each.
struct Frames<'a> {
    file: &'a File,
    path: PathBuf,
    /// Offset that the next record must have.
    offset: u64,
    /// Position in the file of the next frame.
    position: u64,
    len: u64,
    chunk: Bytes,
    chunk_bytes: usize,
}

impl<'a> Frames<'a> {
    fn new(file: &'a File, path: PathBuf, near: (u64, u64), lookup: &Lookup, limit: Limit) -> Self {
        let (offset, position) = near;
        let wanted = limit.bytes_max.saturating_add(CHUNK_BYTES_MIN);
        let chunk_bytes = wanted.min(CHUNK_BYTES_MAX);
        Self { file, path, offset, position, len: lookup.len, chunk: Bytes::new(), chunk_bytes }
    }

    /// Gives the next record's frame and the bytes that its ranges are in.
    fn next(&mut self) -> Result<(Frame, Bytes)> {
        loop {
            let frame = self.frame()?;
            let bytes = self.chunk.split_to(frame.len);
            if frame.offset != self.offset || frame.kind == Kind::Footer {
                let what = format!("offset {} where record {} belongs", frame.offset, self.offset);
                return Err(self.corrupt(what));
            }
            self.position += frame.len as u64;
            if matches!(frame.kind, Kind::Keyed | Kind::Unkeyed) {
                self.offset += 1;
                return Ok((frame, bytes));
            }
        }
    }

    fn frame(&mut self) -> Result<Frame> {
        match decode(&self.chunk) {
            Ok(frame) => Ok(frame),
            Err(Flaw::Short(bytes)) => {
                self.fill(bytes.max(FRAME_BYTES))?;
                decode(&self.chunk).or_else(|flaw| match flaw {
                    Flaw::Short(bytes) => {
                        self.fill(bytes)?;
                        decode(&self.chunk).map_err(|flaw| self.corrupt(flaw.to_string()))
                    }
                    flaw => Err(self.corrupt(flaw.to_string())),
                })
            }
            Err(flaw) => Err(self.corrupt(flaw.to_string())),
        }
    }

    /// Reads a chunk from the next frame on, of at least `bytes`.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let left = self.len.saturating_sub(self.position);
        if (bytes as u64) > left {
            return Err(self.corrupt(Flaw::Short(bytes).to_string()));
        }
        let bytes = bytes.max(self.chunk_bytes).min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut chunk = vec![0; bytes];
        self.file.read_exact_at(&mut chunk, self.position).map_err(|e| failed("read", &self.path, e))?;
        self.chunk = Bytes::from(chunk);
        Ok(())
    }

    fn corrupt(&self, what: String) -> LogError {
        LogError::Corrupt { path: self.path.clone(), position: self.position, what }
    }
}
