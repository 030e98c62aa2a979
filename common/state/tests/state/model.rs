//! A log of corrected readings, and naively computed deltas, blocks and
//! contributions of it: three independent ways to the same groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use sanso_state::{
    AggregateFunction as F, AggregateKind, Block, Cut, Delta, Extension, Fingerprint, GroupId, GroupState,
    Groups, LogPartition, Offset, SegmentId, Segments, Value, ViewPartition, ViewPartitionConfig,
};

use crate::oracle::{inputs, kind};

pub(crate) const PARTITIONS: u32 = 3;
pub(crate) const SEGMENT: u64 = 4;
pub(crate) const PANE_US: i64 = 10;

/// One reading: the newest version of an identity counts, then the first.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    identity: (u8, i64),
    version: u8,
    feeder: i64,
    value: Option<Option<i64>>,
}

/// The records of each log partition.
#[derive(Clone, Debug)]
pub(crate) struct History(Vec<Vec<Record>>);

pub(crate) fn history() -> impl Strategy<Value = History> {
    let value =
        prop_oneof![6 => (-3_i64..4).prop_map(|v| Some(Some(v))), 1 => Just(Some(None)), 1 => Just(None)];
    let record =
        (0_u8..2, 0_i64..8, 0_u8..4, 0_i64..2, value).prop_map(|(meter, slot, version, feeder, value)| {
            Record { identity: (meter, slot * PANE_US / 2), version, feeder, value }
        });
    vec(vec(record, 22), PARTITIONS as usize).prop_map(History)
}

pub(crate) fn kinds() -> Arc<[AggregateKind]> {
    [F::CountRows, F::Sum, F::Max, F::Last, F::Quantile { per_million: 500_000 }].map(kind).into()
}

pub(crate) fn view() -> Fingerprint {
    Fingerprint::of(b"the view")
}

pub(crate) fn segments() -> Segments {
    Segments::new(SEGMENT)
}

pub(crate) fn config() -> ViewPartitionConfig {
    ViewPartitionConfig { view: view(), kinds: kinds(), segments: segments() }
}

impl Record {
    fn add_to(&self, groups: &mut Groups, sign: i64) {
        let kinds = kinds();
        let time = self.identity.1;
        let id = GroupId {
            key: Value::encode_key(&[Value::Int(self.feeder)]),
            window_start: time.div_euclid(PANE_US) * PANE_US,
        };
        groups.update_one(&kinds, &id, &inputs(&kinds, (self.value, time)), sign);
    }
}

impl History {
    pub(crate) fn head(&self, l: usize) -> Offset {
        self.0[l].len() as Offset
    }

    /// The newest record of each identity within a prefix of a log partition.
    fn newest(&self, l: usize, prefix: Offset) -> BTreeMap<(u8, i64), &Record> {
        let mut newest: BTreeMap<(u8, i64), &Record> = BTreeMap::new();
        for record in &self.0[l][..prefix as usize] {
            let held = newest.entry(record.identity).or_insert(record);
            if record.version > held.version {
                *held = record;
            }
        }
        newest
    }

    /// What a worker computes: each record against the newest before it.
    pub(crate) fn delta(&self, l: usize, from: Offset, to: Offset) -> Delta {
        let mut groups = Groups::new();
        for offset in from..to {
            let record = &self.0[l][offset as usize];
            match self.newest(l, offset).get(&record.identity) {
                Some(old) if record.version > old.version => {
                    old.add_to(&mut groups, -1);
                    record.add_to(&mut groups, 1);
                }
                Some(_) => {}
                None => record.add_to(&mut groups, 1),
            }
        }
        let watermark_us = self.watermark_us(l, to);
        Delta { view: view(), partition: LogPartition(l as u32), from, to, groups, watermark_us, idle: false }
    }

    /// What batch computes: everything that survives below the cut, added once.
    pub(crate) fn block(&self, version: u64, cut: &Cut) -> Block {
        let watermarks_us = cut.offsets().iter().enumerate().map(|(l, &o)| self.watermark_us(l, o)).collect();
        Block {
            view: view(),
            version,
            cut: cut.clone(),
            watermarks_us,
            groups: self.surviving(cut.offsets()),
        }
    }

    /// What batch contributes for one segment: identities' newest after it less before it.
    pub(crate) fn contribution(&self, id: SegmentId) -> Groups {
        let l = id.partition.index();
        let (before, after) = (self.newest(l, id.index * SEGMENT), self.newest(l, (id.index + 1) * SEGMENT));
        let mut groups = Groups::new();
        after.values().for_each(|record| record.add_to(&mut groups, 1));
        before.values().for_each(|record| record.add_to(&mut groups, -1));
        groups
    }

    /// The oracle: all groups of the rows that survive within the prefixes.
    pub(crate) fn surviving(&self, prefixes: &[Offset]) -> Groups {
        let mut groups = Groups::new();
        for (l, &prefix) in prefixes.iter().enumerate() {
            self.newest(l, prefix).values().for_each(|record| record.add_to(&mut groups, 1));
        }
        groups
    }

    fn watermark_us(&self, l: usize, prefix: Offset) -> Option<i64> {
        self.0[l][..prefix as usize].iter().map(|r| r.identity.1 - 3).max()
    }
}

/// What may happen to a view partition.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The right delta of at most this length; none of its offsets is a heartbeat.
    Next { l: usize, length: u64, idle: bool },
    /// Any range near the applied offset: replayed, skipping, crossing a boundary.
    Any { l: usize, shift: i64, length: u64 },
    /// Batch publishes so many more segments of each log partition.
    Publish { segments: [u64; PARTITIONS as usize] },
    /// One of the published versions is offered.
    Adopt { which: prop::sample::Index },
    /// The newest published version is offered.
    AdoptNewest,
    /// One of the published versions is offered by what it adds to another one.
    Extend { of: prop::sample::Index, which: prop::sample::Index },
    /// The newest published version is offered by what it adds to the one that is held, also while somebody
    /// shares that.
    ExtendToNewest { shared: bool },
    /// What of the base is in memory goes to a run, if it is as much as this.
    Spill { least: usize },
    /// It is to go to a run, and the disk is full.
    FailToSpill,
    /// All of the base comes into memory.
    Load,
    /// What is in memory is put together.
    Unite,
    /// What was published at some version comes in the place of the base, which a disk has lost.
    Mend { which: prop::sample::Index },
    /// All replicas are lost.
    Lose,
    /// A complete segment is rebuilt though it was right.
    Rebuild { which: prop::sample::Index },
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let l = 0..PARTITIONS as usize;
    let step = prop_oneof![
        12 => (l.clone(), 0..=SEGMENT, any::<bool>()).prop_map(|(l, length, idle)| Step::Next { l, length, idle }),
        4 => (l, -5_i64..=5, 0_u64..6).prop_map(|(l, shift, length)| Step::Any { l, shift, length }),
        2 => [0_u64..3, 0..3, 0..3].prop_map(|segments| Step::Publish { segments }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Adopt { which }),
        2 => Just(Step::AdoptNewest),
        1 => any::<[prop::sample::Index; 2]>().prop_map(|[of, which]| Step::Extend { of, which }),
        2 => any::<bool>().prop_map(|shared| Step::ExtendToNewest { shared }),
        3 => (0_usize..8).prop_map(|least| Step::Spill { least }),
        1 => Just(Step::FailToSpill),
        1 => Just(Step::Load),
        1 => Just(Step::Unite),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Mend { which }),
        1 => Just(Step::Lose),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::Rebuild { which }),
    ];
    vec(step, 1..60)
}

/// The published batch versions, version `k` at index `k`.
#[derive(Clone)]
pub(crate) struct Published(pub(crate) Vec<Arc<Block>>);

impl Published {
    pub(crate) fn new() -> Self {
        Self(vec![Arc::new(Block::empty(view(), PARTITIONS))])
    }

    pub(crate) fn newest(&self) -> Arc<Block> {
        Arc::clone(self.0.last().expect("starts with the empty block"))
    }

    /// Returns what a version adds to an older one.
    pub(crate) fn extension(&self, of: &Block, to: &Block) -> Extension {
        let mut added = to.clone();
        added.groups.retract(&of.groups);
        Extension { of: of.version, added: Arc::new(added) }
    }

    /// Returns what the newest version adds to another one.
    pub(crate) fn newest_of(&self, version: u64) -> Extension {
        self.extension(&self.0[version as usize], &self.newest())
    }

    pub(crate) fn publish(&mut self, history: &History, advance: &[u64]) {
        let held = self.newest();
        let offsets = held
            .cut
            .offsets()
            .iter()
            .zip(advance)
            .enumerate()
            .map(|(l, (&cut, &more))| (cut + more * SEGMENT).min(segments().floor(history.head(l))));
        let cut = Cut::new(offsets.collect());
        self.0.push(Arc::new(history.block(self.0.len() as u64, &cut)));
    }
}

/// The delta a worker sends next: to the end of the segment at most.
pub(crate) fn next_delta(
    history: &History,
    held: &ViewPartition,
    l: usize,
    length: u64,
    idle: bool,
) -> Delta {
    let from = held.applied()[l];
    let to = (from + length).min(segments().end_of(from)).min(history.head(l));
    Delta { idle, ..history.delta(l, from, to) }
}

/// The groups of rows in the form in which a view partition returns them.
pub(crate) fn listed(groups: Groups) -> Vec<(GroupId, GroupState)> {
    groups.iter().collect()
}
