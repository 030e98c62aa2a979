//! The law: for every history and every cut, batch before it ⊕ speed after it
//! equals a naive fold over everything.
//!
//! The product's own engines (workers with their index, view partitions) run in
//! a simulated world with late, duplicate, corrected, conflicting, misplaced
//! and null readings, segments of 2 to 5 offsets, random cuts, uneven rates,
//! lost, doubled and reordered messages, crashes between any two sends, lost and
//! lagging indexes, replaced workers that go on sending, view partitions that
//! start empty or lose everything, adoption at any moment, and new view
//! versions. One seed decides everything; after every commit the view
//! partition that changed is held against the fold.
//!
//! `SANSO_LAW_SEEDS=10000 SANSO_LAW_START=0` runs more; a failing seed is printed.

pub mod cluster;
mod history;
pub mod system;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sanso_view::{Application, Source, View};

use world::World;

const APP: &str = include_str!("app.sql");
const NETWORK: &str = "usage_point,feeder,valid_from,valid_to
M0,F1,,2026-03-29T00:00:00Z
M0,F2,2026-03-29T00:00:00Z,
M1,F1,,
M2,F2,,
M3,F2,,2026-03-29T00:00:00Z
M4,F1,,
M5,F3,,
";

/// A source and the versions of its views, oldest first.
pub(crate) struct Declared {
    pub(crate) source: Arc<Source>,
    pub(crate) generations: Vec<Vec<Arc<View>>>,
}

fn declare(segment: u64, topic: &str) -> Declared {
    let folder = tempfile::tempdir().expect("make a folder");
    std::fs::write(folder.path().join("network.csv"), NETWORK).expect("write the network");
    let versions = [("", "1"), ("WHERE quality = 'actual'", "2"), ("WHERE channel = 'E1'", "3")];
    let bind = |(filter, factor): (&str, &str)| {
        let sql = APP.replace("{segment}", &segment.to_string()).replace("{topic}", topic);
        let sql = sql.replace("{where}", filter).replace("{factor}", factor);
        let application = Application::parse(&sql).unwrap_or_else(|error| panic!("{error}"));
        let views = application.bind(folder.path()).unwrap_or_else(|error| panic!("{error}"));
        (Arc::clone(&application.sources[0]), views)
    };
    let bound: Vec<_> = versions.into_iter().map(bind).collect();
    Declared {
        source: Arc::clone(&bound[0].0),
        generations: bound.into_iter().map(|(_, views)| views).collect(),
    }
}

/// Reads a number from the environment.
///
/// # Panics
/// When it is there and not a number.
pub fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs seeds on all cores; returns how often each kind of event happened.
///
/// # Panics
/// When the law is broken, with the seed that shows it.
pub fn run(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let declared: Vec<Arc<Declared>> =
        (2..=5).map(|segment| Arc::new(declare(segment, "readings"))).collect();
    let happened = Mutex::new(BTreeMap::new());
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let mut world = World::new(seed, Arc::clone(&declared[seed as usize % declared.len()]));
                    if let Err(failure) = world.run() {
                        next.store(seeds.end, std::sync::atomic::Ordering::Relaxed);
                        panic!("seed {seed} (SANSO_LAW_START={seed} SANSO_LAW_SEEDS=1): {failure}");
                    }
                    let mut all = happened.lock().expect("no thread failed while counting");
                    world.happened.iter().for_each(|(what, count)| *all.entry(*what).or_insert(0) += count);
                }
            });
        }
    });
    happened.into_inner().expect("no thread failed while counting")
}
