//! Tests of the Kafka log: against librdkafka's mock cluster always, against a real one where
//! `SANSO_KAFKA` names its bootstrap servers. The mock cluster can't make topics, delete records or
//! mark transactions, so those cases run on a real one only.
#![allow(clippy::print_stdout, reason = "a test that can't run here says so")]

use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::runtime::Runtime;

use super::*;
use crate::contract::read_all;
use crate::open;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("start a runtime")
}

/// A topic's name, partition count, and where to say that it is made.
type Order = (String, u32, mpsc::SyncSender<()>);

/// The Kafka log on a mock cluster, which makes topics only by a call of its own.
struct OnMock {
    log: KafkaLog,
    orders: mpsc::Sender<Order>,
}

#[async_trait]
impl Log for OnMock {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        spec.validate()?;
        if let Err(LogError::UnknownTopic { .. }) = self.log.partitions(&spec.name).await {
            let (done, made) = mpsc::sync_channel(1);
            self.orders.send((spec.name.clone(), spec.partitions, done)).expect("order");
            made.recv().expect("the mock cluster makes the topic");
        }
        // It has no settings of topics to look at either.
        assert_eq!(self.log.partitions(&spec.name).await?, spec.partitions);
        Ok(())
    }

    async fn partitions(&self, topic: &str) -> Result<u32> {
        self.log.partitions(topic).await
    }

    async fn append(&self, topic: &str, partition: u32, records: Vec<Append>) -> Result<Vec<u64>> {
        self.log.append(topic, partition, records).await
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch> {
        self.log.read(topic, partition, from, max_records, max_bytes).await
    }

    async fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.log.start_offset(topic, partition).await
    }

    async fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.log.end_offset(topic, partition).await
    }

    async fn wait_beyond(&self, topic: &str, partition: u32, from: u64) -> Result<u64> {
        self.log.wait_beyond(topic, partition, from).await
    }

    async fn trim(&self, topic: &str, partition: u32, before: u64) -> Result<()> {
        self.log.trim(topic, partition, before).await
    }
}

fn with_mock(_case: &str, run: impl AsyncFnOnce(&dyn Log, &str)) {
    let (orders, ordered) = mpsc::channel::<Order>();
    let (servers_tx, servers) = mpsc::channel();
    // The cluster can't leave its thread.
    let cluster = std::thread::spawn(move || {
        let cluster = MockCluster::new(3).expect("start a mock cluster");
        servers_tx.send(cluster.bootstrap_servers()).expect("tell the servers");
        for (topic, partitions, done) in ordered {
            cluster.create_topic(&topic, partitions.cast_signed(), 3).expect("make a topic");
            done.send(()).expect("tell that it is made");
        }
    });
    let servers = servers.recv().expect("learn the servers");
    let log = KafkaLog::new(&format!("kafka://{servers}")).expect("make the clients");
    let log = OnMock { log, orders };
    runtime().block_on(run(&log, "readings"));
    drop(log);
    cluster.join().expect("the cluster ends");
}

mod contract_on_a_mock_cluster {
    use super::*;

    crate::log_contract!(@each with_mock,
        a_new_topic_is_empty
        records_come_back_as_they_were_appended
        offsets_grow_in_the_order_of_appends
        appending_nothing_is_fine
        partitions_are_apart
        reading_starts_at_any_offset
        a_read_keeps_its_limits_but_gives_at_least_one_record
        concurrent_appends_are_all_there_in_each_callers_order
        a_reader_beside_appenders_sees_a_growing_prefix
        what_is_acknowledged_is_visible
        waiting_ends_with_the_next_record
        waiting_for_what_is_there_ends_at_once
        a_position_beyond_the_end_is_refused
    );
}

/// Runs a case on the real cluster with a name that no other run uses, or says that there is none.
fn with_real(case: &str, run: impl AsyncFnOnce(&dyn Log, &str)) {
    let Ok(servers) = std::env::var("SANSO_KAFKA") else {
        println!("SKIPPED {case}: set SANSO_KAFKA=HOST:PORT to run it on a real Kafka cluster");
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    let topic = format!("{}-{}", &case[..case.len().min(100)], now.as_nanos());
    runtime().block_on(async {
        let log = open(&format!("kafka://{servers}")).expect("make the clients");
        run(log.as_ref(), &topic).await;
    });
}

mod contract_on_a_real_cluster {
    use super::*;

    crate::log_contract!(with_real);
}

fn transactional(topic: &str) -> BaseProducer {
    let servers = std::env::var("SANSO_KAFKA").expect("the caller runs on a real cluster");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("transactional.id", topic)
        .create()
        .expect("make a producer");
    producer.init_transactions(ADMIN_TIMEOUT).expect("start transactions");
    producer
}

fn send(producer: &BaseProducer, topic: &str, payload: &str) {
    let record = BaseRecord::<(), str, ()>::to(topic).partition(0).payload(payload);
    producer.send(record).map_err(|(error, _)| error).expect("send");
}

/// Waits until the end is `end`: markers are written after a commit has returned.
async fn reach(log: &dyn Log, topic: &str, end: u64) {
    let mut reached = 0;
    while reached < end {
        reached = log.wait_beyond(topic, 0, reached).await.expect("wait");
    }
    assert_eq!(reached, end);
}

#[test]
fn transaction_markers_and_aborted_records_are_holes_and_open_ones_are_not_shown() {
    with_real("transactions", async |log: &dyn Log, topic: &str| {
        log.ensure_topic(&TopicSpec::new(topic, 1)).await.expect("make a topic");
        let producer = transactional(topic);
        // Offsets: 0 a, 1 b, 2 marker, 3 aborted, 4 marker, 5 c, 6 marker.
        producer.begin_transaction().expect("begin");
        send(&producer, topic, "a");
        send(&producer, topic, "b");
        producer.commit_transaction(ADMIN_TIMEOUT).expect("commit");
        reach(log, topic, 3).await;
        let batch = log.read(topic, 0, 2, 10, 1000).await.expect("read");
        assert_eq!(batch, Batch { records: Vec::new(), next: 3, end: 3 }, "a marker is a hole");
        producer.begin_transaction().expect("begin");
        send(&producer, topic, "aborted");
        producer.flush(ADMIN_TIMEOUT).expect("flush");
        assert_eq!(log.end_offset(topic, 0).await.expect("end"), 3, "open records are not shown");
        producer.abort_transaction(ADMIN_TIMEOUT).expect("abort");
        producer.begin_transaction().expect("begin");
        send(&producer, topic, "c");
        producer.commit_transaction(ADMIN_TIMEOUT).expect("commit");
        reach(log, topic, 7).await;
        for (from, expected) in
            [(0, vec![0, 1, 5]), (1, vec![1, 5]), (2, vec![5]), (4, vec![5]), (6, vec![]), (7, vec![])]
        {
            let read = read_all(log, topic, 0, from).await;
            assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), expected, "from {from}");
        }
        let appended = log.append(topic, 0, vec![Append::unkeyed("d")]).await.expect("append");
        assert_eq!(appended, [7]);
        let read = read_all(log, topic, 0, 6).await;
        assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), [7]);
    });
}

#[test]
fn readers_at_different_places_of_a_partition_do_not_disturb_each_other() {
    with_real("lanes", async |log: &dyn Log, topic: &str| {
        const RECORDS: u64 = 2000;
        log.ensure_topic(&TopicSpec::new(topic, 1)).await.expect("make a topic");
        let records = (0..RECORDS).map(|i| Append::unkeyed(i.to_string())).collect();
        log.append(topic, 0, records).await.expect("append");
        let reader = |start: u64, step: usize| async move {
            let mut position = start;
            while position < RECORDS {
                let batch = log.read(topic, 0, position, step, 1 << 20).await.expect("read");
                for (expected, record) in (position..).zip(&batch.records) {
                    assert_eq!(record.offset, expected, "reader from {start}");
                    assert_eq!(record.payload, record.offset.to_string());
                }
                position = batch.next;
            }
        };
        // More readers than lanes.
        let readers = [(0, 401), (100, 310), (900, 130), (1500, 99), (3, 640)];
        let readers = readers.map(|(start, step)| reader(start, step));
        futures::future::join_all(readers).await;
    });
}

#[test]
fn a_compacted_topic_is_refused() {
    with_real("compacted", async |_log: &dyn Log, topic: &str| {
        let servers = std::env::var("SANSO_KAFKA").expect("a real cluster");
        let log = KafkaLog::new(&format!("kafka://{servers}")).expect("make the clients");
        let compacted = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
        let made = log.admin.create_topics([&compacted], &AdminOptions::new()).await;
        made.expect("make a topic")[0].as_ref().expect("make a topic");
        let refused = log.ensure_topic(&TopicSpec::new(topic, 1)).await;
        assert!(matches!(refused, Err(LogError::Refused { .. })), "{refused:?}");
    });
}

#[test]
fn records_carry_the_brokers_append_time() {
    with_real("append-time", async |log: &dyn Log, topic: &str| {
        log.ensure_topic(&TopicSpec::new(topic, 1)).await.expect("make a topic");
        let before = crate::memory::system_time_us();
        log.append(topic, 0, vec![Append::unkeyed("a")]).await.expect("append");
        let time = read_all(log, topic, 0, 0).await[0].append_time_us;
        // The broker may be another machine: only a clock that is far off fails this.
        assert!((time - before).abs() < 60_000_000, "{before} {time}");
    });
}

#[test]
fn a_cluster_that_is_away_is_an_error_that_may_pass() {
    // Nothing listens on port 9: the request ends with its timeout.
    let address = "kafka://127.0.0.1:9?socket.timeout.ms=300";
    let log = KafkaLog::new(address).expect("make the clients");
    let error = runtime().block_on(log.partitions("readings")).expect_err("nobody answers");
    assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
    assert_eq!(error.retry(), crate::Retry::Later);
}

#[test]
fn an_option_that_librdkafka_does_not_know_is_refused() {
    let error = KafkaLog::new("kafka://127.0.0.1:9?no.such.option=1").expect_err("refused");
    assert!(error.to_string().contains("no.such.option"), "{error}");
}
