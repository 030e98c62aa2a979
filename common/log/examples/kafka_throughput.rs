//! Measures appends to and reads from one broker on this machine:
//! `cargo run --release -p sanso-log --example kafka_throughput [RECORDS] [BYTES] [PARTITIONS]`.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use futures::future::try_join_all;
use sanso_broker::Cluster;
use sanso_log::{Append, KafkaLog, Log, LogError, TopicSpec};

/// Records of one append, and of one read at most; as the ingestion and the workers have.
const CHUNK: usize = 8192;
const READ_BYTES_MAX: usize = 4 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (records, bytes, partitions) = (number(1_000_000)?, number(100)?, number(3)?);
    let cluster = Cluster::start(1)?;
    let address = format!("kafka://{}", cluster.servers());
    let log = Arc::new(KafkaLog::new(&address)?);
    log.ensure_topic(&TopicSpec::new("readings", partitions as u32)).await?;
    let share = records / partitions;
    let began = Instant::now();
    try_join_all((0..partitions as u32).map(|partition| append(&log, partition, share, bytes))).await?;
    report("appended", share * partitions, began);
    // Clients of their own, that have nothing yet.
    let one = KafkaLog::new(&address)?;
    let began = Instant::now();
    read(Arc::new(one), 0).await?;
    report("read from one partition", share, began);
    let all = Arc::new(KafkaLog::new(&address)?);
    let began = Instant::now();
    let readers = (0..partitions as u32).map(|partition| tokio::spawn(read(all.clone(), partition)));
    for reader in try_join_all(readers).await? {
        reader?;
    }
    report("read from all partitions at once", share * partitions, began);
    Ok(())
}

fn report(what: &str, records: usize, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!("{what}: {records} records in {seconds:.2} s, {:.0} records/s", records as f64 / seconds);
}

async fn append(log: &KafkaLog, partition: u32, records: usize, bytes: usize) -> Result<(), LogError> {
    let mut sent = 0;
    while sent < records {
        let chunk = CHUNK.min(records - sent);
        let record = |at: usize| Append::keyed(format!("meter {}", at % 1000), format!("{at:0>bytes$}"));
        log.append("readings", partition, (sent..sent + chunk).map(record).collect()).await?;
        sent += chunk;
    }
    Ok(())
}

async fn read(log: Arc<KafkaLog>, partition: u32) -> Result<(), LogError> {
    let (mut position, end) = (0, log.end_offset("readings", partition).await?);
    while position < end {
        position = log.read("readings", partition, position, CHUNK, READ_BYTES_MAX).await?.next;
    }
    Ok(())
}
