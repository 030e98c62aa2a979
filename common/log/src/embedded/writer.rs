//! The one thread that appends to a partition: takes what waits, writes it, syncs once, publishes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::disk::{failed, file_path, write_whole};
use super::frame::{Content, FRAME_BYTES, HEADER_BYTES, Index, Kind, encode, encode_footer, encode_header};
use super::partition::{Active, Partition};
use super::{Durability, EmbeddedConfig};
use crate::{Append, LogError, Record, Result};

/// Bytes after which a group takes no further request.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// One append, waiting.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) records: Vec<Append>,
    pub(super) reply: oneshot::Sender<Result<Range<u64>>>,
    /// Room in the queue, given back when the request is done.
    pub(super) room: OwnedSemaphorePermit,
}

/// What the writers of a log have done since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) records: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
}

/// Appends to the active file of a partition.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Partition>,
    config: Arc<EmbeddedConfig>,
    counters: Arc<Counters>,
    base: u64,
    file: Arc<File>,
    /// Bytes of the file that are committed.
    len: u64,
    /// Bytes of the file that are known to be durable; at most `len`.
    durable: u64,
    next: u64,
    sealed: bool,
    /// What a failed write may have left behind and must go before the next.
    leftovers: Leftovers,
}

#[derive(Debug, Default)]
struct Leftovers {
    tail: bool,
    file: Option<PathBuf>,
}

/// A group of requests as frames.
struct Group {
    frames: Bytes,
    /// Offset and position in the file of each record's frame.
    index: Vec<(u64, u64)>,
    records: Vec<Record>,
}

impl Writer {
    /// Takes over a file that is whole and durable up to `len`.
    pub(super) fn new(
        shared: Arc<Partition>,
        config: Arc<EmbeddedConfig>,
        counters: Arc<Counters>,
        (base, file, len): (u64, Arc<File>, u64),
        sealed: bool,
    ) -> Self {
        let (next, durable) = (shared.end(), len);
        let leftovers = Leftovers::default();
        Self { shared, config, counters, base, file, len, durable, next, sealed, leftovers }
    }

    /// Serves the queue until the log is closed.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let group = collect(first, &mut queue);
            self.commit(group);
        }
        self.seal();
    }

    /// Notes in the file that all of it is durable, so that later damage can't look like a torn end.
    pub(super) fn seal(&mut self) {
        if self.sealed {
            return;
        }
        let result = self.restore().and_then(|()| {
            let mut frame = Vec::with_capacity(FRAME_BYTES);
            let (kind, back, offset) = (Kind::Seal, self.back(self.len), self.next);
            let (append_time_us, key, payload) = (0, &[][..], &[][..]);
            encode(&mut frame, &Content { kind, back, offset, append_time_us, key, payload });
            self.write(&frame, true)
        });
        match result {
            Ok(()) => {
                self.sealed = true;
                self.shared.publish(Vec::new(), &[], self.len);
            }
            // Nothing is lost by it, only a later check is weaker.
            Err(error) => {
                let (topic, partition) = (&self.shared.topic, self.shared.partition);
                tracing::warn!(topic, partition, %error, "log file not sealed");
            }
        }
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let time_us = (self.config.clock)();
        match self.append(&requests, time_us) {
            Ok(records) => {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters.records.fetch_add(records, Ordering::Relaxed);
                let mut first = self.next - records;
                for Request { records, reply, room } in requests {
                    let end = first + records.len() as u64;
                    // A caller that went away left it open whether its batch was appended.
                    let _ = reply.send(Ok(first..end));
                    drop(room);
                    first = end;
                }
            }
            Err(error) => {
                let (topic, partition) = (&self.shared.topic, self.shared.partition);
                tracing::warn!(topic, partition, %error, "append failed");
                for request in requests {
                    let _ = request.reply.send(Err(again(&error)));
                }
            }
        }
    }

    /// Appends a group, makes it durable and visible, and gives the number of records.
    fn append(&mut self, requests: &[Request], time_us: i64) -> Result<u64> {
        self.restore()?;
        let bytes = requests.iter().flat_map(|r| &r.records).map(|r| FRAME_BYTES + r.bytes());
        let bytes = bytes.sum::<usize>();
        let full = self.len + bytes as u64 > self.config.file_bytes;
        if full && self.next > self.base {
            self.roll()?;
        }
        let group = self.encode(requests, bytes, time_us);
        self.write(&group.frames, self.config.durability == Durability::Sync)?;
        self.sealed = false;
        let records = group.records.len() as u64;
        self.next += records;
        self.shared.publish(group.records, &group.index, self.len);
        Ok(records)
    }

    fn encode(&self, requests: &[Request], bytes: usize, time_us: i64) -> Group {
        let mut frames = Vec::with_capacity(bytes);
        let mut index = Vec::new();
        let mut places = Vec::new();
        let appends = requests.iter().flat_map(|r| &r.records);
        for (offset, append) in (self.next..).zip(appends) {
            let at = frames.len();
            let (kind, key) = match &append.key {
                Some(key) => (Kind::Keyed, &key[..]),
                None => (Kind::Unkeyed, &[][..]),
            };
            let position = self.len + at as u64;
            let (back, payload) = (self.back(position), &append.payload[..]);
            let append_time_us = time_us;
            encode(&mut frames, &Content { kind, back, offset, append_time_us, key, payload });
            index.push((offset, position));
            let key_end = at + FRAME_BYTES + key.len();
            places.push((append.key.is_some(), at + FRAME_BYTES, key_end, frames.len()));
        }
        let frames = Bytes::from(frames);
        let record = |(offset, (keyed, key, payload, end)): (u64, (bool, usize, usize, usize))| {
            // Slices of what is written, not the caller's bytes: those may pin a larger buffer.
            let key = keyed.then(|| frames.slice(key..payload));
            let payload = frames.slice(payload..end);
            Record { offset, append_time_us: time_us, key, payload }
        };
        let records = (self.next..).zip(places).map(record).collect();
        Group { frames, index, records }
    }

    /// Distance from `position` back to what is durable.
    fn back(&self, position: u64) -> u32 {
        // What is further back than this can tell is taken as not vouched for, which is safe.
        u32::try_from(position - self.durable).unwrap_or(u32::MAX)
    }

    /// Writes at the end of what is committed and commits it; on an error nothing is committed.
    fn write(&mut self, frames: &[u8], sync: bool) -> Result<()> {
        let path = || file_path(&self.shared.dir, self.base);
        let written = self.file.write_all_at(frames, self.len);
        let written = written.and_then(|()| if sync { self.sync() } else { Ok(()) });
        if let Err(source) = written {
            let error = failed("append to", &path(), source);
            return Err(self.undo(error));
        }
        self.len += frames.len() as u64;
        if sync {
            self.durable = self.len;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    /// Takes back a failed write; where even that fails, what became of it is unknown.
    fn undo(&mut self, error: LogError) -> LogError {
        self.leftovers.tail = true;
        match self.restore() {
            Ok(()) => error,
            Err(second) => LogError::Indeterminate {
                topic: self.shared.topic.clone(),
                partition: self.shared.partition,
                reason: format!("{error}; and taking it back: {second}"),
            },
        }
    }

    /// Removes what a failed write left behind, so that the file ends with what is committed.
    fn restore(&mut self) -> Result<()> {
        if let Some(path) = &self.leftovers.file {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", path, e));
                }
                _ => self.leftovers.file = None,
            }
        }
        if self.leftovers.tail {
            let cut = self.file.set_len(self.len).and_then(|()| self.sync());
            cut.map_err(|e| failed("cut back", &file_path(&self.shared.dir, self.base), e))?;
            self.leftovers.tail = false;
        }
        Ok(())
    }

    /// Completes the active file and starts the next.
    fn roll(&mut self) -> Result<()> {
        let mut footer = Vec::new();
        let (index, back) = (self.shared.active_index(), self.back(self.len));
        encode_footer(&mut footer, &index, self.next, self.len, back);
        let written = self.file.write_all_at(&footer, self.len).and_then(|()| self.sync());
        let path = file_path(&self.shared.dir, self.base);
        if let Err(source) = written {
            return Err(self.undo(failed("complete", &path, source)));
        }
        let next_path = file_path(&self.shared.dir, self.next);
        let header = encode_header(&self.shared.topic, self.shared.partition, self.next);
        let file = match write_whole(&next_path, &header) {
            Ok(file) => Arc::new(file),
            Err(error) => {
                self.leftovers.file = Some(next_path);
                return Err(self.undo(error));
            }
        };
        let complete = self.len + footer.len() as u64;
        (self.base, self.len, self.file) = (self.next, HEADER_BYTES as u64, file.clone());
        self.durable = self.len;
        let (base, len, index) = (self.base, self.len, Index::default());
        self.shared.roll(complete, Active { base, file, index, len });
        if let Err(error) = self.shared.retain() {
            // The append itself is fine; the file is tried again at the next roll or start.
            let (topic, partition) = (&self.shared.topic, self.shared.partition);
            tracing::warn!(topic, partition, %error, "old log file not deleted");
        }
        Ok(())
    }
}

/// Takes what else waits in the queue, as far as one group may grow.
fn collect(first: Request, queue: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let size = |request: &Request| request.records.iter().map(Append::bytes).sum::<usize>();
    let mut bytes = size(&first);
    let mut group = vec![first];
    while bytes < GROUP_BYTES_MAX
        && let Ok(request) = queue.try_recv()
    {
        bytes += size(&request);
        group.push(request);
    }
    group
}

/// Tells the same error to one more caller.
fn again(error: &LogError) -> LogError {
    let copy = |source: &io::Error| match source.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(source.kind(), source.to_string()),
    };
    match error {
        LogError::Full { path, source } => LogError::Full { path: path.clone(), source: copy(source) },
        LogError::Io { action, path, source } => {
            LogError::Io { action, path: path.clone(), source: copy(source) }
        }
        LogError::Indeterminate { topic, partition, reason } => {
            LogError::Indeterminate { topic: topic.clone(), partition: *partition, reason: reason.clone() }
        }
        other => LogError::Refused { action: "append", reason: other.to_string() },
    }
}
