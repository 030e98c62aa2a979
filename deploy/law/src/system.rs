//! The law over the whole single-node system: the real batch and speed layers,
//! the partition store, the master dataset and a log of any kind, with a fault
//! possible at every call between them.
//!
//! ```text
//!   life 1 ──────────✗   life 2 ───────────────✗   life 3 … the last: no faults
//!   append · batch step · catch up · new view      every call to the log and to the
//!   version · index lost or set back · check       object store may fail or be fatal
//! ```
//!
//! A fatal fault is a crash: from that call on nothing of that life reaches the
//! log or the dataset, before or after the call took effect. What a view
//! partition holds is held against the oracle at the very prefix that it says
//! it has applied, at any moment; when faults have ended, in the same life or
//! the last, everything must arrive, all complete segments be covered, and no
//! audit may have found a difference.

mod faults;
mod records;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_batch::{BatchConfig, BatchLayer, RunReport};
use sanso_catalog::{Catalog, CatalogHandle, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, ReadRequest};
use sanso_dataset::Dataset;
use sanso_log::{Log, TopicSpec};
use sanso_runs::{DiskRuns, RunsConfig};
use sanso_speed::{SpeedConfig, SpeedHandle, SpeedLayer};
use sanso_state::{Block, Groups, Offset, ViewPartition};
use sanso_view::{View, oracle};

use crate::history::PARTITIONS;
use crate::{Declared, declare};
use faults::{Faults, FaultyLog, FaultyStore};
use records::Records;

/// What went wrong, for a person with a seed.
type Failure = String;

/// Steps of one life, unless a fault ends it before.
const STEPS: usize = 25;
const LIVES: usize = 6;

/// A log to run the system on. Opened anew for each life.
pub trait LogPlace {
    /// Opens the log, as a process does at its start.
    fn open(&self) -> Arc<dyn Log>;
}

/// Runs one seed on a log; returns how often each kind of event happened.
///
/// # Panics
/// When the law is broken, with the seed that shows it.
pub async fn run(seed: u64, place: &dyn LogPlace) -> BTreeMap<&'static str, u64> {
    let folder = tempfile::tempdir().expect("make a folder");
    let mut system = System::new(seed, folder.path());
    if let Err(failure) = system.run(place).await {
        panic!("seed {seed}: {failure}\n{:?}", system.happened);
    }
    system.happened
}

/// What outlives a process.
struct System {
    rng: StdRng,
    declared: Declared,
    speed_dir: PathBuf,
    objects: Arc<dyn ObjectStore>,
    records: Records,
    /// The view versions that are live, as an index into the declared ones.
    generations: Vec<usize>,
    runs: DiskRuns,
    /// What view partitions stood on when their bases were moved last.
    shared: Vec<Arc<Block>>,
    happened: BTreeMap<&'static str, u64>,
}

/// One life of the process.
struct Life {
    faults: Arc<Faults>,
    /// The log without faults: producers are not part of the system.
    log: Arc<dyn Log>,
    store: PartitionStore,
    catalog: CatalogHandle,
    batch: BatchLayer,
    speed: SpeedHandle,
}

/// Why a life ended before its time.
struct Dead;

impl System {
    fn new(seed: u64, folder: &Path) -> Self {
        // Each seed has its topic, so that seeds can share a broker.
        let declared = declare(2 + seed % 4, &format!("readings-{seed}"));
        Self {
            rng: StdRng::seed_from_u64(seed),
            records: Records::new(declared.source.topic.clone()),
            declared,
            speed_dir: folder.join("speed"),
            objects: Arc::new(InMemory::new()),
            generations: vec![0],
            runs: DiskRuns::open(&RunsConfig {
                dirs: vec![folder.to_owned()],
                disk_bytes_max: u64::MAX,
                cache_bytes: 1 << 16,
            })
            .expect("a folder of its own"),
            shared: Vec::new(),
            happened: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    async fn run(&mut self, place: &dyn LogPlace) -> Result<(), Failure> {
        for _ in 0..LIVES {
            let faults = Faults::random(self.rng.random());
            if let Ok(mut life) = self.start(place, faults).await {
                self.live(&mut life).await?;
                if !life.faults.are_fatal() && self.rng.random_bool(0.8) {
                    // Faults pass, and what they left behind must not need a restart to be mended.
                    life.faults.end();
                    self.settle(&mut life).await?;
                    self.count("outlived its faults");
                }
                life.end(self).await;
            } else {
                self.count("crash while starting");
            }
            self.between_lives();
        }
        let Ok(mut life) = self.start(place, Faults::none()).await else {
            return Err("a start without faults failed".into());
        };
        self.settle(&mut life).await?;
        life.end(self).await;
        Ok(())
    }

    /// Lets the indexes be lost, or fall back: what a killed process had not yet flushed of them is
    /// gone, and what is left is an earlier state as a whole.
    fn between_lives(&mut self) {
        let (index, earlier) = (self.speed_dir.join("index"), self.speed_dir.join("earlier"));
        let chance = self.rng.random_range(0..10);
        if !index.exists() {
            return;
        }
        match chance {
            0..3 => {
                std::fs::remove_dir_all(&index).expect("lose the indexes");
                self.count("indexes lost");
            }
            3..6 if earlier.exists() => {
                std::fs::remove_dir_all(&index).expect("lose the newer indexes");
                std::fs::rename(&earlier, &index).expect("bring back the earlier ones");
                self.count("indexes fell back");
            }
            3..9 if !earlier.exists() => copy(&index, &earlier).expect("keep the indexes for later"),
            _ => {}
        }
    }

    /// Starts a process on what the ones before it left.
    async fn start(&mut self, place: &dyn LogPlace, faults: Arc<Faults>) -> Result<Life, Dead> {
        let sound = place.open();
        let log: Arc<dyn Log> = Arc::new(FaultyLog::new(Arc::clone(&sound), Arc::clone(&faults)));
        let source = Arc::clone(&self.declared.source);
        log.ensure_topic(&TopicSpec::new(&source.topic, PARTITIONS)).await.map_err(|_| Dead)?;
        let objects = FaultyStore::new(Arc::clone(&self.objects), Arc::clone(&faults));
        let dataset = Dataset::with_store(Arc::new(objects), ObjectPath::default());
        let (store, board) = (PartitionStore::new(), StatusBoard::new());
        let sources = [(source.name.clone(), source)].into();
        let catalog = CatalogHandle::new(Catalog { sources, ..Catalog::default() });
        let config = BatchConfig {
            segments_per_version_max: self.rng.random_range(1..6),
            adoption_wait_runs: self.rng.random_range(0..4),
            versions_kept: 2,
            retain_segments: self.rng.random_bool(0.7).then(|| self.rng.random_range(0..3)),
            ..BatchConfig::default()
        };
        let batch = BatchLayer::new(
            config,
            Arc::clone(&log),
            dataset.clone(),
            catalog.clone(),
            store.clone(),
            board.clone(),
        );
        for generation in self.generations.clone() {
            for view in &self.declared.generations[generation] {
                bring_up(&batch, &store, &catalog, view).await?;
            }
        }
        let config = SpeedConfig {
            flush_ms: 0,
            heartbeat_ms: 5,
            chunk_records_max: self.rng.random_range(1..8),
            queue_max: self.rng.random_range(1..5),
            collapse_every_ms: 0,
            retry_ms: 1,
            ..SpeedConfig::new(&self.speed_dir)
        };
        let started =
            SpeedLayer::start(config, Arc::clone(&log), dataset, catalog.clone(), store.clone(), board).await;
        let speed = started.map_err(|_| Dead)?;
        Ok(Life { faults, log: sound, store, catalog, batch, speed })
    }

    /// Lives until a fatal fault or the end of its steps.
    async fn live(&mut self, life: &mut Life) -> Result<(), Failure> {
        for _ in 0..STEPS {
            match self.rng.random_range(0..12) {
                0..5 => self.append(life).await?,
                5..8 => self.batch(life).await?,
                8 => self.new_views(life).await,
                9 => self.retire(life),
                10 => self.catch_up(life).await,
                _ => self.move_bases(life)?,
            }
            self.check(life).await?;
            if life.faults.are_fatal() {
                self.count("crash");
                return Ok(());
            }
        }
        self.count("life without a crash");
        Ok(())
    }

    async fn append(&mut self, life: &Life) -> Result<(), Failure> {
        for _ in 0..self.rng.random_range(1..12) {
            self.records.append(&mut self.rng, life.log.as_ref()).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, life: &Life) -> Result<(), Failure> {
        match life.batch.run_once().await {
            Err(_) => self.count("batch run failed"),
            Ok(report) => self.take_in(&report)?,
        }
        Ok(())
    }

    fn take_in(&mut self, report: &RunReport) -> Result<(), Failure> {
        for source in report.sources.values() {
            if source.audit.differing > 0 {
                return Err(format!("the audit found differences: {source:?}"));
            }
            *self.happened.entry("segment audited").or_default() += source.audit.compared;
            *self.happened.entry("view partition adopted").or_default() += source.adopted;
            if source.version.is_some() {
                self.count("version published");
            }
        }
        Ok(())
    }

    async fn new_views(&mut self, life: &Life) {
        let next = self.generations.last().map_or(0, |last| last + 1);
        let Some(views) = self.declared.generations.get(next) else { return };
        for view in views {
            if bring_up(&life.batch, &life.store, &life.catalog, view).await.is_err() {
                views.iter().for_each(|view| take_down(life, view));
                return;
            }
        }
        self.generations.push(next);
        self.count("new view version");
    }

    fn retire(&mut self, life: &Life) {
        if self.generations.len() < 2 {
            return;
        }
        for view in &self.declared.generations[self.generations.remove(0)] {
            take_down(life, view);
        }
        self.count("view version retired");
    }

    /// Moves what view partitions stand on to disk, or back into memory.
    fn move_bases(&mut self, life: &Life) -> Result<(), Failure> {
        for (id, held) in life.store.held_here() {
            if held.group_counts(id).runs > 0 {
                self.count("extended while shared");
            }
            held.unite(id).map_err(|error| error.to_string())?;
            let moved = match self.rng.random_bool(0.8) {
                true => held.spill(id, &self.runs, 1),
                false => held.load(id),
            };
            if moved.map_err(|error| error.to_string())? {
                self.count("base moved");
            }
        }
        // As by who reads them: what is added to these meanwhile makes runs.
        self.shared = life.store.held_here().into_iter().filter_map(|(id, held)| held.base(id)).collect();
        Ok(())
    }

    /// Lets the speed layer reach the log's end, unless a fault comes first.
    async fn catch_up(&mut self, life: &Life) {
        tokio::select! {
            caught_up = life.speed.caught_up() => if caught_up.is_ok() { self.count("caught up") },
            () = life.faults.fatal() => {}
        }
    }

    /// The law: what a view partition holds is the fold of the prefix it says it has applied.
    async fn check(&mut self, life: &Life) -> Result<(), Failure> {
        for view in life.catalog.current().live.values() {
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                let all = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
                let reply = life.store.read(id, &all).await.map_err(|error| error.to_string())?;
                let found: Groups = reply.groups.into_iter().collect();
                let wanted = self.fold(view, index, &reply.progress.applied);
                if found != wanted {
                    let progress = &reply.progress;
                    return Err(format!(
                        "law: {} {id} at {progress:?}\nfound  {found:?}\nwanted {wanted:?}",
                        view.name
                    ));
                }
                self.count("view partition checked");
            }
        }
        Ok(())
    }

    fn fold(&self, view: &View, index: u32, below: &[Offset]) -> Groups {
        let prefixes = self.records.below(below);
        let prefixes: Vec<&[oracle::Record<'_>]> = prefixes.iter().map(Vec::as_slice).collect();
        let all = oracle::fold(view, &prefixes);
        all.iter().filter(|(id, _)| view.partition_of(&id.key) == index).collect()
    }

    /// Faults have ended: everything must arrive without a restart, and batch cover all complete
    /// segments.
    async fn settle(&mut self, life: &mut Life) -> Result<(), Failure> {
        let segments = self.declared.source.segments();
        let ends = self.records.ends();
        // A version waits a bounded number of runs for the speed layer before it is adopted.
        for _ in 0..40 * LIVES * STEPS {
            life.speed.caught_up().await.map_err(|error| format!("settle: {error}"))?;
            let report = life.batch.run_once().await.map_err(|error| format!("settle: {error}"))?;
            self.take_in(&report)?;
            if !report.has_backlog() && !report.is_waiting() {
                break;
            }
        }
        life.speed.caught_up().await.map_err(|error| format!("settle: {error}"))?;
        self.check(life).await?;
        let catalog = life.catalog.current();
        for view in catalog.live.values() {
            for index in 0..view.partitions {
                let id = PartitionId { view: view.fingerprint, index };
                let reply = life.store.read(id, &ReadRequest::Progress).await;
                let progress = reply.map_err(|error| error.to_string())?.progress;
                let complete: Vec<Offset> = ends.iter().map(|&end| segments.floor(end)).collect();
                if progress.applied != ends || progress.cut.offsets() != complete {
                    return Err(format!("stuck: the log ends at {ends:?}, {id} stands at {progress:?}"));
                }
            }
        }
        Ok(())
    }
}

impl Life {
    async fn end(self, system: &mut System) {
        system.count("life");
        self.speed.shutdown().await;
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn bring_up(
    batch: &BatchLayer,
    store: &PartitionStore,
    catalog: &CatalogHandle,
    view: &Arc<View>,
) -> Result<(), Dead> {
    let blocks = batch.ensure_published(view).await.map_err(|_| Dead)?;
    for (index, block) in (0..).zip(blocks) {
        let id = PartitionId { view: view.fingerprint, index };
        store.create(id, ViewPartition::new(view.partition_config(), block));
    }
    catalog.update(|catalog| {
        catalog.live.insert(view.fingerprint, Arc::clone(view));
    });
    Ok(())
}

fn take_down(life: &Life, view: &View) {
    life.catalog.update(|catalog| {
        catalog.live.remove(&view.fingerprint);
    });
    life.store.remove(view.fingerprint);
}
