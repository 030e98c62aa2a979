//! Tests of the Kafka log against librdkafka's mock cluster, which can be had everywhere. It can't
//! make topics, delete records or mark transactions: those cases run on a real one, in `tests/kafka`.

use std::sync::mpsc;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::runtime::Runtime;

use super::*;

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

#[test]
fn a_topic_that_was_there_is_not_gone_because_a_broker_denies_it_for_a_moment() {
    let cluster = MockCluster::new(1).expect("start a mock cluster");
    cluster.create_topic("readings", 1, 1).expect("make a topic");
    let log = KafkaLog::new(&format!("kafka://{}", cluster.bootstrap_servers())).expect("make the clients");
    runtime().block_on(async {
        assert_eq!(log.end_offset("readings", 0).await.expect("it is there"), 0);
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &[denied; 2]);
        let error = log.end_offset("readings", 0).await.expect_err("denied");
        assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("denies that there is a topic readings"), "{error}");
        cluster.clear_request_errors(RDKafkaApiKey::ListOffsets);
        assert_eq!(log.end_offset("readings", 0).await.expect("it was there all the time"), 0);
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
