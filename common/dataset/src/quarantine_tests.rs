//! Tests of the quarantine's files and of replays.

use object_store::{ObjectStoreExt, PutPayload};
use sanso_state::{Cut, LogPartition, Quarantined, Refusal, SegmentId};

use crate::manifest::seal;
use crate::*;

const SOURCE: &str = "readings";

fn segment() -> SegmentId {
    SegmentId { partition: LogPartition(3), index: 42 }
}

fn refused(offset: u64, kind: Refusal, payload: &[u8]) -> Quarantined {
    let (reason, payload) = (format!("{kind} at {offset}"), payload.to_vec());
    Quarantined { partition: 3, offset, append_time_us: 5_000_000, kind, reason, view: None, payload }
}

#[tokio::test]
async fn a_quarantine_reads_back_as_it_was_written_byte_for_byte() {
    let dataset = Dataset::in_memory();
    assert_eq!(dataset.put_quarantine(SOURCE, segment(), &[]).await.expect("nothing to write"), None);
    let records = [
        refused(7, Refusal::Undecodable, b"\xff\x00"),
        refused(8, Refusal::Conflict, b"{}"),
        refused(11, Refusal::Misplaced, b""),
    ];
    let put = dataset.put_quarantine(SOURCE, segment(), &records).await.expect("put").expect("a file");
    assert_eq!(put.path, "quarantine/log_partition=00003/000000000042.parquet");
    assert_eq!((put.counts.total(), put.counts.conflict), (3, 1));
    assert_eq!(dataset.read_quarantine(SOURCE, &put).await.expect("read"), records);
    let again = dataset.put_quarantine(SOURCE, segment(), &records).await.expect("put again");
    assert_eq!(again.as_ref(), Some(&put));
    let path = dataset.layout().listed(SOURCE, &put.path);
    dataset.object_store().put(&path, PutPayload::from_static(b"PAR1")).await.expect("damage");
    let damaged = dataset.read_quarantine(SOURCE, &put).await;
    assert!(matches!(damaged, Err(DatasetError::Damaged { .. })), "{damaged:?}");
}

#[tokio::test]
async fn a_manifest_that_lists_no_quarantine_leaves_all_of_it_to_the_speed_layer() {
    let text = r#"{"source":"readings","version":1,"cut":[8],"segment_size":4,"columns":[],"rules":"","watermarks":[null],"rows":0,"segments":[],"newest":[]}"#;
    let manifest: Manifest = serde_json::from_str(text).expect("a manifest of format 1");
    assert_eq!(manifest.division().batch(LogPartition(0)), 8..8);
    assert_eq!(serde_json::to_string(&manifest).expect("JSON"), text, "its fingerprint stays");
    let after =
        Manifest { quarantine_from: Some(manifest.division().from), cut: Cut::new(vec![12]), ..manifest };
    assert_eq!(after.division().batch(LogPartition(0)), 8..12);
    assert_eq!(after.division().speed(LogPartition(0)), [0..8, 12..u64::MAX]);
}

#[tokio::test]
async fn a_quarantine_stays_listed_or_about_to_be() {
    let dataset = Dataset::in_memory();
    let records = [refused(7, Refusal::Conflict, b"{}")];
    let listed = dataset.put_quarantine(SOURCE, segment(), &records).await.expect("put").expect("a file");
    let next = SegmentId { index: 43, ..segment() };
    let next = dataset.put_quarantine(SOURCE, next, &records).await.expect("put").expect("a file");
    let text = r#"{"source":"readings","version":1,"cut":[8],"segment_size":4,"columns":[],"rules":"","watermarks":[null],"rows":0,"segments":[],"newest":[]}"#;
    let manifest: Manifest = serde_json::from_str(text).expect("a manifest");
    dataset.commit(&Manifest { quarantine: vec![listed.clone()], ..manifest }).await.expect("commit");
    assert_eq!(dataset.remove_unreferenced(SOURCE, 1).await.expect("removed"), 0);
    for file in [listed, next] {
        assert_eq!(dataset.read_quarantine(SOURCE, &file).await.expect("kept"), records);
    }
}

#[tokio::test]
async fn a_replay_is_planned_once_and_known_to_be_done_when_it_is() {
    let dataset = Dataset::in_memory();
    let record = ReplayRecord { partition: 0, offset: 7, to: 1, key: "m".into(), payload: "{}".into() };
    let plan = |number| ReplayPlan {
        number,
        planned_us: 5,
        into: SOURCE.to_owned(),
        ends: vec![0, 9],
        records: vec![record.clone()],
    };
    for number in 1..=2 {
        assert!(dataset.plan_replay(SOURCE, &plan(number)).await.expect("planned"));
        assert!(!dataset.plan_replay(SOURCE, &plan(number)).await.expect("its number is taken"));
    }
    let done = ReplayDone { number: 1, offsets: vec![9] };
    dataset.finish_replay(SOURCE, &done).await.expect("done");
    let all = dataset.replays(SOURCE, 0).await.expect("read");
    assert_eq!(all, [(plan(1), Some(done)), (plan(2), None)]);
    assert_eq!(dataset.replays(SOURCE, 1).await.expect("read"), all[1..]);
    // Another document in its place is refused.
    let path = dataset.layout().replay(SOURCE, 2, false);
    let bytes = seal(&plan(2)).to_vec();
    let bytes = String::from_utf8(bytes).expect("text").replace("\"to\":1", "\"to\":0");
    dataset.object_store().put(&path, PutPayload::from(bytes.into_bytes())).await.expect("damage");
    assert!(matches!(dataset.replays(SOURCE, 1).await, Err(DatasetError::Damaged { .. })));
}
