//! Behaviour of the layer: the engine under random faults, the indexes, the driver, the emitter.

mod driver;
mod emission;
mod engine;
mod index;
mod quarantine;
mod takeover;

use std::sync::Arc;

use bytes::Bytes;
use sanso_log::{Append, Record, partition_for_key};
use sanso_state::{Groups, LogPartition, Offset};
use sanso_view::{Application, Source, View, oracle};

pub(crate) const SQL: &str = "\
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,3), divisor BIGINT,
                        source_version BIGINT)
  WITH (topic = 'readings', format = 'json', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', partitions = '2', segment = '4', lateness = '10 minutes');
CREATE VIEW load WITH (partitions = '2', output_topic = 'load_closed') AS
  SELECT r.usage_point, TUMBLE(r.start_utc, INTERVAL '30 minutes') AS window, SUM(r.value) AS kwh,
         COUNT(*) AS readings, MIN(r.value) AS least
  FROM readings r GROUP BY r.usage_point, window;
CREATE VIEW totals WITH (partitions = '3') AS
  SELECT r.divisor, SUM(r.value) AS kwh, MAX(r.value) AS most, SUM(12 / r.divisor) AS share
  FROM readings r GROUP BY r.divisor;
";

pub(crate) const LOG_PARTITIONS: u32 = 2;

pub(crate) fn views() -> Vec<Arc<View>> {
    let application = Application::parse(SQL).unwrap_or_else(|error| panic!("{error}"));
    application.bind(std::path::Path::new(".")).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn source(views: &[Arc<View>]) -> Arc<Source> {
    Arc::clone(&views[0].source)
}

/// Names meters whose records belong to a log partition.
pub(crate) fn meter(partition: u32, number: u64) -> String {
    let names = (0..).map(|suffix| format!("m{suffix}"));
    let mut homes = names.filter(|name| partition_for_key(name.as_bytes(), LOG_PARTITIONS) == partition);
    homes.nth(number as usize).expect("names go on for ever")
}

/// Writes a reading; `slot` counts quarter hours of one day.
pub(crate) fn reading(meter: &str, slot: u64, value: i64, divisor: i64, version: i64) -> String {
    let (hour, minute) = (slot / 4 % 24, slot % 4 * 15);
    format!(
        r#"{{"usage_point":"{meter}","start_utc":"2024-06-01T{hour:02}:{minute:02}:00Z","value":{value}.5,"divisor":{divisor},"source_version":{version}}}"#
    )
}

pub(crate) fn record(offset: Offset, payload: &str) -> Record {
    // Appended long after every reading's time, so that all move the watermark.
    let append_time_us = 1_800_000_000_000_000;
    Record { offset, append_time_us, key: None, payload: Bytes::copy_from_slice(payload.as_bytes()) }
}

pub(crate) fn append(payload: &str) -> Append {
    Append::unkeyed(payload.as_bytes().to_vec())
}

/// A small generator of pseudo-random numbers (SplitMix64): a seed is a whole test.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Rolls a number below `sides`.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    /// Says yes with a chance in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Writes a random history of one log partition: late, duplicate, corrected,
/// conflicting, stale, misplaced and broken records, and holes.
pub(crate) fn history(partition: u32, length: u64, dice: &mut Dice) -> Vec<Option<Record>> {
    let mut records: Vec<Option<Record>> = Vec::new();
    for offset in 0..length {
        let roll = dice.below(100);
        let home = if roll < 5 { 1 - partition } else { partition };
        let payload = reading(
            &meter(home, dice.below(3)),
            dice.below(5),
            dice.below(4) as i64 - 1,
            dice.below(3) as i64,
            dice.below(4) as i64,
        );
        records.push(match roll {
            92..=94 => None,
            95..=96 => Some(record(offset, "not json")),
            97..=99 if offset > 0 => {
                let again = &records[dice.below(offset) as usize];
                again.as_ref().map(|record| Record { offset, ..record.clone() })
            }
            _ => Some(record(offset, &payload)),
        });
    }
    records
}

/// Folds what view partition `index` must hold when it has applied these prefixes.
pub(crate) fn expected(view: &View, index: u32, logs: &[&[Option<Record>]]) -> Groups {
    let source = &view.source;
    let placed = |partition: usize, record: &Record| {
        let decoded = source.decode([record.payload.as_ref()]);
        decoded.rejected.is_empty()
            && partition_for_key(source.keys(&decoded.rows).value(0).as_bytes(), source.partitions)
                == LogPartition(partition as u32).0
    };
    let histories: Vec<Vec<(Offset, &[u8])>> = logs
        .iter()
        .enumerate()
        .map(|(partition, log)| {
            let records = log.iter().flatten().filter(|record| placed(partition, record));
            records.map(|record| (record.offset, record.payload.as_ref())).collect()
        })
        .collect();
    let histories: Vec<&[(Offset, &[u8])]> = histories.iter().map(Vec::as_slice).collect();
    let groups = oracle::fold(view, &histories);
    groups.iter().filter(|(id, _)| view.partition_of(&id.key) == index).collect()
}
