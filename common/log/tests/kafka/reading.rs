//! What a reader sees: holes, retention, other readers.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sanso_log::contract::read_all;
use sanso_log::{Append, Batch, KafkaLog, Log, LogError};

use super::{append, connect, make, on_shared, read_on, shared};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A producer elsewhere that writes in transactions.
fn transactional(id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", shared().servers()).set("transactional.id", id);
    let producer: BaseProducer = config.create().expect("make a producer");
    producer.init_transactions(TIMEOUT).expect("start transactions");
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
    on_shared("transactions", async |log, topic: &str| {
        let log: &dyn Log = &log;
        make(log, topic, 1).await;
        let producer = transactional(topic);
        // Offsets: 0 a, 1 b, 2 marker, 3 aborted, 4 marker, 5 c, 6 marker.
        producer.begin_transaction().expect("begin");
        send(&producer, topic, "a");
        send(&producer, topic, "b");
        producer.commit_transaction(TIMEOUT).expect("commit");
        reach(log, topic, 3).await;
        let batch = log.read(topic, 0, 2, 10, 1000).await.expect("read");
        assert_eq!(batch, Batch { records: Vec::new(), next: 3, end: 3 }, "a marker is a hole");
        producer.begin_transaction().expect("begin");
        send(&producer, topic, "aborted");
        producer.flush(TIMEOUT).expect("flush");
        assert_eq!(log.end_offset(topic, 0).await.expect("end"), 3, "open records are not shown");
        producer.abort_transaction(TIMEOUT).expect("abort");
        producer.begin_transaction().expect("begin");
        send(&producer, topic, "c");
        producer.commit_transaction(TIMEOUT).expect("commit");
        reach(log, topic, 7).await;
        for (from, expected) in
            [(0, vec![0, 1, 5]), (1, vec![1, 5]), (2, vec![5]), (4, vec![5]), (6, vec![]), (7, vec![])]
        {
            let read = read_all(log, topic, 0, from).await;
            assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), expected, "from {from}");
        }
        assert_eq!(append(log, topic, ["d".to_owned()]).await, [7]);
        let read = read_all(log, topic, 0, 6).await;
        assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), [7]);
    });
}

#[test]
fn long_runs_of_aborted_records_hide_nothing_between_them() {
    on_shared("aborted-runs", async |log, topic: &str| {
        const ROUNDS: u64 = 20;
        const ABORTED: u64 = 150;
        let log: &dyn Log = &log;
        make(log, topic, 1).await;
        let producer = transactional(topic);
        let mut expected = Vec::new();
        for round in 0..ROUNDS {
            producer.begin_transaction().expect("begin");
            (0..ABORTED).for_each(|_| send(&producer, topic, "aborted"));
            producer.flush(TIMEOUT).expect("flush");
            producer.abort_transaction(TIMEOUT).expect("abort");
            // A plain record by a producer that knows of no transactions, before this round's
            // marker or after it: the coordinator writes markers after it has answered.
            let offsets = append(log, topic, [format!("kept {round}")]).await;
            expected.push((offsets[0], format!("kept {round}")));
        }
        let end = ROUNDS * (ABORTED + 2);
        reach(log, topic, end).await;
        for from in [0, 1, ABORTED, ABORTED + 1, end / 2, end - 1, end] {
            let (read, error) = read_on(log, topic, 0, from).await;
            assert!(error.is_none(), "from {from}: {error:?}");
            let kept: Vec<_> = expected.iter().filter(|(offset, _)| *offset >= from).cloned().collect();
            assert_eq!(read, kept, "from {from}");
        }
    });
}

#[test]
fn a_new_reader_starts_at_any_offset() {
    on_shared("restart", async |log, topic: &str| {
        const RECORDS: u64 = 3000;
        make(&log, topic, 1).await;
        append(&log, topic, (0..RECORDS).map(|i| format!("record {i}"))).await;
        drop(log);
        for from in [0, 1, 999, 1000, 1001, RECORDS - 1, RECORDS] {
            // A process that starts knows its position and nothing else.
            let (read, error) = read_on(&connect(shared()), topic, 0, from).await;
            assert!(error.is_none(), "from {from}: {error:?}");
            let expected: Vec<_> = (from..RECORDS).map(|i| (i, format!("record {i}"))).collect();
            assert!(read == expected, "from {from}: {} records", read.len());
        }
    });
}

#[test]
fn readers_at_different_places_of_a_partition_do_not_disturb_each_other() {
    on_shared("lanes", async |log, topic: &str| {
        const RECORDS: u64 = 2000;
        make(&log, topic, 1).await;
        append(&log, topic, (0..RECORDS).map(|i| i.to_string())).await;
        let log = &log;
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
        futures::future::join_all(readers.map(|(start, step)| reader(start, step))).await;
    });
}

#[test]
fn a_reader_that_retention_overtook_is_told_what_is_missing() {
    on_shared("retention", async |log, topic: &str| {
        // More than a consumer fetches ahead, so that the slow reader has not all of it already.
        const RECORDS: u64 = 90;
        const BYTES: usize = 200_000;
        make(&log, topic, 1).await;
        let plain = format!("kafka://{}?compression.type=none", shared().servers());
        let plain = KafkaLog::new(&plain).expect("make the clients");
        for i in 0..RECORDS {
            append(&plain, topic, [format!("{i:02}").repeat(BYTES)]).await;
        }
        let slow = connect(shared());
        let first = slow.read(topic, 0, 0, 3, PLENTY).await.expect("read");
        let position = first.next;
        // As the cluster's retention does: the log begins later, whoever reads.
        log.trim(topic, 0, RECORDS - 2).await.expect("trim");
        let (read, error) = read_on(&slow, topic, 0, position).await;
        let stopped = position + read.len() as u64;
        assert!(
            read.iter().map(|(offset, _)| *offset).eq(position..stopped),
            "without a gap as far as it goes"
        );
        let Some(LogError::Truncated { topic: named, partition, from, start }) = &error else {
            panic!("{error:?} at {stopped}");
        };
        assert_eq!((named.as_str(), *partition, *from, *start), (topic, 0, stopped, RECORDS - 2));
        let said = error.map(|error| error.to_string()).unwrap_or_default();
        let missing = format!("offsets [{stopped}, {}) of {topic}/0", RECORDS - 2);
        assert!(said.contains(&missing), "{said}");
        // It goes on where the log begins, and nowhere by itself.
        let again = slow.read(topic, 0, stopped, 1, PLENTY).await;
        assert!(matches!(again, Err(LogError::Truncated { .. })), "{again:?}");
        let (rest, error) = read_on(&slow, topic, 0, RECORDS - 2).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(rest.len(), 2);
    });
    const PLENTY: usize = 64 << 20;
}

#[test]
fn records_carry_the_brokers_append_time() {
    on_shared("append-time", async |log, topic: &str| {
        make(&log, topic, 1).await;
        log.append(topic, 0, vec![Append::unkeyed("a")]).await.expect("append");
        log.append(topic, 0, vec![Append::unkeyed("b")]).await.expect("append");
        let records = read_all(&log, topic, 0, 0).await;
        let times = [records[0].append_time_us, records[1].append_time_us];
        // Microseconds since 1970, of a clock that is set, to the millisecond.
        assert!(times[0] > 1_700_000_000_000_000 && times[0] % 1000 == 0, "{times:?}");
        assert!(times[1] >= times[0], "{times:?}");
    });
}
