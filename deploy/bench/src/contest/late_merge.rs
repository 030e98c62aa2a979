//! Late merge, as the speed layer does it: each thread is the worker of a log partition and groups whatever
//! comes; only what it has grouped goes to the key's home.
//!
//! ```text
//!   tuples ─▶ worker: groups of all keys ──deltas──▶ view partition (a lock each)
//! ```

use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::ensure;
use sanso_state::{
    Block, Delta, Entry, Fingerprint, GroupedRows, Groups, LogPartition, Outcome, Segments, ViewPartition,
    ViewPartitionConfig, partition_of,
};

use super::state::{SPAN, chosen, kinds, lifted, names, total};
use super::tuples::{Digest, Tuple};
use super::{Cost, Work, measured};

const VIEW_PARTITIONS: u32 = 4;

/// Runs it. Lifting (keys encoded and hashed) is not measured; view partitions keep their segments, as
/// they do until batch covers them.
pub(super) fn run(work: &Work, tuples: &[Tuple]) -> anyhow::Result<(Cost, Digest)> {
    let (kinds, names) = (kinds()?, names(work.keys));
    let segments = Segments::new(work.delta_rows as u64);
    let config = ViewPartitionConfig { view: Fingerprint::of(b"contest"), kinds, segments };
    let base = Arc::new(Block::empty(config.view, work.threads as u32));
    let new = || Mutex::new(ViewPartition::new(config.clone(), Arc::clone(&base)));
    let partitions: Vec<_> = (0..VIEW_PARTITIONS).map(|_| new()).collect();
    let share = tuples.len().div_ceil(work.threads);
    let shares: Vec<Vec<Vec<GroupedRows>>> = tuples
        .chunks(share)
        .map(|share| {
            let delta = |tuples: &[Tuple]| tuples.chunks(SPAN).map(|span| lifted(span, &names)).collect();
            share.chunks(work.delta_rows).map(delta).collect()
        })
        .collect();
    let feed_all = || {
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for (log, deltas) in (0..).zip(&shares) {
                let (config, partitions) = (&config, &partitions);
                threads.push(scope.spawn(move || feed(LogPartition(log), deltas, config, partitions)));
            }
            threads.into_iter().try_for_each(|thread| thread.join().expect("a worker does not panic"))
        })
    };
    let ((), cost) = measured(feed_all)?;
    let mut totals = Vec::with_capacity(names.len());
    for (key, name) in (0..).zip(&names) {
        let home = &partitions[partition_of(name, VIEW_PARTITIONS) as usize];
        let found = home.lock().expect("no panic while it is held").range(name, 0, 1);
        totals.push((key, total(&config.kinds, found.first().map(|(_, state)| state))?));
    }
    Ok((cost, Digest::of(totals.into_iter())))
}

/// A worker: groups the rows of a delta for each view partition, then sends it there.
fn feed(
    log: LogPartition,
    deltas: &[Vec<GroupedRows>],
    config: &ViewPartitionConfig,
    partitions: &[Mutex<ViewPartition>],
) -> anyhow::Result<()> {
    let mut from = 0;
    for spans in deltas {
        let mut open = vec![Groups::new(); partitions.len()];
        for rows in spans {
            let chosen = chosen(rows, VIEW_PARTITIONS);
            open.iter_mut().zip(chosen).for_each(|(groups, of)| groups.update(&config.kinds, rows, &of, 1));
        }
        let to = from + spans.iter().map(|rows| rows.windows.len() as u64).sum::<u64>();
        for (partition, groups) in partitions.iter().zip(open) {
            let delta = Delta {
                view: config.view,
                partition: log,
                from,
                to,
                groups,
                watermark_us: None,
                idle: false,
            };
            let mut partition = partition.lock().expect("no panic while it is held");
            let outcome = partition.apply(Entry::Delta(delta));
            ensure!(outcome == Outcome::Accepted { applied: to }, "a delta was not accepted: {outcome:?}");
        }
        from = to;
    }
    Ok(())
}
