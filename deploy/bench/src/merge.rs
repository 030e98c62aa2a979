//! The late-merge engine alone, in one thread: rows whose keys (text, encoded and
//! hashed) and inputs are known already are grouped into deltas, and the deltas
//! merged into view partitions. Against a plain loop over a hash table of our own,
//! whose keys are numbers.
//!
//! Lifting (decoding, joining, evaluating) is not in it. Every view partition
//! keeps its segments until batch covers them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use sanso_state::{
    AggregateKind, Block, Cut, Delta, Entry, Fingerprint, GroupedRows, Groups, LogPartition, Outcome,
    Segments, ViewPartition, ViewPartitionConfig, partition_of,
};

use crate::contest::Work;
use crate::contest::hash_loop;
use crate::contest::state::{SPAN, chosen, kinds, lifted, names, total};
use crate::contest::tuples::{Total, Tuple, generate};
use crate::figure::Figure;

const SEGMENT: usize = 1 << 20;
const TUPLES: usize = 96 * SEGMENT;
/// Batch covers so many segments at a time.
const ADOPTED_SEGMENTS: usize = 8;
const VIEW_PARTITIONS: u32 = 4;

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    let cases = [
        ("100 k keys, uniform", 100_000, 0),
        ("100 k keys, 10 % on one", 100_000, 10),
        ("100 k keys, 90 % on one", 100_000, 90),
        ("1 M keys, uniform", 1_000_000, 0),
        ("10 M keys, uniform", 10_000_000, 0),
    ];
    let mut figures = Vec::new();
    for (name, keys, hot_percent) in cases {
        let tuples = generate(&Work { tuples: TUPLES as u64, keys, hot_percent, ..Work::default() });
        let start = Instant::now();
        let expected = hash_loop::aggregate(&tuples, keys);
        let loop_s = start.elapsed().as_secs_f64();
        let names = names(keys);
        let engine = engine(&tuples, &names)?;
        check(&engine.partitions, &names, &expected)?;
        let rate = |seconds: f64| TUPLES as f64 / seconds;
        figures.push(
            Figure::rate(name, rate(engine.group_s + engine.merge_s + engine.adopt_s), "tuples/s")
                .against("a plain loop", rate(loop_s)),
        );
        figures.push(Figure::cost(format!("{name}: grouping"), engine.group_s, "s"));
        figures.push(Figure::cost(format!("{name}: merging"), engine.merge_s, "s"));
        figures.push(Figure::cost(format!("{name}: adopting"), engine.adopt_s, "s"));
    }
    figures.push(Figure::cost("peak memory", crate::load::peak_mb(std::process::id())?, "MB"));
    Ok(figures)
}

struct Engine {
    partitions: Vec<ViewPartition>,
    group_s: f64,
    merge_s: f64,
    adopt_s: f64,
}

/// Runs the tuples through grouping and late merge, a delta a segment, and
/// adopts a batch version every few segments.
fn engine(tuples: &[Tuple], names: &[Box<[u8]>]) -> anyhow::Result<Engine> {
    let kinds = kinds()?;
    let view = Fingerprint::of(b"bench");
    let segments = Segments::new(SEGMENT as u64);
    let config = ViewPartitionConfig { view, kinds: Arc::clone(&kinds), segments };
    let new = || ViewPartition::new(config.clone(), Arc::new(Block::empty(view, 1)));
    let mut engine = Engine {
        partitions: (0..VIEW_PARTITIONS).map(|_| new()).collect(),
        group_s: 0.0,
        merge_s: 0.0,
        adopt_s: 0.0,
    };
    for (index, segment) in tuples.chunks(SEGMENT).enumerate() {
        let mut open = vec![Groups::new(); VIEW_PARTITIONS as usize];
        for span in segment.chunks(SPAN) {
            let rows = lifted(span, names);
            let start = Instant::now();
            group(&kinds, &rows, &mut open);
            engine.group_s += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        let from = (index * SEGMENT) as u64;
        let to = from + segment.len() as u64;
        for (partition, groups) in engine.partitions.iter_mut().zip(open) {
            let delta =
                Delta { view, partition: LogPartition(0), from, to, groups, watermark_us: None, idle: false };
            let outcome = partition.apply(Entry::Delta(delta));
            ensure!(outcome == Outcome::Accepted { applied: to }, "a delta was not accepted: {outcome:?}");
        }
        engine.merge_s += start.elapsed().as_secs_f64();
        if (index + 1) % ADOPTED_SEGMENTS == 0 {
            engine.adopt(view, to)?;
        }
    }
    Ok(engine)
}

/// Groups rows as a worker does: each view partition takes its own.
fn group(kinds: &[AggregateKind], rows: &GroupedRows, open: &mut [Groups]) {
    let chosen = chosen(rows, VIEW_PARTITIONS);
    open.iter_mut().zip(chosen).for_each(|(groups, chosen)| groups.update(kinds, rows, &chosen, 1));
}

impl Engine {
    /// Adopts what batch would have published at `to`; making that is not measured.
    fn adopt(&mut self, view: Fingerprint, to: u64) -> anyhow::Result<()> {
        for partition in &mut self.partitions {
            let block = Arc::new(Block {
                view,
                version: partition.version() + 1,
                cut: Cut::new(vec![to]),
                watermarks_us: vec![None],
                groups: partition.all().into_iter().collect(),
            });
            let start = Instant::now();
            let outcome = partition.apply(Entry::Adopt(block));
            self.adopt_s += start.elapsed().as_secs_f64();
            ensure!(outcome == Outcome::Adopted, "a block was not adopted: {outcome:?}");
        }
        Ok(())
    }
}

/// Holds what the engine has against what the loop has, key by key.
fn check(partitions: &[ViewPartition], names: &[Box<[u8]>], expected: &[Total]) -> anyhow::Result<()> {
    for (name, expected) in names.iter().zip(expected) {
        let home = partition_of(name, VIEW_PARTITIONS) as usize;
        let partition = &partitions[home];
        let found = partition.range(name, 0, 1);
        let found = total(partition.kinds(), found.first().map(|(_, state)| state))?;
        ensure!(
            (found.sum, found.count) == (expected.sum, expected.count),
            "the engine has {found:?}, the loop {expected:?}"
        );
    }
    Ok(())
}
