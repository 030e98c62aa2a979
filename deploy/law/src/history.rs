//! Random histories of readings, and a naive account of what they mean.
//!
//! Nothing here calls the engines: which reading counts is decided by comparing
//! plain structs. Only the lift of one reading through a view is shared.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use sanso_log::{Record, partition_for_key};
use sanso_speed::{Chunk, Version};
use sanso_state::{Fingerprint, GroupId, Groups, Value};
use sanso_view::{Source, View};

/// The number of log partitions.
pub(crate) const PARTITIONS: u32 = 3;

/// Event times around the hour that Berlin skips in 2026.
pub(crate) const STARTS: [&str; 5] = [
    "2026-03-28T22:30:00Z",
    "2026-03-28T23:00:00Z",
    "2026-03-29T00:30:00Z",
    "2026-03-29T21:30:00Z",
    "2026-03-29T22:00:00Z",
];
pub(crate) const VALUES: [&str; 7] = ["null", "0", "1", "2.5", "-3", "0.000001", "999999999999.999999"];
pub(crate) const QUALITIES: [&str; 2] = ["actual", "estimated"];

/// A reading as it was produced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reading {
    usage_point: String,
    channel: &'static str,
    start: &'static str,
    value: &'static str,
    quality: &'static str,
    version: i64,
}

impl Reading {
    fn payload(&self) -> String {
        format!(
            r#"{{"usage_point":"{}","channel":"{}","start_utc":"{}","value":{},"quality":"{}","source_version":{}}}"#,
            self.usage_point, self.channel, self.start, self.value, self.quality, self.version
        )
    }

    fn identity(&self) -> (&str, &str, &str) {
        (&self.usage_point, self.channel, self.start)
    }

    fn home(&self) -> u32 {
        partition_for_key(self.usage_point.as_bytes(), PARTITIONS)
    }
}

/// What lies at one offset of the log.
#[derive(Clone, Debug)]
enum Slot {
    Reading(Rc<Reading>),
    Garbage,
    Hole,
}

/// One row's contribution to a view: the group and the inputs.
type Contributions = Rc<Vec<(GroupId, Box<[Option<Value>]>)>>;

/// The groups of a prefix, one map for each view partition.
type Folded = Rc<Vec<Groups>>;

/// The whole log, with caches of what its prefixes mean.
pub(crate) struct History {
    source: Arc<Source>,
    meters: Vec<String>,
    log: Vec<Vec<Slot>>,
    lifted: RefCell<HashMap<(Fingerprint, Rc<Reading>), Contributions>>,
    folded: RefCell<HashMap<(Fingerprint, u32, u64), Folded>>,
}

impl History {
    /// Creates an empty log of a source.
    pub(crate) fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            meters: (0..7).map(|number| format!("M{number}")).collect(),
            log: vec![Vec::new(); PARTITIONS as usize],
            lifted: RefCell::default(),
            folded: RefCell::default(),
        }
    }

    /// Returns the end of one log partition.
    pub(crate) fn end(&self, partition: u32) -> u64 {
        self.log[partition as usize].len() as u64
    }

    /// Appends something random: a reading, now and then in the wrong
    /// partition, resent, or followed by a hole or a broken record.
    pub(crate) fn append(&mut self, rng: &mut StdRng, rates: &[u32]) {
        let total: u32 = rates.iter().sum();
        let mut pick = rng.random_range(0..total);
        let home = (0..PARTITIONS).find(|&l| {
            let hit = pick < rates[l as usize];
            pick = pick.saturating_sub(rates[l as usize]);
            hit
        });
        let home = home.expect("the rates add up");
        let meters: Vec<&String> =
            self.meters.iter().filter(|m| partition_for_key(m.as_bytes(), PARTITIONS) == home).collect();
        if meters.is_empty() {
            return;
        }
        let reading = Rc::new(Reading {
            usage_point: choose(rng, &meters).to_string(),
            channel: choose(rng, &["E1", "B1"]),
            start: choose(rng, &STARTS),
            value: choose(rng, &VALUES),
            quality: choose(rng, &QUALITIES),
            version: choose(rng, &[1, 1, 2, 2, 3, 4]),
        });
        let place = if rng.random_bool(0.05) { rng.random_range(0..PARTITIONS) } else { home };
        let log = &mut self.log[place as usize];
        log.push(Slot::Reading(reading));
        if rng.random_bool(0.1) {
            let again = log[rng.random_range(0..log.len())].clone();
            log.push(again);
        }
        if rng.random_bool(0.08) {
            log.push(Slot::Hole);
        }
        if rng.random_bool(0.04) {
            log.push(Slot::Garbage);
        }
    }

    /// Loses the last slot of each log partition, which no log may that has acknowledged them.
    pub(crate) fn lose_end(&mut self) {
        self.log.iter_mut().for_each(|slots| _ = slots.pop());
    }

    /// Reads `[from, to)` of one log partition as the log would give it.
    pub(crate) fn chunk(&self, partition: u32, from: u64, to: u64) -> Chunk {
        let record = |offset: u64| {
            let (key, payload) = match &self.log[partition as usize][offset as usize] {
                Slot::Hole => return None,
                Slot::Garbage => (b"M0".to_vec(), b"{\"usage_point\": 7".to_vec()),
                Slot::Reading(reading) => {
                    (reading.usage_point.clone().into_bytes(), reading.payload().into_bytes())
                }
            };
            let (key, payload) = (Some(Bytes::from(key)), Bytes::from(payload));
            Some(Record { offset, append_time_us: 1_800_000_000_000_000, key, payload })
        };
        Chunk { from, to, records: (from..to).filter_map(record).collect() }
    }

    /// The newest reading of each identity below an offset, with its offset.
    fn newest(&self, partition: u32, below: u64) -> Vec<(u64, Rc<Reading>)> {
        let mut newest: BTreeMap<(&str, &str, &str), (u64, &Rc<Reading>)> = BTreeMap::new();
        for (offset, slot) in (0..below).zip(&self.log[partition as usize]) {
            let Slot::Reading(reading) = slot else { continue };
            if reading.home() != partition {
                continue;
            }
            match newest.get(&reading.identity()) {
                Some((_, known)) if known.version >= reading.version => {}
                _ => {
                    newest.insert(reading.identity(), (offset, reading));
                }
            }
        }
        newest.into_values().map(|(offset, reading)| (offset, Rc::clone(reading))).collect()
    }

    /// The newest-version table at an offset, as an index is rebuilt from it.
    pub(crate) fn base(&self, partition: u32, below: u64) -> Vec<(Bytes, Version)> {
        let newest = self.newest(partition, below);
        let payloads: Vec<String> = newest.iter().map(|(_, reading)| reading.payload()).collect();
        let rows = self.source.decode(payloads.iter().map(|payload| payload.as_bytes())).rows;
        let identities = self.source.identities(&rows);
        let contents = self.source.contents(&rows);
        let encoded = self.source.encode_rows(&rows);
        let rows = newest.iter().zip(identities).zip(contents).zip(encoded);
        rows.map(|((((offset, reading), identity), content), row)| {
            (
                identity,
                Version { offset: *offset, version: reading.version, content: *content.as_bytes(), row },
            )
        })
        .collect()
    }

    fn lift(&self, view: &View, reading: &Rc<Reading>) -> Contributions {
        let key = (view.fingerprint, Rc::clone(reading));
        let lift = || {
            let payload = reading.payload();
            let lifted = view.lift(&self.source.decode([payload.as_bytes()]).rows);
            assert!(lifted.errors.is_empty(), "{:?}", lifted.errors);
            Rc::new(lifted.rows().map(|row| lifted.grouped.row(row.at as usize)).collect())
        };
        Rc::clone(self.lifted.borrow_mut().entry(key).or_insert_with(lift))
    }

    /// Folds one log partition's prefix naively, apart by view partition.
    pub(crate) fn fold_one(&self, view: &View, partition: u32, below: u64) -> Folded {
        let key = (view.fingerprint, partition, below);
        if let Some(known) = self.folded.borrow().get(&key) {
            return Rc::clone(known);
        }
        let mut groups = vec![Groups::new(); view.partitions as usize];
        for (_, reading) in self.newest(partition, below) {
            for (group, inputs) in self.lift(view, &reading).iter() {
                let home = view.partition_of(&group.key) as usize;
                groups[home].update_one(&view.kinds, group, inputs, 1);
            }
        }
        let groups = Rc::new(groups);
        self.folded.borrow_mut().insert(key, Rc::clone(&groups));
        groups
    }

    /// Folds a prefix of every log partition naively, for one view partition.
    pub(crate) fn fold(&self, view: &View, index: u32, below: &[u64]) -> Groups {
        let mut total = Groups::new();
        for (partition, &below) in (0..).zip(below) {
            total.combine(&self.fold_one(view, partition, below)[index as usize]);
        }
        total
    }

    /// What batch makes of one segment: the prefix with it less the prefix before it.
    pub(crate) fn segment(&self, view: &View, index: u32, partition: u32, from: u64, to: u64) -> Groups {
        let mut groups = self.fold_one(view, partition, to)[index as usize].clone();
        groups.retract(&self.fold_one(view, partition, from)[index as usize]);
        groups
    }

    /// Where quarantined records must be, and why, by a plain reading of the log.
    pub(crate) fn refused(&self) -> BTreeSet<(u32, u64, &'static str)> {
        let mut refused = BTreeSet::new();
        for partition in 0..PARTITIONS {
            let mut newest: BTreeMap<(&str, &str, &str), &Rc<Reading>> = BTreeMap::new();
            for (offset, slot) in (0..).zip(&self.log[partition as usize]) {
                let kind = match slot {
                    Slot::Hole => continue,
                    Slot::Garbage => "undecodable",
                    Slot::Reading(reading) if reading.home() != partition => "misplaced",
                    Slot::Reading(reading) => match newest.get(&reading.identity()) {
                        Some(known) if known.version == reading.version && known != &reading => "conflict",
                        Some(known) if known.version >= reading.version => continue,
                        _ => {
                            newest.insert(reading.identity(), reading);
                            continue;
                        }
                    },
                };
                refused.insert((partition, offset, kind));
            }
        }
        refused
    }
}

/// Picks one of several.
pub(crate) fn choose<T: Clone>(rng: &mut impl Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}
