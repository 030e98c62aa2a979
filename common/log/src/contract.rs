//! The contract of [`Log`], as a suite that every implementation passes.
//!
//! Each case is a function that gets a log and the name of a topic that doesn't exist yet.
//! [`log_contract!`](crate::log_contract) makes one test of each. A case panics where the contract
//! is broken.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;

use crate::{Append, Batch, Log, LogError, Record, TopicSpec};

/// Makes a test of each case: `log_contract!(with_log)`, where
/// `fn with_log(case: &str, run: impl AsyncFnOnce(&dyn Log, &str))` makes a log, and runs the case
/// with a new topic's name.
#[macro_export]
macro_rules! log_contract {
    ($with_log:path) => {
        $crate::log_contract!(@each $with_log,
            a_new_topic_is_empty
            making_a_topic_again_changes_nothing_and_another_partition_count_is_refused
            what_does_not_exist_is_refused_by_name
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
            trimming_keeps_what_is_not_given_up
        );
    };
    (@each $with_log:path, $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $with_log(stringify!($case), async |log: &dyn $crate::Log, topic: &str| {
                    $crate::contract::$case(log, topic).await;
                });
            }
        )*
    };
}

/// Longest that a case waits for something that the contract promises.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough bytes for any read of the suite.
const PLENTY: usize = 8 << 20;

async fn make(log: &dyn Log, topic: &str, partitions: u32) {
    log.ensure_topic(&TopicSpec::new(topic, partitions)).await.expect("make a topic");
}

async fn append(log: &dyn Log, topic: &str, partition: u32, payloads: &[String]) -> Vec<u64> {
    let records = payloads.iter().map(|p| Append::keyed("key", p.clone())).collect();
    log.append(topic, partition, records).await.expect("append")
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what the contract promises takes too long")
}

fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("payload {i}")).collect()
}

fn text(record: &Record) -> String {
    String::from_utf8(record.payload.to_vec()).expect("payloads of the suite are text")
}

/// Reads `[from, end)` and checks each answer on the way.
pub async fn read_all(log: &dyn Log, topic: &str, partition: u32, from: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut position = from;
    loop {
        let read = log.read(topic, partition, position, 100, PLENTY);
        let batch = in_time(read).await.expect("read");
        check(&batch, position);
        let caught_up = batch.next == batch.end;
        assert!(caught_up || batch.next > position, "a read before the end makes progress");
        position = batch.next;
        records.extend(batch.records);
        if caught_up {
            return records;
        }
    }
}

/// Checks what holds for every batch.
fn check(batch: &Batch, from: u64) {
    assert!(batch.next >= from && batch.next <= batch.end, "{from} {} {}", batch.next, batch.end);
    let mut lowest = from;
    for record in &batch.records {
        assert!(record.offset >= lowest && record.offset < batch.next, "offsets grow within range");
        lowest = record.offset + 1;
    }
}

/// A topic starts without records, and says so.
pub async fn a_new_topic_is_empty(log: &dyn Log, topic: &str) {
    make(log, topic, 2).await;
    assert_eq!(log.partitions(topic).await.expect("partitions"), 2);
    for partition in 0..2 {
        assert_eq!(log.start_offset(topic, partition).await.expect("start"), 0);
        assert_eq!(log.end_offset(topic, partition).await.expect("end"), 0);
        let batch = in_time(log.read(topic, partition, 0, 10, PLENTY)).await.expect("read");
        assert_eq!(batch, Batch { records: Vec::new(), next: 0, end: 0 });
    }
}

/// `ensure_topic` is idempotent and keeps the partition count.
pub async fn making_a_topic_again_changes_nothing_and_another_partition_count_is_refused(
    log: &dyn Log,
    topic: &str,
) {
    make(log, topic, 3).await;
    append(log, topic, 1, &numbered(2)).await;
    make(log, topic, 3).await;
    assert_eq!(read_all(log, topic, 1, 0).await.len(), 2);
    let refused = log.ensure_topic(&TopicSpec::new(topic, 4)).await;
    match refused {
        Err(LogError::PartitionMismatch { topic: named, existing: 3, asked: 4 }) => {
            assert_eq!(named, topic);
        }
        other => panic!("a partition count changed: {other:?}"),
    }
    assert_eq!(log.partitions(topic).await.expect("partitions"), 3);
    for (name, partitions) in [("", 1), ("a/b", 1), ("..", 1), ("x", 0)] {
        let refused = log.ensure_topic(&TopicSpec::new(name, partitions)).await;
        assert!(matches!(refused, Err(LogError::InvalidTopic { .. })), "{name:?} {refused:?}");
    }
}

/// A topic or partition that isn't there is an error of every method, and appears by none.
pub async fn what_does_not_exist_is_refused_by_name(log: &dyn Log, topic: &str) {
    let one = || vec![Append::unkeyed("x")];
    let unknown = |e: LogError| match e {
        LogError::UnknownTopic { topic: named } => assert_eq!(named, topic),
        other => panic!("{other:?}"),
    };
    unknown(log.partitions(topic).await.expect_err("partitions"));
    unknown(log.append(topic, 0, one()).await.expect_err("append"));
    unknown(log.read(topic, 0, 0, 1, 1).await.expect_err("read"));
    unknown(log.start_offset(topic, 0).await.expect_err("start"));
    unknown(log.end_offset(topic, 0).await.expect_err("end"));
    unknown(in_time(log.wait_beyond(topic, 0, 0)).await.expect_err("wait"));
    unknown(log.trim(topic, 0, 0).await.expect_err("trim"));
    make(log, topic, 2).await;
    let unknown = |e: LogError| match e {
        LogError::UnknownPartition { partition: 2, partitions: 2, .. } => {}
        other => panic!("{other:?}"),
    };
    unknown(log.append(topic, 2, one()).await.expect_err("append"));
    unknown(log.read(topic, 2, 0, 1, 1).await.expect_err("read"));
    unknown(log.start_offset(topic, 2).await.expect_err("start"));
    unknown(log.end_offset(topic, 2).await.expect_err("end"));
    unknown(in_time(log.wait_beyond(topic, 2, 0)).await.expect_err("wait"));
    unknown(log.trim(topic, 2, 0).await.expect_err("trim"));
}

/// Keys and payloads are bytes; no key, an empty key and a key are three things.
pub async fn records_come_back_as_they_were_appended(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    let every_byte = (0..=255).collect::<Vec<u8>>();
    let long = vec![b'x'; 300_000];
    let records = vec![
        Append::keyed("meter 1", "{\"value\": 1.5}"),
        Append::unkeyed("without key"),
        Append::keyed("", "with an empty key"),
        Append::keyed("with an empty payload", ""),
        Append::keyed(every_byte.clone(), every_byte),
        Append::keyed("long", long),
    ];
    let offsets = log.append(topic, 0, records.clone()).await.expect("append");
    let read = read_all(log, topic, 0, 0).await;
    assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), offsets);
    let read: Vec<_> = read.into_iter().map(|r| Append { key: r.key, payload: r.payload }).collect();
    assert!(read == records, "records differ");
}

/// Batches keep their order, and follow each other.
pub async fn offsets_grow_in_the_order_of_appends(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    let payloads = numbered(60);
    let mut offsets = Vec::new();
    for (i, batch) in payloads.chunks(7).enumerate() {
        let given = append(log, topic, 0, batch).await;
        assert_eq!(given.len(), batch.len(), "batch {i}");
        offsets.extend(given);
    }
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    let read = read_all(log, topic, 0, 0).await;
    assert_eq!(read.iter().map(text).collect::<Vec<_>>(), payloads);
    assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), offsets);
}

/// An empty batch is no error and no record.
pub async fn appending_nothing_is_fine(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    assert_eq!(log.append(topic, 0, Vec::new()).await.expect("append"), Vec::<u64>::new());
    assert_eq!(log.end_offset(topic, 0).await.expect("end"), 0);
}

/// What is in one partition is in no other, and neither are its offsets.
pub async fn partitions_are_apart(log: &dyn Log, topic: &str) {
    make(log, topic, 3).await;
    let other = format!("{topic}-other");
    make(log, &other, 3).await;
    append(log, topic, 0, &["a".to_owned(), "b".to_owned()]).await;
    append(log, topic, 2, &["c".to_owned()]).await;
    append(log, &other, 0, &["d".to_owned()]).await;
    for (topic, partition, expected) in
        [(topic, 0, vec!["a", "b"]), (topic, 1, vec![]), (topic, 2, vec!["c"]), (&other, 0, vec!["d"])]
    {
        let read = read_all(log, topic, partition, 0).await;
        assert_eq!(read.iter().map(text).collect::<Vec<_>>(), expected, "{topic}/{partition}");
    }
}

/// Every offset is a place to start, also going back.
pub async fn reading_starts_at_any_offset(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    let payloads = numbered(12);
    let offsets = append(log, topic, 0, &payloads).await;
    for (i, offset) in offsets.iter().enumerate().rev() {
        let read = read_all(log, topic, 0, *offset).await;
        assert_eq!(read.iter().map(text).collect::<Vec<_>>(), payloads[i..], "from {offset}");
    }
    let end = log.end_offset(topic, 0).await.expect("end");
    let batch = in_time(log.read(topic, 0, end, 10, PLENTY)).await.expect("read at the end");
    assert_eq!(batch, Batch { records: Vec::new(), next: end, end });
}

/// `max_records` and `max_bytes` hold; a record larger than `max_bytes` still comes.
pub async fn a_read_keeps_its_limits_but_gives_at_least_one_record(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    let payloads: Vec<String> = (0..20).map(|i| "x".repeat(1000 + i)).collect();
    append(log, topic, 0, &payloads).await;
    for (max_records, max_bytes, at_most) in [(3, PLENTY, 3), (20, 2500, 2), (20, 1, 1), (1, 1, 1)] {
        let mut seen = Vec::new();
        let mut position = 0;
        while seen.len() < payloads.len() {
            let read = log.read(topic, 0, position, max_records, max_bytes);
            let batch = in_time(read).await.expect("read");
            check(&batch, position);
            assert!(batch.records.len() <= at_most, "{max_records} {max_bytes}");
            assert!(!batch.records.is_empty() || batch.next > position, "a read makes progress");
            position = batch.next;
            seen.extend(batch.records.iter().map(text));
        }
        assert_eq!(seen, payloads);
    }
}

/// Appends at the same time mix, but lose nothing, and each caller's own order stays.
pub async fn concurrent_appends_are_all_there_in_each_callers_order(log: &dyn Log, topic: &str) {
    make(log, topic, 2).await;
    let caller = |caller: usize| async move {
        let mut offsets = Vec::new();
        for i in 0..10 {
            let batch = [format!("{caller} {}", 2 * i), format!("{caller} {}", 2 * i + 1)];
            offsets.extend(append(log, topic, (caller % 2) as u32, &batch).await);
        }
        (caller, offsets)
    };
    let answers = in_time(join_all((0..8).map(caller))).await;
    for partition in 0..2 {
        let mut seen: BTreeMap<usize, Vec<(usize, u64)>> = BTreeMap::new();
        for record in read_all(log, topic, partition, 0).await {
            let text = text(&record);
            let (caller, number) = text.split_once(' ').expect("two numbers");
            let number = number.parse().expect("a number");
            let caller = caller.parse::<usize>().expect("a number");
            seen.entry(caller).or_default().push((number, record.offset));
        }
        assert_eq!(seen.len(), 4);
        for (caller, records) in seen {
            let expected: Vec<_> = answers[caller].1.iter().copied().enumerate().collect();
            assert_eq!(records, expected, "caller {caller}: nothing lost, doubled or moved");
        }
    }
}

/// A reader never sees a gap that is filled later, however it races with appends.
pub async fn a_reader_beside_appenders_sees_a_growing_prefix(log: &dyn Log, topic: &str) {
    const RECORDS: usize = 200;
    make(log, topic, 1).await;
    let writer = async {
        for batch in numbered(RECORDS).chunks(4) {
            append(log, topic, 0, batch).await;
        }
    };
    let reader = async {
        let mut seen = Vec::new();
        let mut position = 0;
        while seen.len() < RECORDS {
            log.wait_beyond(topic, 0, position).await.expect("wait");
            let batch = log.read(topic, 0, position, 9, PLENTY).await.expect("read");
            check(&batch, position);
            position = batch.next;
            seen.extend(batch.records.iter().map(text));
        }
        seen
    };
    let ((), seen) = in_time(futures::future::join(writer, reader)).await;
    assert_eq!(seen, numbered(RECORDS));
    let again = read_all(log, topic, 0, 0).await;
    assert_eq!(again.iter().map(text).collect::<Vec<_>>(), seen, "a second look sees the same");
}

/// After an acknowledgement the end has moved and the record can be read, at once.
pub async fn what_is_acknowledged_is_visible(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    for payload in numbered(10) {
        let offset = append(log, topic, 0, std::slice::from_ref(&payload)).await[0];
        assert!(log.end_offset(topic, 0).await.expect("end") > offset);
        let read = read_all(log, topic, 0, offset).await;
        assert_eq!(read.iter().map(text).collect::<Vec<_>>(), [payload]);
    }
}

/// All who wait at the end are woken by one append.
pub async fn waiting_ends_with_the_next_record(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    for round in numbered(5) {
        let end = log.end_offset(topic, 0).await.expect("end");
        let waiters = join_all((0..3).map(|_| log.wait_beyond(topic, 0, end)));
        let appender = append(log, topic, 0, std::slice::from_ref(&round));
        let (ends, offsets) = in_time(futures::future::join(waiters, appender)).await;
        for waited in ends {
            assert!(waited.expect("wait") > offsets[0].min(end), "{round}");
        }
    }
}

/// Waiting behind the end doesn't wait.
pub async fn waiting_for_what_is_there_ends_at_once(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    append(log, topic, 0, &numbered(3)).await;
    let end = log.end_offset(topic, 0).await.expect("end");
    for from in 0..end {
        assert_eq!(in_time(log.wait_beyond(topic, 0, from)).await.expect("wait"), end);
    }
}

/// A caller that knows more offsets than the log is told, not served.
pub async fn a_position_beyond_the_end_is_refused(log: &dyn Log, topic: &str) {
    make(log, topic, 1).await;
    append(log, topic, 0, &numbered(3)).await;
    let end = log.end_offset(topic, 0).await.expect("end");
    let refused = |e: LogError| match e {
        LogError::BeyondEnd { topic: named, partition: 0, from, end: told } => {
            assert_eq!((named.as_str(), from, told), (topic, end + 5, end));
        }
        other => panic!("{other:?}"),
    };
    refused(in_time(log.read(topic, 0, end + 5, 10, PLENTY)).await.expect_err("read"));
    refused(in_time(log.wait_beyond(topic, 0, end + 5)).await.expect_err("wait"));
    refused(log.trim(topic, 0, end + 5).await.expect_err("trim"));
    assert_eq!(read_all(log, topic, 0, 0).await.len(), 3);
}

/// Trimming deletes at most what was given up; a reader of what is gone is told what it missed.
pub async fn trimming_keeps_what_is_not_given_up(log: &dyn Log, topic: &str) {
    make(log, topic, 2).await;
    let payloads = numbered(50);
    let mut offsets = Vec::new();
    for batch in payloads.chunks(10) {
        offsets.extend(append(log, topic, 0, batch).await);
    }
    let mut given_up = 0;
    for before in [0, 20, 33, 20] {
        log.trim(topic, 0, offsets[before]).await.expect("trim");
        given_up = given_up.max(before);
        let start = log.start_offset(topic, 0).await.expect("start");
        assert!(start <= offsets[given_up], "more is gone than was given up");
        let read = read_all(log, topic, 0, offsets[given_up]).await;
        assert_eq!(read.iter().map(text).collect::<Vec<_>>(), payloads[given_up..]);
    }
    let start = log.start_offset(topic, 0).await.expect("start");
    for from in (0..start).step_by(7) {
        match in_time(log.read(topic, 0, from, 10, PLENTY)).await {
            Err(LogError::Truncated { topic: named, partition: 0, from: told, start: first }) => {
                assert_eq!((named.as_str(), told, first), (topic, from, start));
            }
            other => panic!("a reader of what is gone must be told: {other:?}"),
        }
    }
    assert_eq!(append(log, topic, 0, &numbered(1)).await.len(), 1, "appends go on");
}
