//! How many nodes are to keep a dataset's blocks: what is declared, or what was measured to be worth it. Pure.
//!
//! A copy saves nothing but time, and only when a node is lost: whoever goes on with its share has the
//! blocks at hand instead of reading them from the dataset or computing them. So there is to be
//! one where that would take long, and where it fits.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sanso_state::{Replicas, Storage};
use serde::{Deserialize, Serialize};

use crate::recovery::{Costs, Offer, Way};

/// How much longer recovery may take than with a copy before a copy is worth its room and its way.
const WORTH: Duration = Duration::from_millis(300);
/// Blocks that are read or computed at the same time.
const AT_ONCE: u32 = 8;

/// What one node has of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of their files in the dataset.
    pub file_bytes: u64,
    /// Bytes of their rows in memory.
    pub memory_bytes: u64,
    /// Bytes of all that they are computed from.
    pub input_bytes: u64,
}

/// What there is room for beside what is kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Nodes that can keep blocks.
    pub nodes: usize,
    /// Bytes free within the bound on memory.
    pub memory_bytes: u64,
    /// Bytes free within the bound on disk.
    pub disk_bytes: u64,
}

/// Why there are so many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They are declared.
    Declared,
    /// There is no other node.
    Alone,
    /// Without a copy, a lost node's share is back soon enough.
    SoonEnough,
    /// A copy saves enough.
    WorthIt,
    /// A copy would save enough, but does not fit.
    NoRoom,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declared => "declared",
            Self::Alone => "there is no other node",
            Self::SoonEnough => "a lost node's share is back soon enough without a copy",
            Self::WorthIt => "a copy brings a lost node's share back sooner",
            Self::NoRoom => "a copy would bring a lost node's share back sooner, but does not fit",
        })
    }
}

/// How many nodes are to keep each block, and the figures that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many.
    pub replicas: u8,
    /// Why.
    pub reason: Reason,
    /// The cheapest way to a lost node's share without a copy.
    pub way: Way,
    /// How long that takes.
    pub without: Duration,
    /// How long it takes with a copy.
    pub with: Duration,
}

/// What a node has of a table, what it has measured, and what it decided by that: for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableFigures {
    /// The storage level declared.
    pub storage: String,
    /// The number of replicas declared.
    pub replicas_declared: String,
    /// How many nodes keep each block.
    pub replicas: u8,
    /// Why.
    pub reason: String,
    /// The node's share.
    pub share: Share,
    /// The cheapest way to it without a copy.
    pub cheapest_without: Way,
    /// How long that takes, in milliseconds.
    pub without_ms: f64,
    /// How long it takes with a copy.
    pub with_ms: f64,
    /// The ways to a block of average size.
    pub ways: Vec<WayFigure>,
    /// How long the node took last to compute each log partition's part, in milliseconds.
    pub computed_ms: BTreeMap<u32, u64>,
}

/// What a node knows of a way to blocks of a table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayFigure {
    /// The way.
    pub way: Way,
    /// How long a block of average size takes, in milliseconds.
    pub block_ms: f64,
    /// How often it was measured; what was not is assumed.
    pub measured: u64,
}

impl TableFigures {
    /// Puts together what a decision rests on.
    pub fn of(
        storage: Storage,
        share: Share,
        verdict: Verdict,
        costs: &Costs,
        computed_ms: BTreeMap<u32, u64>,
    ) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let figure = |way: Way| {
            let bytes = if way == Way::Recompute { share.input_bytes } else { share.file_bytes };
            let block = Offer { way, bytes: bytes.checked_div(share.blocks).unwrap_or(0) };
            WayFigure { way, block_ms: ms(costs.estimate(block)), measured: costs.measured(way) }
        };
        Self {
            storage: storage.level.to_string(),
            replicas_declared: storage.replicas.to_string(),
            replicas: verdict.replicas,
            reason: verdict.reason.to_string(),
            share,
            cheapest_without: verdict.way,
            without_ms: ms(verdict.without),
            with_ms: ms(verdict.with),
            ways: Way::ALL.map(figure).to_vec(),
            computed_ms,
        }
    }
}

/// Decides. `before`: how many there were, so that a figure near the threshold does not make it waver.
pub fn decide(storage: Storage, share: Share, room: Room, costs: &Costs, before: u8) -> Verdict {
    let estimate = |way, bytes: u64| each(costs, way, share.blocks, bytes);
    let ways = [(Way::Dataset, share.file_bytes), (Way::Recompute, share.input_bytes)];
    let ways = ways.map(|(way, bytes)| (estimate(way, bytes), way));
    // What was never computed is not known to have inputs.
    let (without, way) = if share.input_bytes > 0 { ways[0].min(ways[1]) } else { ways[0] };
    let fits_memory = storage.level.in_memory() && share.memory_bytes <= room.memory_bytes;
    let fits_disk = storage.level.on_disk() && share.file_bytes <= room.disk_bytes;
    let with = if fits_memory { Duration::ZERO } else { estimate(Way::Disk, share.file_bytes) };
    let verdict = |replicas, reason| Verdict { replicas, reason, way, without, with };
    let worth = if before > 1 { WORTH / 2 } else { WORTH };
    match storage.replicas {
        Replicas::Count(count) => verdict(count, Reason::Declared),
        Replicas::Auto if room.nodes < 2 => verdict(1, Reason::Alone),
        Replicas::Auto if without < with + worth => verdict(1, Reason::SoonEnough),
        // Copies that are there already count as kept, so they fit.
        Replicas::Auto if before > 1 || fits_memory || fits_disk => verdict(2, Reason::WorthIt),
        Replicas::Auto => verdict(1, Reason::NoRoom),
    }
}

/// Estimates how long some blocks take, several at a time.
fn each(costs: &Costs, way: Way, blocks: u64, bytes: u64) -> Duration {
    let Some(each) = bytes.checked_div(blocks) else { return Duration::ZERO };
    let all = costs.estimate(Offer { way, bytes: each }).as_secs_f64() * blocks as f64;
    Duration::from_secs_f64(all / f64::from(AT_ONCE))
}

#[cfg(test)]
mod tests {
    use sanso_state::StorageLevel;

    use super::*;

    const MB: u64 = 1 << 20;
    const ROOM: Room = Room { nodes: 3, memory_bytes: 1 << 40, disk_bytes: 1 << 40 };
    const AUTO: Storage = Storage { level: StorageLevel::Memory, replicas: Replicas::Auto };

    fn share(blocks: u64) -> Share {
        Share {
            blocks,
            file_bytes: blocks * MB,
            memory_bytes: blocks * 20 * MB,
            input_bytes: blocks * 3 * MB,
        }
    }

    /// The dataset needs 80 ms for a block of a MB, computing one 10 s.
    fn measured() -> Costs {
        let mut costs = Costs::default();
        costs.observe(Offer { way: Way::Dataset, bytes: MB }, Duration::from_millis(80));
        costs.note(Offer { way: Way::Recompute, bytes: MB }, Duration::from_secs(10));
        costs
    }

    #[test]
    fn a_copy_is_made_where_recovery_takes_long_without_one() {
        let decided = |blocks, before| {
            let verdict = decide(AUTO, share(blocks), ROOM, &measured(), before);
            (verdict.replicas, verdict.reason)
        };
        // Eight blocks at a time, 80 ms each: 0.3 s is reached with 30 blocks, and left with 15.
        assert_eq!(decided(20, 1), (1, Reason::SoonEnough));
        assert_eq!(decided(40, 1), (2, Reason::WorthIt));
        assert_eq!(decided(20, 2), (2, Reason::WorthIt));
        assert_eq!(decided(10, 2), (1, Reason::SoonEnough));
        assert_eq!(decided(0, 1), (1, Reason::SoonEnough));
    }

    #[test]
    fn the_cheaper_of_reading_and_computing_counts() {
        let mut costs = measured();
        assert_eq!(decide(AUTO, share(40), ROOM, &costs, 1).way, Way::Dataset);
        for _ in 0..100 {
            costs.note(Offer { way: Way::Recompute, bytes: MB }, Duration::from_millis(1));
        }
        let verdict = decide(AUTO, share(40), ROOM, &costs, 1);
        assert_eq!((verdict.way, verdict.replicas), (Way::Recompute, 1));
        assert_eq!(decide(AUTO, Share { input_bytes: 0, ..share(40) }, ROOM, &costs, 1).way, Way::Dataset);
    }

    #[test]
    fn what_does_not_fit_is_not_copied() {
        let decided =
            |level, room| decide(Storage { level, ..AUTO }, share(400), room, &measured(), 1).reason;
        let little = Room { memory_bytes: MB, ..ROOM };
        assert_eq!(decided(StorageLevel::Memory, little), Reason::NoRoom);
        assert_eq!(decided(StorageLevel::MemoryDisk, little), Reason::WorthIt);
        assert_eq!(decided(StorageLevel::MemoryDisk, Room { disk_bytes: MB, ..little }), Reason::NoRoom);
        assert_eq!(decided(StorageLevel::Memory, Room { nodes: 1, ..ROOM }), Reason::Alone);
    }

    #[test]
    fn what_is_declared_is_done() {
        let declared = Storage { replicas: Replicas::Count(3), ..AUTO };
        let verdict = decide(declared, share(1), ROOM, &Costs::default(), 1);
        assert_eq!((verdict.replicas, verdict.reason), (3, Reason::Declared));
    }
}
