//! Topics on disk: making one, and opening its partitions after any kind of end.
//!
//! ```text
//!   DIR/~lock                      held by the process that has the log open
//!   DIR/TOPIC/topic.json           written last: without it the topic was never made
//!   DIR/TOPIC/PARTITION/BASE.log   20 digits: offset of the first record
//! ```

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::EmbeddedConfig;
use super::disk::{UNFINISHED, create_dir, failed, file_base, file_path, names, sync_dir, write_whole};
use super::frame::{HEADER_BYTES, Index, check_header, encode_header};
use super::partition::{Active, Complete, Partition, read_trailer};
use super::scan::{Ending, Scan, scan};
use super::writer::{Counters, Request, Writer};
use crate::{LogError, Result, TopicSpec};

const FORMAT: u32 = 1;
const SPEC_FILE: &str = "topic.json";
/// Appends that may wait for one partition, besides the limit on their bytes.
/// Most log partitions that are opened at a time: the newest file of each is read whole.
const OPENED_AT_ONCE_MAX: usize = 4;
const REQUESTS_MAX: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecFile {
    format: u32,
    topic: String,
    partitions: u32,
    retention_bytes: Option<u64>,
}

/// An open topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) partitions: Vec<Handle>,
}

/// An open partition with its writer.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Partition>,
    pub(super) queue: Option<mpsc::Sender<Request>>,
    /// Bytes that may still be put into the queue.
    pub(super) room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The writer finishes what is queued, seals its file and ends.
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(topic = self.shared.topic, "log writer panicked");
        }
    }
}

/// What the partitions of one log share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) config: Arc<EmbeddedConfig>,
    pub(super) counters: Arc<Counters>,
}

/// Opens every topic in a log's directory.
pub(super) fn open_all(dir: &Path, context: &Context) -> Result<Vec<(String, Topic)>> {
    let mut topics = Vec::new();
    for name in names(dir)? {
        if dir.join(&name).is_dir()
            && let Some(topic) = open(dir, &name, context)?
        {
            topics.push((name, topic));
        }
    }
    Ok(topics)
}

/// Opens a topic; nothing where its making was never finished.
pub(super) fn open(dir: &Path, name: &str, context: &Context) -> Result<Option<Topic>> {
    let topic_dir = dir.join(name);
    let path = topic_dir.join(SPEC_FILE);
    let corrupt = |what: String| LogError::Corrupt { path: path.clone(), position: 0, what };
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if topic_dir.is_dir() && holds_records(&topic_dir)? {
                return Err(corrupt("the file is missing but the topic has records".to_owned()));
            }
            return Ok(None);
        }
        read => read.map_err(|e| failed("read", &path, e))?,
    };
    let spec = serde_json::from_slice::<SpecFile>(&bytes).map_err(|e| corrupt(e.to_string()))?;
    if spec.format != FORMAT || spec.topic != name {
        return Err(corrupt(format!("format {} of topic '{}'", spec.format, spec.topic)));
    }
    let there = names(&topic_dir)?.iter().filter(|n| n.parse::<u32>().is_ok()).count();
    if there != spec.partitions as usize {
        let partitions = spec.partitions;
        return Err(corrupt(format!("{partitions} partitions, but {there} are in the folder")));
    }
    let open = |partition: u32| {
        let place = (name, partition, topic_dir.join(partition.to_string()));
        open_partition(place, spec.retention_bytes, context)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(OPENED_AT_ONCE_MAX);
    let mut partitions = Vec::with_capacity(there);
    while partitions.len() < there {
        let next = (partitions.len()..there).take(threads);
        let opened: Vec<Result<Handle>> = std::thread::scope(|scope| {
            let open = &open;
            let threads: Vec<_> = next.map(|next| scope.spawn(move || open(next as u32))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        partitions.extend(opened.into_iter().collect::<Result<Vec<_>>>()?);
    }
    Ok(Some(Topic { partitions }))
}

/// Makes a topic durably and opens it.
pub(super) fn create(dir: &Path, spec: &TopicSpec, context: &Context) -> Result<Topic> {
    let topic_dir = dir.join(&spec.name);
    create_dir(&topic_dir)?;
    for partition in 0..spec.partitions {
        let partition_dir = topic_dir.join(partition.to_string());
        create_dir(&partition_dir)?;
        write_whole(&file_path(&partition_dir, 0), &encode_header(&spec.name, partition, 0))?;
    }
    // An earlier attempt that was never finished may have been larger.
    for name in names(&topic_dir)? {
        if name.parse::<u32>().is_ok_and(|n| n >= spec.partitions) {
            let path = topic_dir.join(name);
            fs::remove_dir_all(&path).map_err(|e| failed("delete", &path, e))?;
        }
    }
    sync_dir(&topic_dir)?;
    let file = SpecFile {
        format: FORMAT,
        topic: spec.name.clone(),
        partitions: spec.partitions,
        retention_bytes: spec.retention_bytes,
    };
    let mut json = serde_json::to_vec_pretty(&file).expect("plain fields serialize");
    json.push(b'\n');
    write_whole(&topic_dir.join(SPEC_FILE), &json)?;
    let made = open(dir, &spec.name, context)?;
    made.ok_or_else(|| LogError::UnknownTopic { topic: spec.name.clone() })
}

/// Says whether a folder without `topic.json` is more than an unfinished topic.
fn holds_records(topic_dir: &Path) -> Result<bool> {
    for partition in names(topic_dir)?.iter().filter(|n| n.parse::<u32>().is_ok()) {
        let dir = topic_dir.join(partition);
        for name in names(&dir)?.iter().filter(|n| file_base(n).is_some()) {
            let path = dir.join(name);
            let len = path.metadata().map_err(|e| failed("examine", &path, e))?.len();
            if len > HEADER_BYTES as u64 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn open_partition(
    (topic, partition, dir): (&str, u32, PathBuf),
    retention_bytes: Option<u64>,
    context: &Context,
) -> Result<Handle> {
    let mut bases = Vec::new();
    for name in names(&dir)? {
        let path = dir.join(&name);
        match file_base(&name) {
            Some(base) => bases.push(base),
            // A file that was being made when the process ended.
            None if name.ends_with(UNFINISHED) => {
                fs::remove_file(&path).map_err(|e| failed("delete", &path, e))?;
            }
            None => tracing::warn!(path = %path.display(), "unknown file in the log is ignored"),
        }
    }
    let Some(newest) = bases.pop() else {
        let what = "no log file is left in the folder".to_owned();
        return Err(LogError::Corrupt { path: dir, position: 0, what });
    };
    let mut complete = VecDeque::new();
    for (i, base) in bases.iter().enumerate() {
        let end = bases.get(i + 1).copied().unwrap_or(newest);
        complete.push_back(check_complete(&dir, topic, partition, *base, end)?);
    }
    let recovered = recover(&dir, topic, partition, newest)?;
    let Recovered { active, end, completed, sealed } = recovered;
    complete.extend(completed);
    let (base, file, len) = (active.base, active.file.clone(), active.len);
    let recent_bytes = context.config.recent_bytes_max;
    let files = (complete, active, end);
    let place = (topic, partition, dir);
    let shared = Arc::new(Partition::new(place, retention_bytes, files, recent_bytes));
    let Context { config, counters } = context.clone();
    let room = Arc::new(Semaphore::new(config.queue_bytes_max));
    let mut writer = Writer::new(shared.clone(), config, counters, (base, file, len), sealed);
    writer.seal();
    shared.retain()?;
    let (queue, requests) = mpsc::channel(REQUESTS_MAX);
    let thread = std::thread::Builder::new().name(format!("log {topic}/{partition}"));
    let run = thread.spawn(move || writer.run(requests));
    let run = run.map_err(|e| failed("start writer of", &shared.dir, e))?;
    Ok(Handle { shared, queue: Some(queue), room, writer: Some(run) })
}

/// Checks a file that isn't the newest: it must reach to the next without a gap.
fn check_complete(dir: &Path, topic: &str, partition: u32, base: u64, end: u64) -> Result<Complete> {
    let path = file_path(dir, base);
    let corrupt = |position, what| LogError::Corrupt { path: path.clone(), position, what };
    let file = File::open(&path).map_err(|e| failed("open", &path, e))?;
    let bytes = file.metadata().map_err(|e| failed("examine", &path, e))?.len();
    let mut header = [0; HEADER_BYTES];
    if bytes >= HEADER_BYTES as u64 {
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut header, 0)
            .map_err(|e| failed("read", &path, e))?;
    }
    check_header(&header, topic, partition, base).map_err(|what| corrupt(0, what.to_owned()))?;
    let trailer = read_trailer(&file, bytes).map_err(|e| failed("read", &path, e))?;
    if trailer.is_some_and(|(found, _)| found == end) {
        return Ok(Complete { base, end, bytes });
    }
    // Its last bytes are damaged, or it isn't complete: the records decide.
    let content = fs::read(&path).map_err(|e| failed("read", &path, e))?;
    let found = scan(&content, base).map_err(|d| corrupt(d.position, d.what))?;
    if found.end != end {
        let what = format!("its records end at offset {}, the next file starts at {end}", found.end);
        return Err(corrupt(found.len as u64, what));
    }
    tracing::warn!(path = %path.display(), "the index of a log file is damaged; its records are whole");
    Ok(Complete { base, end, bytes })
}

struct Recovered {
    active: Active,
    end: u64,
    /// The newest file where it turned out to be complete; `active` is new then.
    completed: Option<Complete>,
    sealed: bool,
}

/// Finds where the newest file ends and makes that durable.
fn recover(dir: &Path, topic: &str, partition: u32, base: u64) -> Result<Recovered> {
    let path = file_path(dir, base);
    let corrupt = |position, what| LogError::Corrupt { path: path.clone(), position, what };
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(|e| failed("open", &path, e))?;
    let content = fs::read(&path).map_err(|e| failed("read", &path, e))?;
    check_header(&content, topic, partition, base).map_err(|what| corrupt(0, what.to_owned()))?;
    let found = scan(&content, base).map_err(|d| corrupt(d.position, d.what))?;
    let Scan { index, end, len, ending } = found;
    if ending == Ending::Footer {
        let completed = Some(Complete { base, end, bytes: content.len() as u64 });
        let header = encode_header(topic, partition, end);
        let file = Arc::new(write_whole(&file_path(dir, end), &header)?);
        let (index, len) = (Index::default(), HEADER_BYTES as u64);
        let active = Active { base: end, file, index, len };
        return Ok(Recovered { active, end, completed, sealed: true });
    }
    if let Ending::Torn(flaw) = ending {
        let bytes_cut = content.len() - len;
        tracing::warn!(
            topic, partition, end, bytes_cut, reason = %flaw, path = %path.display(),
            "log cut back to its last whole record: the last write was never finished"
        );
        file.set_len(len as u64).map_err(|e| failed("cut back", &path, e))?;
    }
    // Whole records may be in the page cache only; nobody may see them before they are durable.
    file.sync_data().map_err(|e| failed("sync", &path, e))?;
    // An empty file needs no seal: there is nothing to vouch for.
    let sealed = ending == Ending::Sealed || len == HEADER_BYTES;
    let active = Active { base, file: Arc::new(file), index, len: len as u64 };
    Ok(Recovered { active, end, completed: None, sealed })
}
