//! The law over the whole single-node system, on every kind of log.

use std::path::Path;
use std::sync::Arc;

use sanso_broker::{Cluster, available};
use sanso_law::environment;
use sanso_law::system::{LogPlace, run};
use sanso_log::{Log, MemoryLog};

/// A log in memory lives as long as the test: it stands for one that does not crash.
struct Memory(Arc<MemoryLog>);

impl LogPlace for Memory {
    fn open(&self) -> Arc<dyn Log> {
        Arc::clone(&self.0) as Arc<dyn Log>
    }
}

/// A log at an address, opened anew by each life.
struct At(String);

impl LogPlace for At {
    fn open(&self) -> Arc<dyn Log> {
        sanso_log::open(&self.0).expect("open the log")
    }
}

fn embedded(folder: &Path) -> At {
    At(format!("embedded:{}", folder.display()))
}

/// What happens to a system sooner or later. A world in which nothing goes wrong proves nothing.
const HAPPENS: [&str; 9] = [
    "base moved",
    "crash",
    "extended while shared",
    "indexes fell back",
    "outlived its faults",
    "version published",
    "view partition adopted",
    "segment audited",
    "new view version",
];

/// Runs seeds and says what happened in them, which `expected` is to be part of.
#[expect(clippy::print_stdout, reason = "who runs many seeds wants to see what happened in them")]
async fn seeds(count: u64, place: impl Fn() -> Box<dyn LogPlace>, expected: &[&str]) {
    let start = environment("SANSO_LAW_START", 0);
    let mut happened = std::collections::BTreeMap::new();
    for seed in start..start + environment("SANSO_SYSTEM_SEEDS", count) {
        for (what, count) in run(seed, place().as_ref()).await {
            *happened.entry(what).or_insert(0) += count;
        }
    }
    println!("{happened:?}");
    for what in expected {
        assert!(happened.get(what).is_some_and(|count| *count > 0), "'{what}' never happened: {happened:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_keeps_the_law_on_a_log_in_memory() {
    seeds(10, || Box::new(Memory(Arc::new(MemoryLog::new()))), &HAPPENS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_keeps_the_law_on_the_embedded_log() {
    let folder = tempfile::tempdir().expect("make a folder");
    seeds(6, || Box::new(embedded(folder.path())), &HAPPENS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_keeps_the_law_on_kafka() {
    if !available("the_system_keeps_the_law_on_kafka") {
        return;
    }
    let cluster = Cluster::start(1).expect("start a broker");
    let log = format!("kafka://{}", cluster.servers());
    // How far a life comes before a fault depends on the broker's time, too: few outlive theirs, and once in a while none.
    let expected = ["crash", "version published", "view partition adopted", "segment audited"];
    seeds(10, || Box::new(At(log.clone())), &expected).await;
}
