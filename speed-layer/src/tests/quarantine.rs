//! The quarantine: one entry for each record, however often it is met.

use sanso_catalog::{QuarantineStore, Quarantined};

use crate::quarantine::Quarantine;
use crate::worker::QuarantineSink;

fn refused(partition: u32, offset: u64, kind: &str, reason: &str) -> Quarantined {
    Quarantined { partition, offset, kind: kind.into(), reason: reason.into(), payload: "{}".into() }
}

#[test]
fn a_record_met_again_is_one_entry_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let entries = [
        refused(0, 3, "undecodable", "no"),
        refused(0, 300, "conflict", "no"),
        refused(1, 2, "misplaced", "no"),
    ];
    for _ in 0..2 {
        let quarantine = Quarantine::open(folder.path()).expect("open");
        let mut sink = quarantine.sink("readings");
        sink.put(&entries).expect("put");
        sink.put(&entries[1..]).expect("put");
        quarantine.sink("other").put(&entries[..1]).expect("put");
        assert_eq!(quarantine.count("readings"), Ok(3));
        assert_eq!(quarantine.count("other"), Ok(1));
        assert_eq!(quarantine.list("readings", None, 10).expect("list"), entries);
        assert_eq!(quarantine.list("readings", Some((0, 3)), 1).expect("list"), entries[1..2]);
        assert_eq!(quarantine.list("readings", Some((1, 2)), 10).expect("list"), []);
    }
}

#[test]
fn several_views_that_fail_on_one_record_are_named_in_one_entry() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let quarantine = Quarantine::open(folder.path()).expect("open");
    let entries = [refused(0, 3, "expression", "view a: x"), refused(0, 3, "expression", "view b: y")];
    quarantine.sink("s").put(&entries).expect("put");
    quarantine.sink("s").put(&entries).expect("put again");
    let listed = quarantine.list("s", None, 10).expect("list");
    assert_eq!((listed.len(), listed[0].reason.as_str()), (1, "view a: x\nview b: y"));
}
