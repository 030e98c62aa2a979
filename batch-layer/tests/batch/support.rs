//! A small world around the batch layer, and histories to put into it.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use sanso_batch::{BatchConfig, BatchLayer, Executor, RunReport, SourceReport};
use sanso_block::{BlockStore, Neighbours};
use sanso_catalog::{Catalog, CatalogHandle, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, Progress, ReadRequest};
use sanso_dataset::Dataset;
use sanso_log::{Append, Log, MemoryLog, TopicSpec, partition_for_key};
use sanso_state::{Block, Cut, Groups, Refusal, RefusalCounts, StorageLevel, ViewPartition};
use sanso_view::{Application, Source, View, oracle};

use crate::fleet::{self, Fleet};

/// The source's topic and name.
pub(crate) const SOURCE: &str = "readings";
/// When the simulated log takes its records, in microseconds.
const NOW_US: i64 = 1_720_000_000_000_000;

/// What a world's application is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) segment: u64,
    pub(crate) partitions: u32,
    /// With a version column, and the event time in the identity.
    pub(crate) versioned: bool,
}

/// Versioned readings in two log partitions with segments of three.
pub(crate) const SMALL: Shape = Shape { segment: 3, partitions: 2, versioned: true };

/// Binds the views of an application of this shape.
pub(crate) fn views(shape: Shape) -> Vec<Arc<View>> {
    let Shape { segment, partitions, versioned } = shape;
    let rule = match versioned {
        true => "identity = 'usage_point, channel, start_utc', version = 'source_version'",
        false => "identity = 'usage_point, channel'",
    };
    let sql = format!(
        "CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,3),
                                 source_version BIGINT, received_at TIMESTAMP)
           WITH (key = 'usage_point', event_time = 'start_utc', {rule}, segment = {segment}, partitions = '{partitions}');
         CREATE VIEW load WITH (partitions = '3') AS
           SELECT channel, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value) AS total, COUNT(*) AS readings,
                  AVG(value) AS mean FROM readings GROUP BY channel, day;
         CREATE VIEW peaks WITH (partitions = '2', storage = 'disk') AS
           SELECT usage_point, HOP(start_utc, INTERVAL '6 hours', INTERVAL '12 hours') AS w, MIN(value) AS least,
                  MAX(value) AS most, FIRST(value) AS first, LAST(value) AS last, COUNT(DISTINCT value) AS distinct_values
           FROM readings GROUP BY usage_point, w;
         CREATE VIEW everything WITH (partitions = '1') AS
           SELECT COUNT(*) AS readings, SUM(value) FILTER (WHERE value > 2) AS large, VAR_POP(value) AS variance
           FROM readings;"
    );
    let application = Application::parse(&sql).expect("valid SQL");
    application.bind(std::path::Path::new(".")).expect("no tables to read")
}

/// One reading.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) meter: u8,
    pub(crate) channel: u8,
    /// Hours after the beginning.
    pub(crate) hour: u32,
    pub(crate) value: Option<i16>,
    pub(crate) version: u8,
}

impl Reading {
    pub(crate) fn key(&self) -> String {
        format!("m{}", self.meter)
    }

    pub(crate) fn payload(&self) -> String {
        let (day, hour) = (1 + self.hour / 24, self.hour % 24);
        let value = self.value.map_or_else(|| "null".to_owned(), |value| format!("{value}.25"));
        format!(
            r#"{{"usage_point":"m{}","channel":"c{}","start_utc":"2024-07-{day:02}T{hour:02}:00:00Z","value":{value},"source_version":{},"received_at":null}}"#,
            self.meter, self.channel, self.version
        )
    }
}

/// A log, a store and an application; batch layers come and go.
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) board: StatusBoard,
    /// Where lives keep the newest-version table at hand, if they do.
    pub(crate) blocks: Option<(BlockStore, StorageLevel)>,
    /// Whose blocks lives know, beside those.
    pub(crate) neighbours: Option<Arc<dyn Neighbours>>,
    /// What the oracle knows, by log partition: records that can be decoded, in their right place.
    pub(crate) history: Vec<Vec<(u64, Vec<u8>)>>,
}

/// One life of the process: view partitions and a batch layer.
pub(crate) struct Life {
    pub(crate) batch: BatchLayer,
    pub(crate) store: PartitionStore,
    pub(crate) catalog: CatalogHandle,
}

impl World {
    pub(crate) async fn new(shape: Shape) -> Self {
        let log = Arc::new(MemoryLog::simulated(NOW_US));
        log.ensure_topic(&TopicSpec::new(SOURCE, shape.partitions)).await.expect("a new topic");
        let objects = Arc::new(InMemory::new());
        let history = vec![Vec::new(); shape.partitions as usize];
        Self {
            shape,
            log,
            objects,
            views: views(shape),
            board: StatusBoard::new(),
            blocks: None,
            neighbours: None,
            history,
        }
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.views[0].source
    }

    pub(crate) fn dataset(&self) -> Dataset {
        let dataset = Dataset::with_store(Arc::clone(&self.objects), Path::from("data"));
        let Some((blocks, level)) = &self.blocks else { return dataset };
        let dataset = dataset.with_blocks(blocks.clone());
        dataset.keep_table(SOURCE, (*level).into());
        self.neighbours.iter().for_each(|others| dataset.join_neighbours(Arc::clone(others)));
        dataset
    }

    /// Appends a reading where it belongs.
    pub(crate) fn append(&mut self, reading: &Reading) {
        let partition = partition_for_key(reading.key().as_bytes(), self.shape.partitions);
        let offset = self.append_raw(partition, &reading.key(), reading.payload());
        self.history[partition as usize].push((offset, reading.payload().into_bytes()));
    }

    /// Appends anything anywhere; the oracle does not hear of it.
    pub(crate) fn append_raw(&self, partition: u32, key: &str, payload: String) -> u64 {
        let record = Append::keyed(key.to_owned(), payload);
        self.log.append_now(SOURCE, partition, vec![record]).expect("appended")[0]
    }

    /// Appends readings to log partition 0 until it has `count` records. All of the given hour.
    pub(crate) fn fill(&mut self, count: u64, hour: u32) {
        let meter = (0..=255)
            .find(|meter| partition_for_key(format!("m{meter}").as_bytes(), self.shape.partitions) == 0);
        let meter = meter.expect("some meter belongs to partition 0");
        while (self.history[0].len() as u64) < count {
            let channel = self.history[0].len() as u8;
            self.append(&Reading { meter, channel, hour, value: Some(1), version: 0 });
        }
    }

    /// Starts a process: all views published, their partitions created and live.
    pub(crate) async fn start(&self, config: BatchConfig) -> sanso_batch::Result<Life> {
        let life = self.boot(config);
        for view in &self.views {
            life.go_live(view).await?;
        }
        Ok(life)
    }

    /// Starts a process whose tasks are done by a fleet: all views published, their partitions created.
    pub(crate) async fn start_on(
        &self,
        config: BatchConfig,
        fleet: &Arc<Fleet>,
    ) -> sanso_batch::Result<Life> {
        let life = self.boot_on(config, fleet);
        for view in &self.views {
            life.go_live(view).await?;
        }
        Ok(life)
    }

    /// Starts a process whose tasks are done by a fleet; all views are live, without partitions.
    pub(crate) fn boot_on(&self, config: BatchConfig, fleet: &Arc<Fleet>) -> Life {
        let Life { batch, store, catalog } = self.boot(config);
        catalog.update(|catalog| *catalog = fleet::catalog(self));
        Life { batch: batch.with_executor(Arc::clone(fleet) as Arc<dyn Executor>), store, catalog }
    }

    /// Starts a process without live views.
    pub(crate) fn boot(&self, config: BatchConfig) -> Life {
        self.boot_with(config, PartitionStore::new())
    }

    /// Starts a process without live views, whose view partitions are in a store.
    pub(crate) fn boot_with(&self, config: BatchConfig, store: PartitionStore) -> Life {
        let source = Arc::clone(self.source());
        let catalog = CatalogHandle::new(Catalog {
            sources: [(source.name.clone(), source)].into(),
            ..Catalog::default()
        });
        let batch = BatchLayer::new(
            config,
            Arc::clone(&self.log) as Arc<dyn Log>,
            self.dataset(),
            catalog.clone(),
            store.clone(),
            self.board.clone(),
        );
        Life { batch, store, catalog }
    }

    /// Folds a view naively over the history below a cut.
    pub(crate) fn oracle(&self, view: &View, cut: &Cut) -> Groups {
        let below: Vec<Vec<oracle::Record<'_>>> = self
            .history
            .iter()
            .zip(cut.offsets())
            .map(|(records, cut)| {
                let records = records.iter().filter(|(offset, _)| offset < cut);
                records.map(|(offset, payload)| (*offset, payload.as_slice())).collect()
            })
            .collect();
        let slices: Vec<&[oracle::Record<'_>]> = below.iter().map(Vec::as_slice).collect();
        oracle::fold(view, &slices)
    }

    /// Checks blocks against the oracle at their own cut; each group in its view partition.
    pub(crate) fn check(&self, view: &View, blocks: &[Arc<Block>]) {
        assert_eq!(blocks.len(), view.partitions as usize);
        let mut all = Groups::new();
        for (index, block) in blocks.iter().enumerate() {
            assert!(block.groups.iter().all(|(id, _)| view.partition_of(&id.key) as usize == index));
            assert_eq!((block.version, &block.cut), (blocks[0].version, &blocks[0].cut));
            all.combine(&block.groups);
        }
        assert_eq!(all, self.oracle(view, &blocks[0].cut), "{} at {:?}", view.name, blocks[0].cut);
    }
}

/// A refused record: where, when the log took it, why, and its bytes.
type Refused = (u32, u64, i64, Refusal, Vec<u8>);

impl World {
    /// Checks that the quarantine of the version in force is what a plain reading of the log below its
    /// cut refuses. Returns how much that is, by kind.
    pub(crate) async fn check_quarantine(&self) -> RefusalCounts {
        let dataset = self.dataset();
        let Some(manifest) = dataset.manifest(SOURCE).await.expect("load") else {
            return RefusalCounts::default();
        };
        let mut found: Vec<Refused> = Vec::new();
        for file in &manifest.quarantine {
            let records = dataset.read_quarantine(SOURCE, file).await.expect("read");
            assert_eq!(file.counts, RefusalCounts::of(&records));
            for record in records {
                assert!(!record.reason.is_empty());
                let place = (record.partition, record.offset, record.append_time_us);
                found.push((place.0, place.1, place.2, record.kind, record.payload));
            }
        }
        let mut wanted = Vec::new();
        for partition in 0..self.shape.partitions {
            wanted.extend(self.judge(partition, manifest.cut.offsets()[partition as usize]).await);
        }
        assert_eq!(found, wanted, "at {:?}", manifest.cut);
        manifest.refusals()
    }

    /// Reads one log partition below an offset and refuses, one record after the other.
    async fn judge(&self, partition: u32, below: u64) -> Vec<Refused> {
        let (source, mut refused) = (self.source(), Vec::new());
        let mut newest: BTreeMap<bytes::Bytes, (i64, Vec<u8>)> = BTreeMap::new();
        let batch = self.log.read(SOURCE, partition, 0, usize::MAX, usize::MAX).await.expect("read");
        for record in batch.records.into_iter().filter(|record| record.offset < below) {
            let payload = record.payload.to_vec();
            let rows = source.decode([payload.as_slice()]).rows;
            let mut refuse = |kind, payload: Vec<u8>| {
                refused.push((partition, record.offset, record.append_time_us, kind, payload));
            };
            if rows.num_rows() == 0 {
                refuse(Refusal::Undecodable, payload);
                continue;
            }
            let key = source.keys(&rows).value(0).as_bytes();
            if partition_for_key(key, self.shape.partitions) != partition {
                refuse(Refusal::Misplaced, payload);
                continue;
            }
            let identity = source.identities(&rows).remove(0);
            let version = source.versions(&rows)[0].unwrap_or(record.offset as i64);
            match newest.get(&identity) {
                Some((known, content)) if *known == version && *content != payload => {
                    refuse(Refusal::Conflict, payload);
                }
                Some((known, _)) if *known >= version => {}
                _ => {
                    newest.insert(identity, (version, payload));
                }
            }
        }
        refused
    }
}

impl Life {
    /// Publishes a view, creates its partitions and makes it live.
    pub(crate) async fn go_live(&self, view: &Arc<View>) -> sanso_batch::Result<()> {
        let blocks = self.batch.ensure_published(view).await?;
        for (index, block) in blocks.into_iter().enumerate() {
            let id = PartitionId { view: view.fingerprint, index: index as u32 };
            self.store.create(id, ViewPartition::new(view.partition_config(), block));
        }
        self.catalog.update(|catalog| {
            catalog.live.insert(view.fingerprint, Arc::clone(view));
        });
        Ok(())
    }

    /// Runs until nothing is left to archive.
    pub(crate) async fn run_to_end(&self) -> sanso_batch::Result<RunReport> {
        loop {
            let report = self.batch.run_once().await?;
            if !report.has_backlog() {
                return Ok(report);
            }
        }
    }

    /// Runs one step and returns what it did for the source.
    pub(crate) async fn run(&self) -> SourceReport {
        self.batch.run_once().await.expect("the run succeeds").sources[SOURCE].clone()
    }

    pub(crate) async fn progress(&self, view: &View, index: u32) -> Progress {
        let id = PartitionId { view: view.fingerprint, index };
        self.store.read(id, &ReadRequest::Progress).await.expect("it is live").progress
    }
}

/// A configuration that adopts without waiting for the speed layer, and in which no task is begun twice because
/// the machine stood still.
pub(crate) fn hasty() -> BatchConfig {
    BatchConfig { adoption_wait_runs: 0, twin_ms_min: u32::MAX.into(), ..BatchConfig::default() }
}
