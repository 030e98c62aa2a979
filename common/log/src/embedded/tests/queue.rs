//! Tests of the queue before the writer: what waits together is committed together, and how much
//! may wait is bounded.

use std::sync::mpsc;

use super::*;

#[test]
fn appends_that_wait_together_are_committed_with_one_sync() {
    let bench = Bench::new(1 << 20);
    let (entered_tx, entered) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = parking_lot::Mutex::new(gate);
    // The writer asks for the time once for each commit: the first commit is held there.
    let clock = Arc::new(move || {
        entered_tx.send(()).expect("the test listens");
        let _ = gate.lock().recv();
        1
    });
    let config = EmbeddedConfig { clock, ..bench.config.clone() };
    let log = EmbeddedLog::open_with(bench.path(), config).expect("open");
    let offsets = bench.runtime.block_on(async {
        log.ensure_topic(&TopicSpec::new("t", 1)).await.expect("make a topic");
        let before = log.stats();
        let append = |i: usize| log.append("t", 0, vec![Append::unkeyed(i.to_string())]);
        let mut first = append(0);
        assert!(futures::poll!(&mut first).is_pending());
        entered.recv().expect("the writer has taken the first append");
        let mut rest: Vec<_> = (1..=50).map(append).collect();
        for append in &mut rest {
            assert!(futures::poll!(append).is_pending());
        }
        drop(release);
        let mut offsets = first.await.expect("append");
        for append in rest {
            offsets.extend(append.await.expect("append"));
        }
        let after = log.stats();
        assert_eq!(after.commits - before.commits, 2);
        assert_eq!(after.syncs - before.syncs, 2);
        assert_eq!(after.records - before.records, 51);
        offsets
    });
    assert_eq!(offsets, (0..=50).collect::<Vec<u64>>());
}

#[test]
fn a_full_queue_holds_the_appender_back_and_a_larger_batch_is_refused() {
    let bench = Bench::new(1 << 20);
    let (release, gate) = mpsc::channel::<()>();
    let gate = parking_lot::Mutex::new(gate);
    let clock = Arc::new(move || {
        let _ = gate.lock().recv();
        1
    });
    let config = EmbeddedConfig { clock, queue_bytes_max: 1000, ..bench.config.clone() };
    let log = EmbeddedLog::open_with(bench.path(), config).expect("open");
    bench.runtime.block_on(async {
        log.ensure_topic(&TopicSpec::new("t", 1)).await.expect("make a topic");
        let append = |bytes: usize| log.append("t", 0, vec![Append::unkeyed("x".repeat(bytes))]);
        let refused = append(1001).await;
        assert!(matches!(refused, Err(LogError::TooLarge { .. })), "{refused:?}");
        let mut first = append(900);
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = append(900);
        assert!(futures::poll!(&mut second).is_pending());
        let found = log.topic("t").expect("topic");
        let queue = found.partitions[0].queue.as_ref().expect("open");
        assert!(queue.max_capacity() - queue.capacity() <= 1, "the second isn't queued");
        drop(release);
        assert_eq!(first.await.expect("append"), [0]);
        assert_eq!(second.await.expect("append"), [1]);
    });
}
