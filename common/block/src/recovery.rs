//! The cheapest way to a block that is not at hand. Pure.
//!
//! Costs are exponential averages of what was measured, kept for each dataset by who asks. A way that
//! is not taken can't be measured, so what is known of it fades towards what was assumed at first:
//! a disk that was slow once is tried again some time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a block can be had. The order decides between equal costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// This node's memory.
    Memory,
    /// This node's disk.
    Disk,
    /// Another node's memory.
    Replica,
    /// The dataset in its object store.
    Dataset,
    /// The block's inputs, from which it is computed again.
    Recompute,
}

impl Way {
    /// Nanoseconds that a byte takes as long as nothing was measured.
    fn assumed_ns(self) -> f64 {
        match self {
            Self::Memory => 0.0,
            Self::Disk => 5.0,
            Self::Replica => 10.0,
            Self::Dataset => 20.0,
            Self::Recompute => 200.0,
        }
    }
}

impl Way {
    /// All of them, the nearest first.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Disk, Self::Replica, Self::Dataset, Self::Recompute];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Replica => "replica",
            Self::Dataset => "dataset",
            Self::Recompute => "recompute",
        })
    }
}

/// How many blocks were had in which way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Taken(BTreeMap<Way, u64>);

impl Taken {
    /// Counts a block.
    pub fn count(&mut self, way: Way) {
        *self.0.entry(way).or_default() += 1;
    }

    /// Says whether no block was needed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Taken {
    /// As `memory 12, replica 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ways: Vec<String> = self.0.iter().map(|(way, count)| format!("{way} {count}")).collect();
        f.write_str(&if ways.is_empty() { "nothing".to_owned() } else { ways.join(", ") })
    }
}

/// A block that can be had in a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The way.
    pub way: Way,
    /// The bytes to be moved: of the file or message; of all inputs where it is computed again.
    pub bytes: u64,
}

/// Share of the newest measurement in an average.
const NEWEST: f64 = 0.125;
/// Share by which what is known of the other ways fades with each measurement.
const FADING: f64 = 1.0 / 64.0;
/// Bytes that every block costs beside its own, so that tiny ones are not thought to be free.
const EACH_BYTES: f64 = 4096.0;

/// What the ways to the blocks of one dataset cost, as measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs(BTreeMap<Way, Known>);

/// What is known of a way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    /// Nanoseconds a byte.
    ns: f64,
    /// How often it was measured.
    measured: u64,
}

impl Costs {
    /// Notes how long it took to have a block in a way that was chosen among others.
    pub fn observe(&mut self, offer: Offer, took: Duration) {
        for (way, known) in &mut self.0 {
            if *way != offer.way {
                known.ns += (way.assumed_ns() - known.ns) * FADING;
            }
        }
        self.note(offer, took);
    }

    /// Notes how long it took to have a block in a way, when there was no choice.
    pub fn note(&mut self, offer: Offer, took: Duration) {
        let measured = took.as_nanos() as f64 / (offer.bytes as f64 + EACH_BYTES);
        // The first measurement replaces what was assumed.
        let known = self.0.entry(offer.way).or_insert(Known { ns: measured, measured: 0 });
        known.ns += (measured - known.ns) * NEWEST;
        known.measured += 1;
    }

    /// Returns how often a way was measured.
    pub fn measured(&self, way: Way) -> u64 {
        self.0.get(&way).map_or(0, |known| known.measured)
    }

    /// Returns how long it will take, by what is known.
    pub fn estimate(&self, offer: Offer) -> Duration {
        let a_byte = self.0.get(&offer.way).map_or_else(|| offer.way.assumed_ns(), |known| known.ns);
        Duration::from_nanos((a_byte * (offer.bytes as f64 + EACH_BYTES)) as u64)
    }

    /// Chooses a way; none where none is offered. The nearest, unless a farther one was measured to be
    /// cheaper: what is only assumed turns nobody away from what is at hand.
    pub fn cheapest(&self, offers: &[Offer]) -> Option<Offer> {
        let nearest = offers.iter().copied().min_by_key(|offer| offer.way)?;
        let measured = offers.iter().copied().filter(|offer| self.0.contains_key(&offer.way));
        Some(measured.fold(
            nearest,
            |best, other| {
                if self.estimate(other) < self.estimate(best) { other } else { best }
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn offer(way: Way, bytes: u64) -> Offer {
        Offer { way, bytes }
    }

    fn chosen(costs: &Costs, offers: &[Offer]) -> Option<Way> {
        costs.cheapest(offers).map(|offer| offer.way)
    }

    #[test]
    fn nearer_is_cheaper_until_it_was_measured() {
        use Way::{Dataset, Disk, Memory, Recompute, Replica};
        let mut ways = [Recompute, Dataset, Replica, Disk, Memory].map(|way| offer(way, MB)).to_vec();
        let costs = Costs::default();
        for nearest in [Memory, Disk, Replica, Dataset, Recompute] {
            assert_eq!(chosen(&costs, &ways), Some(nearest));
            ways.pop();
        }
        assert_eq!(chosen(&costs, &[]), None);
    }

    #[test]
    fn size_decides_between_equal_rates_and_rates_between_equal_sizes() {
        let mut costs = Costs::default();
        let offers = [offer(Way::Disk, 20 * MB), offer(Way::Dataset, MB)];
        assert_eq!(chosen(&costs, &offers), Some(Way::Disk), "what is assumed is no measurement");
        costs.observe(offer(Way::Dataset, MB), Duration::from_millis(20));
        assert_eq!(chosen(&costs, &offers), Some(Way::Dataset));
        let mut costs = Costs::default();
        costs.observe(offer(Way::Disk, MB), Duration::from_secs(1));
        costs.observe(offer(Way::Recompute, MB), Duration::from_millis(3));
        let offers = [offer(Way::Disk, MB), offer(Way::Dataset, MB), offer(Way::Recompute, MB)];
        assert_eq!(chosen(&costs, &offers), Some(Way::Recompute));
    }

    #[test]
    fn one_outlier_does_not_turn_a_choice_and_many_do() {
        let mut costs = Costs::default();
        let offers = [offer(Way::Disk, MB), offer(Way::Dataset, MB)];
        for _ in 0..20 {
            costs.observe(offers[0], Duration::from_millis(5));
            costs.observe(offers[1], Duration::from_millis(20));
        }
        costs.observe(offers[0], Duration::from_millis(50));
        assert_eq!(chosen(&costs, &offers), Some(Way::Disk));
        for _ in 0..20 {
            costs.observe(offers[0], Duration::from_millis(50));
        }
        assert_eq!(chosen(&costs, &offers), Some(Way::Dataset));
    }

    #[test]
    fn what_was_slow_once_is_tried_again_some_time() {
        let mut costs = Costs::default();
        let offers = [offer(Way::Disk, MB), offer(Way::Dataset, MB)];
        costs.observe(offers[1], Duration::from_millis(20));
        costs.observe(offers[0], Duration::from_millis(100));
        let mut waited = 0;
        while chosen(&costs, &offers) != Some(Way::Disk) {
            costs.observe(offers[1], Duration::from_millis(20));
            waited += 1;
            assert!(waited < 1000, "never again");
        }
        assert!(waited > 50, "after {waited} others");
    }
}
