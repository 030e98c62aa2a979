//! Measures control on this machine, three voters in one process, their logs on its disk:
//! `cargo run --release -p sanso-control --example figures [SECONDS]`.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(dead_code, reason = "it uses the cluster of the tests in part")]

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::Cluster;
use futures::future::join_all;
use sanso_control::{Control, Timings};

const PUTS: usize = 500;
const ELECTIONS: usize = 20;

#[tokio::main]
async fn main() {
    let seconds = std::env::args().nth(1).and_then(|given| given.parse().ok()).unwrap_or(20);
    println!("one small write and its fdatasync: {}", told(syncs()));
    let mut cluster = Cluster::with(3, Timings::default()).await;
    let leader = cluster.leader().await.0;
    for (who, node) in [("the leader", leader), ("another voter", leader % 3 + 1)] {
        println!("a put through {who}: {}", told(puts(&cluster.voter(node), who).await));
    }
    println!("32 at once through the leader: {:.0} puts/s", together(&cluster.voter(leader)).await);
    println!("from a crash of the leader to the next: {}", told(crashes(&mut cluster).await));
    println!("from its being cut off to a put elsewhere: {}", told(cuts(&cluster).await));
    let before = processor_seconds();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = (processor_seconds() - before) / seconds as f64 / 3.0;
    println!("with nothing to do, a voter takes {:.1} % of a core", used * 100.0);
    stability("idle", &cluster, seconds).await;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let busy = Arc::new(AtomicBool::new(true));
    let spin = |_| {
        let busy = busy.clone();
        std::thread::spawn(move || {
            while busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    };
    let threads: Vec<_> = (0..4 * cores).map(spin).collect();
    stability("with four busy threads a core", &cluster, seconds).await;
    busy.store(false, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("it only spins"));
}

/// Counts elections, and how long a put takes at most, while nothing fails.
async fn stability(when: &str, cluster: &Cluster, seconds: u64) {
    let before = cluster.voter(1).status().borrow().term;
    let end = Instant::now() + Duration::from_secs(seconds);
    let voter = cluster.voter(1);
    let (mut times, mut failed) = (Vec::new(), 0);
    while Instant::now() < end {
        let start = Instant::now();
        let key = format!("steady {}", times.len() % 100);
        let version = voter.table().borrow().get(&key).map_or(0, |item| item.version);
        match voter.put(&key, version, Some(vec![1; 100])).await {
            Ok(_) => times.push(start.elapsed()),
            Err(_) => failed += 1,
        }
    }
    let elections = voter.status().borrow().term - before;
    println!("{when}, {seconds} s: {elections} elections, {failed} puts unanswered, puts {}", told(times));
}

async fn puts(voter: &Control, key: &str) -> Vec<Duration> {
    let mut version = 0;
    let mut times = Vec::new();
    for _ in 0..PUTS {
        let start = Instant::now();
        let put = voter.put(key, version, Some(vec![1; 100])).await;
        version = put.expect("a leader").expect("nobody else puts");
        times.push(start.elapsed());
    }
    times
}

async fn together(voter: &Control) -> f64 {
    let start = Instant::now();
    let keys: Vec<String> = (0..32).map(|key| format!("together {key}")).collect();
    join_all(keys.iter().map(|key| puts(voter, key))).await;
    (keys.len() * PUTS) as f64 / start.elapsed().as_secs_f64()
}

async fn crashes(cluster: &mut Cluster) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..ELECTIONS {
        let old = cluster.leader().await.0;
        let others: Vec<u16> = (1..=3).filter(|node| *node != old).collect();
        let start = Instant::now();
        cluster.crash(old).await;
        cluster.leader_of(&others).await;
        times.push(start.elapsed());
        cluster.open(old).await;
        let done = cluster.voter(others[0]).status().borrow().last;
        let mut back = cluster.voter(old).status();
        back.wait_for(|status| status.applied >= done).await.expect("it is open");
    }
    times
}

async fn cuts(cluster: &Cluster) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..ELECTIONS {
        let old = cluster.leader().await;
        let other = cluster.voter(old.0 % 3 + 1);
        let mut seen = other.status();
        seen.wait_for(|status| status.leader == Some(old)).await.expect("it is open");
        let start = Instant::now();
        cluster.net.isolate(old);
        // What was on its way to the old leader is proposed again.
        while other.put(&format!("cut {round}"), 0, Some(vec![1])).await.is_err() {}
        times.push(start.elapsed());
        cluster.net.heal();
        let done = other.status().borrow().last;
        let mut back = cluster.voter(old.0).status();
        back.wait_for(|status| status.applied >= done).await.expect("it is open");
    }
    times
}

/// Returns the time that this process has taken of processors.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("it is Linux");
    // After the name in brackets, user and system time are the 12th and 13th, in 1/100 s.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn syncs() -> Vec<Duration> {
    let mut file = tempfile::tempfile().expect("a file");
    let once = |_| {
        let start = Instant::now();
        file.write_all(&[1; 100]).expect("room for it");
        file.sync_data().expect("a disk");
        start.elapsed()
    };
    (0..200).map(once).collect()
}

fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms ({} times)", at(50), at(99), at(100), times.len())
}
