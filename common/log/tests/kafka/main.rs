//! The Kafka log on real brokers.
//!
//! One broker serves all cases but those that kill brokers; each case has a topic of its own.

mod brokers;
mod compression;
mod contract;
mod reading;
mod security;
mod topics;

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use sanso_broker::{Cluster, available};
use sanso_log::{Append, KafkaLog, Log, LogError, Result, Retry, TopicSpec};

/// Longest that a case waits for what must come.
const PATIENCE: Duration = Duration::from_secs(300);
const PLENTY: usize = 64 << 20;

/// The broker of all cases that don't kill it. Ends with this process.
fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(1).expect("start a broker"))
}

/// Runs a case where there can be brokers.
fn run(case: &str, future: impl Future<Output = ()>) {
    if !available(case) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    runtime.expect("start a runtime").block_on(in_time(future));
}

/// Runs a case on the shared broker with the name of a topic that doesn't exist yet.
fn on_shared(case: &str, run_case: impl AsyncFnOnce(KafkaLog, &str)) {
    run(case, async {
        let (log, topic) = (connect(shared()), new_topic(case));
        run_case(log, &topic).await;
    });
}

fn connect(cluster: &Cluster) -> KafkaLog {
    KafkaLog::new(&format!("kafka://{}", cluster.servers())).expect("make the clients")
}

fn new_topic(case: &str) -> String {
    static TOPICS: AtomicU32 = AtomicU32::new(0);
    format!("{case}-{}", TOPICS.fetch_add(1, Ordering::Relaxed))
}

fn admin(cluster: &Cluster) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.servers()).create().expect("make an admin client")
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what must come takes too long")
}

async fn make(log: &dyn Log, topic: &str, partitions: u32) {
    log.ensure_topic(&TopicSpec::new(topic, partitions)).await.expect("make a topic");
}

async fn append(log: &dyn Log, topic: &str, payloads: impl IntoIterator<Item = String>) -> Vec<u64> {
    let records = payloads.into_iter().map(Append::unkeyed).collect();
    log.append(topic, 0, records).await.expect("append")
}

/// Does as a layer does: tries again while the error says that this may help.
async fn persist<T>(mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    loop {
        match attempt().await {
            Err(error) if error.retry() == Retry::Later => tokio::task::yield_now().await,
            done => return done,
        }
    }
}

/// Reads on in a partition from `from` until there is nothing more, or an error that stays.
async fn read_on(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    from: u64,
) -> (Vec<(u64, String)>, Option<LogError>) {
    let (mut position, mut records) = (from, Vec::new());
    loop {
        match persist(async || log.read(topic, partition, position, 1000, PLENTY).await).await {
            Ok(batch) => {
                let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
                records.extend(batch.records.iter().map(|r| (r.offset, text(&r.payload))));
                position = batch.next;
                if position >= batch.end {
                    return (records, None);
                }
            }
            Err(error) => return (records, Some(error)),
        }
    }
}
