//! Topics that others change: grown, deleted, made again, compacted.

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use sanso_log::{KafkaLog, Log, LogError, Retry, TopicSpec};

use super::{admin, append, connect, make, on_shared, persist, shared};

async fn delete(topic: &str) {
    let deleted = admin(shared()).delete_topics(&[topic], &AdminOptions::new()).await;
    deleted.expect("delete a topic")[0].as_ref().expect("delete a topic");
}

#[test]
fn added_partitions_are_seen_and_refused() {
    on_shared("grown", async |log, topic: &str| {
        make(&log, topic, 2).await;
        append(&log, topic, ["a".to_owned()]).await;
        assert_eq!(log.partitions(topic).await.expect("ask"), 2);
        let more = NewPartitions::new(topic, 3);
        let made = admin(shared()).create_partitions([&more], &AdminOptions::new()).await;
        made.expect("add a partition")[0].as_ref().expect("add a partition");
        // The answer comes from what the broker knows, a moment after the controller.
        while log.partitions(topic).await.expect("ask") == 2 {}
        assert_eq!(log.partitions(topic).await.expect("ask"), 3, "without a restart");
        let refused = log.ensure_topic(&TopicSpec::new(topic, 2)).await.expect_err("keys have moved");
        assert!(matches!(refused, LogError::PartitionMismatch { existing: 3, asked: 2, .. }), "{refused:?}");
        // What was there is still read and written as before.
        append(&log, topic, ["b".to_owned()]).await;
        assert_eq!(log.end_offset(topic, 0).await.expect("ask"), 2);
    });
}

#[test]
fn a_deleted_topic_is_missing_and_is_not_made_again_by_reading_or_writing() {
    on_shared("deleted", async |log, topic: &str| {
        make(&log, topic, 1).await;
        append(&log, topic, ["a".to_owned()]).await;
        // Gone is what stays gone for as long as a request may take, to a client that has seen it.
        let address = format!("kafka://{}?socket.timeout.ms=2000", shared().servers());
        let log = KafkaLog::new(&address).expect("make the clients");
        let there = persist(async || log.read(topic, 0, 0, 10, 1000).await).await;
        assert_eq!(there.expect("read").end, 1);
        delete(topic).await;
        let error = loop {
            // The controller has answered, maybe before the broker has removed it.
            match persist(async || log.read(topic, 0, 1, 10, 1000).await).await {
                Ok(batch) => assert!(batch.records.is_empty(), "{batch:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LogError::UnknownTopic { .. }), "{error:?}");
        let wait = persist(async || log.wait_beyond(topic, 0, 1).await).await;
        assert!(matches!(wait, Err(LogError::UnknownTopic { .. })), "{wait:?}");
        let records = || vec![sanso_log::Append::unkeyed("b")];
        let append = persist(async || log.append(topic, 0, records()).await).await;
        assert!(matches!(append, Err(LogError::UnknownTopic { .. })), "{append:?}");
        let asked = connect(shared()).partitions(topic).await;
        assert!(matches!(asked, Err(LogError::UnknownTopic { .. })), "{asked:?}");
    });
}

#[test]
fn a_topic_made_again_stops_its_readers_and_skips_nothing() {
    on_shared("made-again", async |log, topic: &str| {
        make(&log, topic, 1).await;
        append(&log, topic, (0..100).map(|i| format!("old {i}"))).await;
        assert_eq!(log.read(topic, 0, 0, 60, 1 << 20).await.expect("read").next, 60);
        delete(topic).await;
        // The controller has answered, maybe before the broker has removed it. A client that has seen the
        // topic would not believe it at once.
        let asked = async || connect(shared()).partitions(topic).await;
        while !matches!(asked().await, Err(LogError::UnknownTopic { .. })) {}
        let other = connect(shared());
        // The broker refuses the name until the old topic is gone.
        while other.ensure_topic(&TopicSpec::new(topic, 1)).await.is_err() {}
        append(&other, topic, (0..10).map(|i| format!("new {i}"))).await;
        for reader in [&log, &connect(shared())] {
            let mut position = 60;
            let error = loop {
                match persist(async || reader.read(topic, 0, position, 100, 1 << 20).await).await {
                    // What it had fetched of the old topic before is good.
                    Ok(batch) => {
                        assert!(batch.records.iter().all(|r| r.payload.starts_with(b"old")), "{batch:?}");
                        assert!(batch.next > position, "neither records nor an error at {position}");
                        position = batch.next;
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.retry(), Retry::Never);
            let expected = format!("offset {position} of {topic}/0 is beyond its end 10");
            let said = error.to_string();
            assert!(said.contains(&expected) || matches!(error, LogError::UnknownTopic { .. }), "{said}");
            let wait = persist(async || reader.wait_beyond(topic, 0, position).await).await;
            assert!(matches!(wait, Err(LogError::BeyondEnd { end: 10, .. })), "{wait:?}");
        }
    });
}

#[test]
fn a_compacted_topic_is_refused() {
    on_shared("compacted", async |log, topic: &str| {
        let compacted = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
        let made = admin(shared()).create_topics([&compacted], &AdminOptions::new()).await;
        made.expect("make a topic")[0].as_ref().expect("make a topic");
        let spec = TopicSpec::new(topic, 1);
        let refused = log.ensure_topic(&spec).await.expect_err("it loses records by itself");
        assert!(refused.to_string().contains("cleanup.policy"), "{refused}");
    });
}
