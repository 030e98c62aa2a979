//! What it saves to have the newest-version table at hand: the same versions, and then the same new
//! view, with the table kept nowhere, in memory, and on disk; on a dataset in a folder, and in a store
//! that takes 20 ms for a request and moves 100 MB/s. `cargo bench --workspace --bench blocks -- 3` takes the
//! medians of three rounds. Processor time is of the whole process, so it also holds on a busy machine.
//!
//! There are no views while versions are made, so that what the table costs is not hidden.

#![allow(clippy::print_stdout, reason = "it is a program that prints a table")]

use std::path::Path as DiskPath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use sanso_batch::{BatchConfig, BatchLayer};
use sanso_block::{BlockConfig, BlockStore, Usage};
use sanso_catalog::{Catalog, CatalogHandle, StatusBoard};
use sanso_core::PartitionStore;
use sanso_dataset::Dataset;
use sanso_log::{Append, Log, MemoryLog, TopicSpec};
use sanso_state::StorageLevel;
use sanso_view::{Application, View};

const METERS: u64 = 3_000;
const HALF_HOURS: u64 = 46;
const NOW_US: i64 = 1_720_000_000_000_000;

const SQL: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, duration_s BIGINT, value DECIMAL(18,6),
                        unit TEXT, quality TEXT, source_version BIGINT)
  WITH (key = 'usage_point', identity = 'usage_point, channel, start_utc', version = 'source_version',
        partitions = 1, segment = 3000);
CREATE VIEW daily AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, day;
";

#[derive(Clone, Copy)]
enum Place {
    Folder,
    Store,
}

/// What one way of keeping the table took.
struct Taken {
    versions: Duration,
    versions_cpu: Duration,
    view: Duration,
    usage: Usage,
    table_bytes: u64,
}

fn main() {
    let rounds = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let levels = [StorageLevel::None, StorageLevel::Memory, StorageLevel::Disk];
    for (place, name) in [(Place::Folder, "folder"), (Place::Store, "store, 20 ms")] {
        // Side by side in each round, so that a noisy moment hits all alike.
        let rounds: Vec<Vec<Taken>> = (0..rounds)
            .map(|_| levels.iter().map(|level| runtime.block_on(measure(place, *level))).collect())
            .collect();
        for (index, level) in levels.iter().enumerate() {
            let median = |of: fn(&Taken) -> Duration| {
                let mut all: Vec<_> =
                    rounds.iter().map(|round| of(&round[index]).as_secs_f64() * 1e3).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let Taken { usage, table_bytes, .. } = &rounds[0][index];
            println!(
                "{name:<14} {level:<8} {HALF_HOURS} versions {:6.0} ms of processors in {:6.0} ms, a new view {:6.1} ms; at hand {:5.1} MB in memory, \
                 {:5.1} MB on disk; the file {:4.1} MB",
                median(|taken| taken.versions_cpu),
                median(|taken| taken.versions),
                median(|taken| taken.view),
                usage.memory_bytes as f64 / 1e6,
                usage.disk_bytes as f64 / 1e6,
                *table_bytes as f64 / 1e6,
            );
        }
    }
}

fn dataset(place: Place, folder: &DiskPath) -> Dataset {
    match place {
        Place::Folder => Dataset::open_local(&folder.join("dataset")).expect("open the dataset"),
        Place::Store => {
            let wait = Duration::from_millis(20);
            let config = ThrottleConfig {
                wait_get_per_call: wait,
                wait_put_per_call: wait,
                wait_get_per_byte: Duration::from_nanos(10),
                ..ThrottleConfig::default()
            };
            Dataset::with_store(Arc::new(ThrottledStore::new(InMemory::new(), config)), Path::default())
        }
    }
}

async fn measure(place: Place, level: StorageLevel) -> Taken {
    let folder = tempfile::tempdir().expect("make a folder");
    let blocks = BlockConfig {
        memory_bytes_max: 256 << 20,
        disk_bytes_max: 1 << 30,
        spill_dirs: vec![folder.path().to_owned()],
    };
    let blocks = BlockStore::open(&blocks).expect("open the blocks");
    let dataset = dataset(place, folder.path()).with_blocks(blocks.clone());
    dataset.keep_table("readings", level.into());
    let view = view();
    let log = log().await;
    let sources = [("readings".to_owned(), Arc::clone(&view.source))].into();
    let batch = BatchLayer::new(
        BatchConfig { segments_per_version_max: 1, ..BatchConfig::default() },
        log,
        dataset.clone(),
        CatalogHandle::new(Catalog { sources, ..Catalog::default() }),
        PartitionStore::new(),
        StatusBoard::new(),
    );
    let (started, cpu) = (Instant::now(), processor_time());
    while batch.run_once().await.expect("run").has_backlog() {}
    let (versions, versions_cpu) = (started.elapsed(), processor_time() - cpu);
    let started = Instant::now();
    batch.ensure_published(&view).await.expect("publish");
    let manifest = dataset.manifest("readings").await.expect("load").expect("a version");
    assert_eq!((manifest.version, manifest.rows), (HALF_HOURS, HALF_HOURS * METERS));
    let view = started.elapsed();
    let table_bytes = manifest.newest.iter().map(|file| file.bytes).sum();
    Taken { versions, versions_cpu, view, usage: blocks.usage(), table_bytes }
}

/// Returns the processor time of this process; nothing where the system does not tell.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: the times are the 12th and 13th, in hundredths of a second.
    let times = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(times.filter_map(|time| time.parse::<u64>().ok()).sum::<u64>() * 10)
}

fn view() -> Arc<View> {
    let application = Application::parse(SQL).expect("valid SQL");
    application.bind(DiskPath::new(".")).expect("no tables to read").remove(0)
}

/// A day of half-hourly readings, one segment for each half hour.
async fn log() -> Arc<dyn Log> {
    let log = MemoryLog::simulated(NOW_US);
    log.ensure_topic(&TopicSpec::new("readings", 1)).await.expect("a new topic");
    for at in 0..HALF_HOURS {
        let (hour, minute) = (at / 2, at % 2 * 30);
        let reading = |meter: u64| {
            // As little alike as real ones: a load that wanders, by meter.
            let watts = (meter * 2_654_435_761 + at * 40_503).wrapping_mul(2_246_822_519) >> 7 & 0x3ff;
            let text = format!(
                r#"{{"usage_point":"NMI{meter:09}","channel":"E1","start_utc":"2024-07-01T{hour:02}:{minute:02}:00Z","duration_s":1800,"value":{}.{:03},"unit":"kWh","quality":"A","source_version":1}}"#,
                watts / 1000,
                watts % 1000,
            );
            Append::keyed(format!("NMI{meter:09}"), text)
        };
        log.append_now("readings", 0, (0..METERS).map(reading).collect()).expect("appended");
    }
    Arc::new(log)
}
