//! What all contenders are given, and what their results are compared by.

use serde::{Deserialize, Serialize};

use super::Work;

/// A reading of a meter; all lie in one window, so a key is a group.
#[derive(Clone, Copy)]
pub(crate) struct Tuple {
    pub(crate) key: u32,
    pub(crate) value: i64,
}

/// Sum and number of one key's values.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) sum: i128,
    pub(crate) count: i64,
}

/// All totals in a few numbers that don't depend on their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// Keys that have tuples.
    pub(crate) groups: u64,
    /// Tuples.
    pub(crate) rows: u64,
    /// Their sum.
    pub(crate) sum: i64,
    /// The totals, each mixed with its key; as text, since it has 64 bits.
    pub(crate) mixed: String,
}

impl Digest {
    /// Makes it of each key's total.
    pub(crate) fn of(totals: impl Iterator<Item = (u32, Total)>) -> Self {
        let (mut digest, mut mixed) = (Self::default(), 0_u64);
        for (key, total) in totals.filter(|(_, total)| total.count != 0) {
            // A key of 20 M tuples below 2 M sums to less than 2^63.
            let (key, sum, count) = (u64::from(key), total.sum as u64, total.count as u64);
            digest.groups += 1;
            digest.rows += count;
            digest.sum += sum as i64;
            let (of_sum, of_count) = (mix(key + 1).wrapping_mul(sum), mix(!key).wrapping_mul(count));
            mixed = mixed.wrapping_add(of_sum).wrapping_add(of_count);
        }
        Self { mixed: mixed.to_string(), ..digest }
    }
}

/// Makes the same tuples in every run. Each is a function of its number, so that another program makes them alike.
pub(crate) fn generate(work: &Work) -> Vec<Tuple> {
    let tuple = |number: u64| {
        let hot = draw(3 * number) % 100 < work.hot_percent;
        let key = if hot { 0 } else { ((draw(3 * number + 1) >> 32) * u64::from(work.keys)) >> 32 };
        Tuple { key: key as u32, value: (draw(3 * number + 2) % 2_000_000) as i64 }
    };
    (0..work.tuples).map(tuple).collect()
}

/// The n-th number of a 64-bit generator (SplitMix64) from a fixed seed.
fn draw(n: u64) -> u64 {
    mix((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::hash_loop;

    /// What Flink.java printed for `2000000 100000 10`: were its tuples others, no result of it would be comparable.
    #[test]
    fn the_tuples_are_those_of_the_java_program() {
        let work = Work { tuples: 2_000_000, keys: 100_000, hot_percent: 10, ..Work::default() };
        let totals = hash_loop::aggregate(&generate(&work), work.keys);
        let digest = Digest::of((0..).zip(totals));
        let mixed = "10682252820232941141".to_owned();
        assert_eq!(digest, Digest { groups: 100_000, rows: 2_000_000, sum: 2_001_093_221_894, mixed });
    }

    #[test]
    fn a_digest_tells_which_key_a_total_is_of() {
        let (small, large) = (Total { sum: 1, count: 1 }, Total { sum: 2, count: 1 });
        let digest = |totals: [(u32, Total); 2]| Digest::of(totals.into_iter());
        assert_ne!(digest([(1, small), (2, large)]), digest([(1, large), (2, small)]));
        assert_eq!(digest([(1, small), (2, large)]), digest([(2, large), (1, small)]));
    }
}
