//! Random records appended to a log, and what of them the oracle counts.

use rand::RngExt;
use rand::rngs::StdRng;
use sanso_log::{Append, Log, partition_for_key};
use sanso_state::Offset;
use sanso_view::oracle;

use crate::history::{PARTITIONS, QUALITIES, STARTS, VALUES, choose};

/// What was appended to one source's topic.
pub(super) struct Records {
    topic: String,
    /// By log partition: records that can be decoded and lie where they belong.
    sound: Vec<Vec<(Offset, Vec<u8>)>>,
    ends: Vec<Offset>,
}

impl Records {
    pub(super) fn new(topic: String) -> Self {
        let partitions = PARTITIONS as usize;
        Self { topic, sound: vec![Vec::new(); partitions], ends: vec![0; partitions] }
    }

    /// Returns the log's ends.
    pub(super) fn ends(&self) -> Vec<Offset> {
        self.ends.clone()
    }

    /// Returns the records below an offset of each log partition.
    pub(super) fn below(&self, offsets: &[Offset]) -> Vec<Vec<oracle::Record<'_>>> {
        let sound = self.sound.iter().zip(offsets);
        sound
            .map(|(records, below)| {
                let count = records.partition_point(|(offset, _)| offset < below);
                records[..count].iter().map(|(offset, payload)| (*offset, payload.as_slice())).collect()
            })
            .collect()
    }

    /// Appends a reading: new, corrected, resent, conflicting; now and then where it does not
    /// belong, or something that is no reading.
    pub(super) async fn append(&mut self, rng: &mut StdRng, log: &dyn Log) -> Result<(), String> {
        let usage_point = format!("M{}", rng.random_range(0..7));
        let home = partition_for_key(usage_point.as_bytes(), PARTITIONS);
        let place = if rng.random_bool(0.05) { rng.random_range(0..PARTITIONS) } else { home };
        let broken = rng.random_bool(0.04);
        let payload = match self.sound[home as usize].as_slice() {
            _ if broken => r#"{"usage_point": 7"#.to_owned().into_bytes(),
            // Resent; its key may be another one's, which nothing reads.
            before if !before.is_empty() && rng.random_bool(0.1) => {
                before[rng.random_range(0..before.len())].1.clone()
            }
            _ => format!(
                r#"{{"usage_point":"{usage_point}","channel":"{}","start_utc":"{}","value":{},"quality":"{}","source_version":{}}}"#,
                choose(rng, &["E1", "B1"]),
                choose(rng, &STARTS),
                choose(rng, &VALUES),
                choose(rng, &QUALITIES),
                choose(rng, &[1, 1, 2, 2, 3, 4]),
            )
            .into_bytes(),
        };
        let append = Append::keyed(usage_point, payload.clone());
        let offsets =
            log.append(&self.topic, place, vec![append]).await.map_err(|error| error.to_string())?;
        let offset = offsets[0];
        self.ends[place as usize] = offset + 1;
        if place == home && !broken {
            self.sound[place as usize].push((offset, payload));
        }
        Ok(())
    }
}
