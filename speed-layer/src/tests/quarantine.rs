//! The speed layer's quarantine: one entry for each record, however often it is met, until it is published.

use std::ops::ControlFlow;

use sanso_catalog::{Order, QuarantineStore};
use sanso_state::{Fingerprint, LogPartition, Offset, Quarantined, Refusal, RefusalCounts};

use super::{source, views};
use crate::quarantine::Quarantine;
use crate::worker::QuarantineSink;

fn refused(partition: u32, offset: u64, kind: Refusal) -> Quarantined {
    let view = (kind == Refusal::Expression).then(|| Fingerprint::of(b"a view"));
    let payload = vec![0xff, b'\n', offset as u8];
    Quarantined { partition, offset, append_time_us: 7, kind, reason: "no\nreally".into(), view, payload }
}

fn all(quarantine: &Quarantine, partition: u32, order: Order) -> Vec<Quarantined> {
    let mut found = Vec::new();
    let mut visit = |record| {
        found.push(record);
        ControlFlow::Continue(())
    };
    quarantine.visit("readings", partition, 0..Offset::MAX, order, &mut visit).expect("visit");
    quarantine.visit_expressions("readings", partition, 0..Offset::MAX, order, &mut visit).expect("visit");
    found
}

#[test]
fn a_record_met_again_is_one_entry_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = source(&views());
    let entries = [
        refused(0, 3, Refusal::Undecodable),
        refused(0, 300, Refusal::Conflict),
        refused(0, 2, Refusal::Expression),
        refused(1, 2, Refusal::Misplaced),
    ];
    for _ in 0..2 {
        let quarantine = Quarantine::open(folder.path()).expect("open");
        let mut sink = quarantine.of(&source).expect("counted");
        sink.put(&entries).expect("put");
        sink.put(&entries[1..]).expect("put");
        assert_eq!(all(&quarantine, 0, Order::Rising), entries[..3]);
        assert_eq!(all(&quarantine, 0, Order::Falling)[0], entries[1]);
        assert_eq!(all(&quarantine, 1, Order::Rising), entries[3..]);
        let counts = |range| quarantine.counts("readings", 0, range).expect("counted");
        let both = RefusalCounts { undecodable: 1, conflict: 1, ..RefusalCounts::default() };
        assert_eq!(counts(0..Offset::MAX), both);
        let above = RefusalCounts { conflict: 1, ..RefusalCounts::default() };
        assert_eq!(counts(4..Offset::MAX), above);
        let views = [Fingerprint::of(b"a view"), Fingerprint::of(b"another")];
        assert_eq!(quarantine.expressions("readings", 0, &views), Ok(1));
        assert_eq!(quarantine.expressions("readings", 0, &views[1..]), Ok(0));
    }
}

#[test]
fn what_is_published_is_dropped_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = source(&views());
    let entries: Vec<_> = (0..12).map(|offset| refused(0, offset, Refusal::Conflict)).collect();
    let expression = refused(0, 5, Refusal::Expression);
    let left = [&entries[..4], &entries[8..], std::slice::from_ref(&expression)].concat();
    {
        let quarantine = Quarantine::open(folder.path()).expect("open");
        let mut sink = quarantine.of(&source).expect("counted");
        sink.put(&entries).expect("put");
        sink.put(&[expression, refused(1, 5, Refusal::Conflict)]).expect("put");
        sink.discard(LogPartition(0), 4..8).expect("discard");
        sink.discard(LogPartition(0), 4..8).expect("discard again");
    }
    let quarantine = Quarantine::open(folder.path()).expect("open again");
    let sink = quarantine.of(&source).expect("counted");
    assert_eq!(all(&quarantine, 0, Order::Rising), left);
    assert_eq!(all(&quarantine, 1, Order::Rising).len(), 1);
    assert_eq!(quarantine.counts("readings", 0, 0..Offset::MAX).expect("counted").conflict, 8);
    sink.retain_views(LogPartition(0), &[]).expect("no view is live");
    assert_eq!(all(&quarantine, 0, Order::Rising), left[..8]);
}

#[test]
fn a_store_that_is_lost_or_damaged_says_that_it_has_to_be_filled_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("quarantine");
    let source = source(&views());
    let begun = || {
        let quarantine = Quarantine::open(&path).expect("open");
        quarantine.of(&source).expect("counted").has_begun(LogPartition(0)).expect("read")
    };
    let begin = || {
        let quarantine = Quarantine::open(&path).expect("open");
        quarantine.of(&source).expect("counted").begin(LogPartition(0)).expect("written");
    };
    assert!(!begun());
    begin();
    assert!(begun());
    std::fs::remove_dir_all(&path).expect("lost");
    assert!(!begun());
    begin();
    std::fs::write(path.join("CURRENT"), "nonsense\n").expect("damaged");
    assert!(!begun());
}
