//! The law in a cluster: the three layers on the replication core, in a simulated world.
//!
//! ```text
//!   producers ─▶ log ─▶ workers of five nodes ─▶ primaries ─▶ replicas ─▶ serving ─▶ readers
//!                  └──▶ batch, on one node ─▶ dataset ─▶ adoption ─┘
//! ```
//!
//! Each node runs the real core with real view partitions, the real workers for the log partitions
//! that the map gives it, serving, and batch when it is its turn; log, dataset and disks are in
//! memory and outlive the processes. What drives the engines (`speed`, `batch`, `serving`, `store`)
//! follows the product's drivers step by step, as tasks that one seed orders. Messages of
//! replication and writes go through their encoding.
//!
//! After every step a primary's view partitions are held against a naive fold of the prefix that
//! they say they have applied, replicas against each other, and every answer against the fold and
//! against what its reader has seen. With one fault alone a read stands still no longer than
//! [`READ_STALL_US`], and what is appended is seen within [`VISIBLE_US`]. At the end everything
//! acknowledged is in every replica of every view, once.
//!
//! `SANSO_LAYERS_SEEDS=10000 SANSO_LAW_START=0` runs more; `TRACE=1` tells what happens.

mod batch;
mod calls;
mod clients;
mod layers;
mod mutant;
mod outside;
mod plan;
mod process;
mod serving;
mod speed;
mod store;
mod truth;

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::cluster::sim::{Kind, Outcome, Setting, Violation, World};

use self::clients::Habit;
use self::layers::Layers;
pub use self::mutant::{MUTANTS, Mutant};
use crate::Declared;

/// Partitions of the cluster, and the replicas of each.
const CORE_PARTITIONS: u32 = 2;
const REPLICAS: usize = 3;

/// With one fault alone, the longest that a read may take which waits for nothing that its reader
/// has seen, in microseconds of simulated time.
pub const READ_STALL_US: u64 = 100_000;
/// With one fault alone, the longest until a reader sees what was appended before it asked.
pub const VISIBLE_US: u64 = 1_500_000;

/// What one run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Of the world.
    pub outcome: Outcome,
    /// How often each kind of event happened.
    pub happened: BTreeMap<&'static str, u64>,
    /// How many answers were given.
    pub reads: u64,
    /// The longest read that waited for nothing its reader had seen, in microseconds.
    pub worst_read_us: u64,
    /// The longest read of a reader that never goes back.
    pub worst_seen_us: u64,
    /// The longest until a reader saw what was appended.
    pub worst_visible_us: u64,
}

/// Runs seeds of the layers; keeps what is the same for all of them.
pub struct Simulation(Vec<Arc<Declared>>);

impl Default for Simulation {
    fn default() -> Self {
        Self([4, 7, 16].map(|segment| Arc::new(crate::declare(segment, "readings"))).into())
    }
}

impl Simulation {
    /// Runs one seed, perhaps with a rule that is broken. An error says which promise was not kept,
    /// stalls included.
    pub fn run(&self, seed: u64, mutant: Option<Mutant>) -> Result<Ran, Violation> {
        let declared = &self.0[seed as usize % self.0.len()];
        let setting = Setting::new(CORE_PARTITIONS, REPLICAS);
        let mut world = World::new(seed, setting, plan::draw, |rng, _| Layers::new(rng, declared, mutant));
        let outcome = world.run().map_err(|violation| format!("seed {seed}, {violation}"))?;
        let layers = world.guests;
        let ran = Ran {
            outcome,
            reads: layers.readers.iter().map(|reader| reader.done).sum(),
            worst_read_us: layers.worst_us(Habit::Forgets),
            worst_seen_us: layers.worst_us(Habit::Remembers),
            worst_visible_us: layers.worst_us(Habit::Watches),
            happened: layers.happened,
        };
        match ran.outcome.single {
            Some(fault) => ran.within_bounds(seed, fault),
            None => Ok(ran),
        }
    }
}

impl Ran {
    fn within_bounds(self, seed: u64, fault: Kind) -> Result<Self, Violation> {
        let reads = [("a read", self.worst_read_us, READ_STALL_US)];
        let seen = [
            ("what was appended", self.worst_visible_us, VISIBLE_US),
            ("what was seen", self.worst_seen_us, VISIBLE_US),
        ];
        for (what, worst_us, bound_us) in reads.into_iter().chain(seen) {
            if worst_us > bound_us {
                return Err(format!(
                    "seed {seed}, {fault:?}: {what} took {worst_us} us, the bound is {bound_us}"
                ));
            }
        }
        if self.outcome.lives_lost > 0 {
            return Err(format!(
                "seed {seed}, {fault:?}: one fault lost {} partitions",
                self.outcome.lives_lost
            ));
        }
        Ok(self)
    }
}
