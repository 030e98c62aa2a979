//! Brokers that die and come back, under load.

use std::collections::BTreeMap;

use sanso_broker::Cluster;
use sanso_log::{Append, KafkaLog, Log, LogError, Retry};
use tokio::sync::watch;

use super::{connect, in_time, make, read_on, run};

const PARTITIONS: u32 = 3;

/// Appends numbered records to one partition until told to stop; returns what was acknowledged,
/// by offset, and what has an unknown outcome.
async fn append_until(
    log: &KafkaLog,
    topic: &str,
    partition: u32,
    acknowledged: &watch::Sender<u64>,
    mut stop: watch::Receiver<bool>,
) -> (BTreeMap<u64, String>, Vec<String>) {
    let (mut told, mut unknown) = (BTreeMap::new(), Vec::new());
    for number in 0_u64.. {
        if *stop.borrow_and_update() {
            break;
        }
        let payload = format!("{partition} {number}");
        match log.append(topic, partition, vec![Append::unkeyed(payload.clone())]).await {
            Ok(offsets) => {
                assert!(told.insert(offsets[0], payload).is_none(), "an offset is given once");
                acknowledged.send_modify(|count| *count += 1);
            }
            Err(error) => {
                assert_eq!(error.retry(), Retry::Later, "a broker that is away passes: {error}");
                unknown.push(payload);
            }
        }
    }
    (told, unknown)
}

/// Waits until `more` further records are acknowledged.
async fn acknowledge(count: &mut watch::Receiver<u64>, more: u64) {
    let wanted = *count.borrow_and_update() + more;
    in_time(count.wait_for(|count| *count >= wanted)).await.expect("the appenders go on");
}

#[test]
fn no_acknowledged_record_is_lost_or_doubled_when_brokers_are_killed() {
    run("killed-brokers", async {
        let mut cluster = Cluster::start(3).expect("start three brokers");
        let (log, topic) = (connect(&cluster), "readings");
        make(&log, topic, PARTITIONS).await;
        let (acknowledged, mut count) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let appenders = (0..PARTITIONS)
            .map(|partition| append_until(&log, topic, partition, &acknowledged, stopped.clone()));
        let faults = async {
            acknowledge(&mut count, 300).await;
            // Leader of one partition, follower of the others, and a controller.
            cluster.kill(0);
            acknowledge(&mut count, 300).await;
            tokio::task::block_in_place(|| cluster.restart()).expect("start it again");
            acknowledge(&mut count, 300).await;
            stop.send_replace(true);
        };
        let (told, ()) = futures::future::join(futures::future::join_all(appenders), faults).await;
        // All at once: what was acknowledged lies on disks.
        (0..3).for_each(|broker| cluster.kill(broker));
        let error = log.end_offset(topic, 0).await.expect_err("nobody is there");
        assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
        tokio::task::block_in_place(|| cluster.restart()).expect("start them again");
        for (partition, (told, unknown)) in (0..).zip(told) {
            // The log and its clients of before: they find the brokers again by themselves.
            let end = super::persist(async || log.end_offset(topic, partition).await).await;
            end.expect("the cluster is back");
            let (records, error) = read_on(&log, topic, partition, 0).await;
            assert!(error.is_none(), "{error:?}");
            let mut times: BTreeMap<String, u32> = BTreeMap::new();
            for (offset, payload) in records {
                if let Some(expected) = told.get(&offset) {
                    assert_eq!(&payload, expected, "at {partition}/{offset}");
                } else {
                    assert!(unknown.contains(&payload), "{payload} was never sent or is doubled");
                }
                *times.entry(payload).or_default() += 1;
            }
            let lost: Vec<_> = told.values().filter(|payload| !times.contains_key(*payload)).collect();
            assert!(lost.is_empty(), "partition {partition} has lost {lost:?}");
            let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
            assert!(doubled.is_empty(), "partition {partition} has twice {doubled:?}");
        }
        // It takes records again.
        let appended = super::persist(async || log.append(topic, 0, vec![Append::unkeyed("on")]).await).await;
        appended.expect("append");
    });
}
