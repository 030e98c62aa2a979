//! The late-merge engine alone, in one thread: rows whose keys (text, encoded and
//! hashed) and inputs are known already are grouped into deltas, and the deltas
//! merged into view partitions. Against a plain loop over a hash table of our own,
//! whose keys are numbers.
//!
//! Lifting (decoding, joining, evaluating) is not in it. Every view partition
//! keeps its segments until batch covers them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use sanso_state::{
    AggregateFunction, AggregateKind, Block, Cut, Delta, Entry, Fingerprint, GroupedRows, Groups, Inputs,
    LogPartition, Outcome, Segments, Value, ValueType, ViewPartition, ViewPartitionConfig, partition_of,
};

use crate::figure::Figure;

const SEGMENT: usize = 1 << 20;
const TUPLES: usize = 96 * SEGMENT;
/// The rows that a worker takes at a time.
const SPAN: usize = 8_192;
/// Batch covers so many segments at a time.
const ADOPTED_SEGMENTS: usize = 8;
const VIEW_PARTITIONS: u32 = 4;
const VALUE: ValueType = ValueType::Decimal { precision: 18, scale: 6 };

/// A reading of a meter; all lie in one window, so a key is a group.
#[derive(Clone, Copy)]
struct Tuple {
    key: u32,
    value: i64,
}

/// Sum and number of one key's values.
#[derive(Clone, Copy, Default)]
struct Total {
    sum: i128,
    count: i64,
}

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
        let tuples = generate(keys, hot_percent);
        let start = Instant::now();
        let expected = hash_loop(&tuples, keys);
        let loop_s = start.elapsed().as_secs_f64();
        let names: Vec<Box<[u8]>> =
            (0..keys).map(|key| Value::encode_key(&[Value::text(format!("meter-{key:08}"))])).collect();
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

/// The same tuples in every run: a 64-bit generator (SplitMix64) from a fixed seed.
fn generate(keys: u32, hot_percent: u64) -> Vec<Tuple> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut tuple = || {
        let hot = next() % 100 < hot_percent;
        let key = if hot { 0 } else { (((next() >> 32) * u64::from(keys)) >> 32) as u32 };
        Tuple { key, value: (next() % 2_000_000) as i64 }
    };
    (0..TUPLES).map(|_| tuple()).collect()
}

/// Aggregates as one would by hand: open addressing, linear probing, a
/// multiplicative hash, no slot ever removed.
fn hash_loop(tuples: &[Tuple], keys: u32) -> Vec<Total> {
    const EMPTY: u32 = u32::MAX;
    let bits = (u64::from(keys) * 2).next_power_of_two().trailing_zeros();
    let mask = (1_usize << bits) - 1;
    let mut slots = vec![(EMPTY, Total::default()); mask + 1];
    for tuple in tuples {
        let hash = u64::from(tuple.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = (hash >> (64 - bits)) as usize;
        while slots[at].0 != tuple.key && slots[at].0 != EMPTY {
            at = (at + 1) & mask;
        }
        let (key, total) = &mut slots[at];
        *key = tuple.key;
        total.sum += i128::from(tuple.value);
        total.count += 1;
    }
    let mut totals = vec![Total::default(); keys as usize];
    black_box(&slots).iter().filter(|(key, _)| *key != EMPTY).for_each(|(k, total)| {
        totals[*k as usize] = *total;
    });
    totals
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
    let kind = |function, input| AggregateKind::typed(function, input).map_err(anyhow::Error::msg);
    let kinds: Arc<[AggregateKind]> =
        [kind(AggregateFunction::Sum, Some(VALUE))?, kind(AggregateFunction::CountRows, None)?].into();
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

/// Makes of tuples what a view lifts of readings; not measured.
fn lifted(span: &[Tuple], names: &[Box<[u8]>]) -> GroupedRows {
    let mut rows = GroupedRows { windows: vec![0; span.len()], ..GroupedRows::default() };
    span.iter().for_each(|tuple| rows.keys.push(&names[tuple.key as usize]));
    let values = span.iter().map(|tuple| Some(tuple.value.into())).collect();
    rows.inputs = vec![Inputs::Numbers(values), Inputs::Rows(None)];
    rows
}

/// Groups rows as a worker does: each view partition takes its own.
fn group(kinds: &[AggregateKind], rows: &GroupedRows, open: &mut [Groups]) {
    let mut chosen = vec![Vec::with_capacity(rows.windows.len()); VIEW_PARTITIONS as usize];
    for row in 0..rows.windows.len() {
        chosen[rows.keys.partition(row, VIEW_PARTITIONS) as usize].push(row as u32);
    }
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
    for (name, total) in names.iter().zip(expected) {
        let home = partition_of(name, VIEW_PARTITIONS) as usize;
        let partition = &partitions[home];
        let found = partition.range(name, 0, 1);
        let rows = found.first().map_or(0, |(_, state)| state.rows);
        ensure!(rows == total.count, "the engine counts {rows}, the loop {}", total.count);
        let Some((_, state)) = found.first() else { continue };
        let sum = partition.kinds()[0].finish(&state.aggregates[0]);
        ensure!(sum == Value::Decimal(total.sum), "the engine sums {sum:?}, the loop {}", total.sum);
    }
    Ok(())
}
