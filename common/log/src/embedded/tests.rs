//! Tests of what only the embedded log promises.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::contract::read_all;
use crate::{Record, open};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("start a runtime")
}

/// The contract, each time with small files, so that every case crosses several.
mod contract_with_small_files {
    use super::*;

    fn with_log(_case: &str, run: impl AsyncFnOnce(&dyn Log, &str)) {
        let dir = TempDir::new().expect("make a directory");
        let config = EmbeddedConfig { file_bytes: 700, recent_bytes_max: 0, ..EmbeddedConfig::default() };
        let log = EmbeddedLog::open_with(dir.path(), config).expect("open");
        runtime().block_on(run(&log, "readings"));
    }

    crate::log_contract!(with_log);
}

mod contract_with_default_settings {
    use super::*;

    fn with_log(_case: &str, run: impl AsyncFnOnce(&dyn Log, &str)) {
        let dir = TempDir::new().expect("make a directory");
        let log = EmbeddedLog::open(dir.path()).expect("open");
        runtime().block_on(run(&log, "readings"));
    }

    crate::log_contract!(with_log);
}

mod properties;
mod queue;

/// A log that is made, filled, closed and opened again.
struct Bench {
    runtime: Runtime,
    dir: TempDir,
    config: EmbeddedConfig,
}

impl Bench {
    fn new(file_bytes: u64) -> Self {
        let clock = Arc::new(|| 1_700_000_000_000_000);
        let recent_bytes_max = 0;
        let config = EmbeddedConfig { file_bytes, recent_bytes_max, clock, ..EmbeddedConfig::default() };
        Self { runtime: runtime(), dir: TempDir::new().expect("make a directory"), config }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn open(&self) -> Result<EmbeddedLog> {
        self.open_copy(&self.path())
    }

    fn open_copy(&self, path: &Path) -> Result<EmbeddedLog> {
        let log = EmbeddedLog::open_with(path, self.config.clone())?;
        self.runtime.block_on(log.ensure_topic(&TopicSpec::new("t", 1)))?;
        Ok(log)
    }

    fn append(&self, log: &EmbeddedLog, payloads: &[&str]) -> Result<Vec<u64>> {
        let records = payloads.iter().map(|p| Append::keyed("k", p.to_string())).collect();
        self.runtime.block_on(log.append("t", 0, records))
    }

    fn read(&self, log: &EmbeddedLog) -> Vec<String> {
        let read = self.runtime.block_on(async {
            let start = log.start_offset("t", 0).await.expect("start");
            read_all(log, "t", 0, start).await
        });
        read.iter().map(payload).collect()
    }

    /// Reads until the end or the first error.
    fn try_read(&self, log: &EmbeddedLog) -> Result<Vec<String>> {
        let mut all = Vec::new();
        self.runtime.block_on(async {
            let mut from = log.start_offset("t", 0).await?;
            loop {
                let batch = log.read("t", 0, from, 1000, 1 << 20).await?;
                all.extend(batch.records.iter().map(payload));
                from = batch.next;
                if batch.next == batch.end {
                    return Ok(());
                }
            }
        })?;
        Ok(all)
    }

    fn files(&self) -> Vec<PathBuf> {
        log_files(&self.path())
    }
}

fn payload(record: &Record) -> String {
    String::from_utf8(record.payload.to_vec()).expect("payloads are text")
}

fn log_files(log: &Path) -> Vec<PathBuf> {
    let dir = log.join("t/0");
    let mut files: Vec<_> = fs::read_dir(dir).expect("list").map(|e| e.expect("list").path()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("list");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copy");
        }
    }
}

#[test]
fn records_and_topics_outlive_the_log_value() {
    let bench = Bench::new(300);
    let mut expected = Vec::new();
    for round in 0..5 {
        let log = bench.open().expect("open");
        assert_eq!(bench.read(&log), expected);
        for i in 0..7 {
            let payload = format!("{round} {i}");
            let offsets = bench.append(&log, &[&payload, "x"]).expect("append");
            assert_eq!(offsets[0], expected.len() as u64);
            expected.extend([payload, "x".to_owned()]);
        }
    }
    let log = bench.open().expect("open");
    assert_eq!(bench.read(&log), expected);
    assert!(bench.files().len() > 5, "the test crosses files");
    let all = bench.runtime.block_on(read_all(&log, "t", 0, 0));
    assert!(all.iter().all(|r| r.append_time_us == 1_700_000_000_000_000));
}

#[test]
fn a_second_process_is_refused_while_the_first_has_the_log() {
    let bench = Bench::new(1000);
    let log = bench.open().expect("open");
    let second = bench.open();
    assert!(matches!(second, Err(LogError::Locked { .. })), "{second:?}");
    drop(log);
    bench.open().expect("open after the first is gone");
}

#[test]
fn an_address_names_the_directory() {
    let bench = Bench::new(1000);
    drop(bench.open().expect("open"));
    let log = open(&format!("embedded:{}", bench.path().display())).expect("open");
    assert_eq!(bench.runtime.block_on(log.partitions("t")).expect("partitions"), 1);
    assert!(matches!(open("embedded:"), Err(LogError::Address { .. })));
    assert!(matches!(open("floppy:a"), Err(LogError::Address { .. })));
}

/// Copies the files while the log is open, as a crash would leave them: without the last seal.
fn crashed(bench: &Bench, appends: &[&[&str]]) -> PathBuf {
    let log = bench.open().expect("open");
    for batch in appends {
        bench.append(&log, batch).expect("append");
    }
    let copied = bench.dir.path().join("crashed");
    copy(&bench.path(), &copied);
    drop(log);
    copied
}

#[test]
fn a_torn_tail_is_cut_at_every_length_and_nothing_before_it_is_lost() {
    let bench = Bench::new(1 << 20);
    let crashed = crashed(&bench, &[&["first", "second"], &["third, longer"], &["a", "bc", ""]]);
    let everything = ["first", "second", "third, longer", "a", "bc", ""];
    let file = log_files(&crashed).pop().expect("a file");
    let whole = fs::read(&file).expect("read");
    let mut whole_records = 0;
    let mut frame_ends = Vec::new();
    let mut at = frame::HEADER_BYTES;
    while at < whole.len() {
        at += frame::decode(&whole[at..]).expect("frames are whole").len;
        frame_ends.push(at);
    }
    assert_eq!(frame_ends.len(), everything.len());
    for len in frame::HEADER_BYTES..=whole.len() {
        while whole_records < frame_ends.len() && frame_ends[whole_records] <= len {
            whole_records += 1;
        }
        let torn = bench.dir.path().join(format!("torn-{len}"));
        copy(&crashed, &torn);
        let file = log_files(&torn).pop().expect("a file");
        fs::write(&file, &whole[..len]).expect("write");
        let log = bench.open_copy(&torn).expect("open");
        assert_eq!(bench.read(&log), everything[..whole_records], "cut at {len}");
        let offsets = bench.append(&log, &["after"]).expect("append");
        assert_eq!(offsets, [whole_records as u64]);
        drop(log);
        let log = bench.open_copy(&torn).expect("open again");
        assert_eq!(bench.read(&log).len(), whole_records + 1);
        drop(log);
        fs::remove_dir_all(torn).expect("delete");
    }
}

#[test]
fn a_tail_of_zeros_or_of_an_unfinished_group_is_cut() {
    let bench = Bench::new(1 << 20);
    let crashed = crashed(&bench, &[&["kept"], &["a", "b", "c"]]);
    let file = log_files(&crashed).pop().expect("a file");
    let whole = fs::read(&file).expect("read");
    let kept = frame::HEADER_BYTES + frame::FRAME_BYTES + "k".len() + "kept".len();
    let mut zeros = whole.clone();
    zeros.resize(whole.len() + 5000, 0);
    // The first record of the last group never reached the disk, the others did.
    let mut hole = whole.clone();
    hole[kept..kept + 20].fill(0);
    for (content, expected) in [(zeros, vec!["kept", "a", "b", "c"]), (hole, vec!["kept"])] {
        let torn = bench.dir.path().join("torn");
        copy(&crashed, &torn);
        fs::write(log_files(&torn).pop().expect("a file"), content).expect("write");
        let log = bench.open_copy(&torn).expect("open");
        assert_eq!(bench.read(&log), expected);
        drop(log);
        fs::remove_dir_all(torn).expect("delete");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_or_harmless() {
    let bench = Bench::new(250);
    let log = bench.open().expect("open");
    let mut expected = Vec::new();
    for i in 0..12 {
        let payload = format!("payload {i}");
        bench.append(&log, &[&payload]).expect("append");
        expected.push(payload);
    }
    drop(log);
    let files = bench.files();
    assert!(files.len() > 2, "the test needs complete files and an active one");
    let mut refused = 0;
    for (n, file) in files.iter().enumerate() {
        let whole = fs::read(file).expect("read");
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            let copied = bench.dir.path().join("flipped");
            copy(&bench.path(), &copied);
            fs::write(&log_files(&copied)[n], &flipped).expect("write");
            // The seal at the end of the last file is the one thing that nothing vouches for.
            let seal = n + 1 == files.len() && at >= whole.len() - frame::FRAME_BYTES;
            match bench.open_copy(&copied).and_then(|log| bench.try_read(&log)) {
                Ok(read) => assert_eq!(read, expected, "byte {at} of file {n} went unnoticed"),
                Err(LogError::Corrupt { .. }) if !seal => refused += 1,
                Err(other) => panic!("byte {at} of file {n}: {other}"),
            }
            fs::remove_dir_all(copied).expect("delete");
        }
    }
    assert!(refused > 300, "damage to records is refused, not healed: {refused}");
}

#[test]
fn a_copy_taken_while_appends_go_on_opens_with_everything_acknowledged_before() {
    let bench = Bench::new(1 << 30);
    let log = bench.open().expect("open");
    let acknowledged = std::sync::atomic::AtomicU64::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut i = 0;
            while !stop.load(Ordering::Acquire) {
                let (a, b) = (i.to_string(), format!("{}", i + 1));
                bench.append(&log, &[&a, &b]).expect("append");
                i += 2;
                acknowledged.store(i, Ordering::Release);
            }
        });
        for round in 0..20 {
            let before = acknowledged.load(Ordering::Acquire);
            let copied = bench.dir.path().join(format!("copy-{round}"));
            copy(&bench.path(), &copied);
            let opened = bench.open_copy(&copied).expect("open the copy");
            let read = bench.read(&opened);
            assert!(read.len() as u64 >= before, "round {round}");
            assert!(read.iter().enumerate().all(|(i, payload)| *payload == i.to_string()));
        }
        stop.store(true, Ordering::Release);
    });
}

#[test]
fn what_a_crash_left_half_made_is_removed() {
    let bench = Bench::new(1000);
    let log = bench.open().expect("open");
    bench.append(&log, &["a"]).expect("append");
    drop(log);
    let unfinished = bench.path().join("t/0/00000000000000000001.log~");
    fs::write(&unfinished, b"SANSO").expect("write");
    fs::write(bench.path().join("t/0/notes.txt"), b"a person's").expect("write");
    let log = bench.open().expect("open");
    assert_eq!(bench.read(&log), ["a"]);
    assert!(!unfinished.exists());
    assert!(bench.path().join("t/0/notes.txt").exists(), "what isn't the log's stays");
}

#[test]
fn a_missing_file_is_refused() {
    let bench = Bench::new(200);
    let log = bench.open().expect("open");
    for payload in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
        bench.append(&log, &[payload]).expect("append");
    }
    drop(log);
    let files = bench.files();
    assert!(files.len() >= 3);
    for (n, file) in files.iter().enumerate().skip(1).take(files.len() - 2) {
        let copied = bench.dir.path().join("copied");
        copy(&bench.path(), &copied);
        fs::remove_file(copied.join("t/0").join(file.file_name().expect("a name"))).expect("delete");
        let refused = bench.open_copy(&copied);
        assert!(matches!(refused, Err(LogError::Corrupt { .. })), "file {n}: {refused:?}");
        fs::remove_dir_all(copied).expect("delete");
    }
    fs::remove_file(bench.path().join("t/topic.json")).expect("delete");
    let refused = bench.open();
    assert!(matches!(refused, Err(LogError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn a_file_of_another_partition_is_refused() {
    let bench = Bench::new(1000);
    let spec = TopicSpec::new("u", 2);
    let log = bench.open().expect("open");
    bench.runtime.block_on(log.ensure_topic(&spec)).expect("make a topic");
    drop(log);
    let file = |partition: &str| bench.path().join("u").join(partition).join(format!("{:020}.log", 0));
    fs::copy(file("0"), file("1")).expect("copy");
    let refused = bench.open();
    assert!(matches!(refused, Err(LogError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn a_topic_whose_making_was_cut_short_is_made_again() {
    let bench = Bench::new(1000);
    let log = bench.open().expect("open");
    bench.runtime.block_on(log.ensure_topic(&TopicSpec::new("u", 3))).expect("make a topic");
    drop(log);
    fs::remove_file(bench.path().join("u/topic.json")).expect("delete");
    let log = bench.open().expect("open");
    let unknown = bench.runtime.block_on(log.partitions("u"));
    assert!(matches!(unknown, Err(LogError::UnknownTopic { .. })), "{unknown:?}");
    bench.runtime.block_on(log.ensure_topic(&TopicSpec::new("u", 2))).expect("make a topic");
    drop(log);
    let log = bench.open().expect("open");
    assert_eq!(bench.runtime.block_on(log.partitions("u")).expect("partitions"), 2);
}

#[test]
fn trimming_deletes_whole_files_and_stays_so() {
    let bench = Bench::new(200);
    let log = bench.open().expect("open");
    for payload in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
        bench.append(&log, &[payload]).expect("append");
    }
    let before = bench.files().len();
    bench.runtime.block_on(log.trim("t", 0, 6)).expect("trim");
    let start = bench.runtime.block_on(log.start_offset("t", 0)).expect("start");
    assert!(start > 0 && start <= 6, "{start}");
    assert!(bench.files().len() < before);
    drop(log);
    let log = bench.open().expect("open");
    assert_eq!(bench.runtime.block_on(log.start_offset("t", 0)).expect("start"), start);
    assert_eq!(bench.read(&log).len() as u64, 9 - start);
}

#[test]
fn retention_bounds_the_disk() {
    let bench = Bench::new(500);
    let log = bench.open().expect("open");
    let spec = TopicSpec::new("bounded", 1).retention_bytes(2000);
    bench.runtime.block_on(log.ensure_topic(&spec)).expect("make a topic");
    let mut largest = 0;
    for i in 0..100 {
        let record = vec![Append::unkeyed(format!("{i:0100}"))];
        bench.runtime.block_on(log.append("bounded", 0, record)).expect("append");
        let files = fs::read_dir(bench.path().join("bounded/0")).expect("list");
        let bytes = files.map(|f| f.expect("list").metadata().expect("examine").len()).sum::<u64>();
        largest = largest.max(bytes);
    }
    assert!(largest < 2000 + 2 * 600, "{largest}");
    let start = bench.runtime.block_on(log.start_offset("bounded", 0)).expect("start");
    let kept = bench.runtime.block_on(read_all(&log, "bounded", 0, start));
    assert_eq!(kept.last().map(|r| r.offset), Some(99));
    assert!(kept.len() > 5, "it keeps what it may");
}

#[test]
fn without_sync_the_records_are_still_there_after_reopening() {
    let mut bench = Bench::new(300);
    bench.config.durability = Durability::OsBuffer;
    let crashed = crashed(&bench, &[&["a"], &["b", "c"], &["d"], &["e"]]);
    let log = bench.open_copy(&crashed).expect("open");
    assert_eq!(bench.read(&log), ["a", "b", "c", "d", "e"]);
}
