//! The sum as one would write it by hand: open addressing, linear probing, a multiplicative hash, no slot
//! ever removed, keys that are numbers.

use std::hint::black_box;
use std::thread;

use super::tuples::{Digest, Total, Tuple};
use super::{Cost, Work, measured};

/// Runs it in as many threads, each with a table of its own; these are added up afterwards.
pub(super) fn run(work: &Work, tuples: &[Tuple]) -> anyhow::Result<(Cost, Digest)> {
    let share = tuples.len().div_ceil(work.threads);
    let aggregate = || {
        thread::scope(|scope| {
            let threads: Vec<_> =
                tuples.chunks(share).map(|tuples| scope.spawn(|| aggregate(tuples, work.keys))).collect();
            let tables = threads.into_iter().map(|thread| thread.join().expect("the loop does not panic"));
            Ok(tables.reduce(added).unwrap_or_default())
        })
    };
    let (totals, cost) = measured(aggregate)?;
    Ok((cost, Digest::of((0..).zip(totals))))
}

fn added(mut all: Vec<Total>, more: Vec<Total>) -> Vec<Total> {
    for (total, more) in all.iter_mut().zip(more) {
        total.sum += more.sum;
        total.count += more.count;
    }
    all
}

/// Adds up in this thread; the result has a place for each key.
pub(crate) fn aggregate(tuples: &[Tuple], keys: u32) -> Vec<Total> {
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
