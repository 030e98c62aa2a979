//! What a driver and its workers say to each other, as nodes of other versions have to understand it.

use sanso_batch::{TaskAnswer, TaskCall, Work, WorkerId};
use sanso_state::{Fingerprint, LogPartition, SegmentId};
use serde::Serialize;

fn call() -> TaskCall {
    let segment = SegmentId { partition: LogPartition(2), index: 7 };
    TaskCall {
        task: Fingerprint::from_bytes([0x1a; 32]),
        source: "readings".to_owned(),
        stands_on: 4,
        work: Work::Advance { partition: segment.partition, segments: vec![segment] },
        views: vec![Fingerprint::from_bytes([0x2b; 32])],
        held: Vec::new(),
        again: false,
    }
}

/// The bytes of a call whose work is encoded so.
fn bytes_of(work: &[u8]) -> Vec<u8> {
    let (task, view) = ("1a".repeat(32), "2b".repeat(32));
    [
        b"\x85\xa4task\xd9\x40",
        task.as_bytes(),
        b"\xa6source\xa8readings\xa9stands_on\x04\xa4work",
        work,
        b"\xa5views\x91\xd9\x40",
        view.as_bytes(),
    ]
    .concat()
}

#[test]
fn calls_and_answers_are_the_bytes_that_they_were() {
    let advance = b"\x81\xa7Advance\x82\xa9partition\x02\xa8segments\x91\x82\xa9partition\x02\xa5index\x07";
    assert_eq!(call().encode(), bytes_of(advance));
    assert_eq!(TaskCall::decode(&bytes_of(advance)).expect("a call"), call());
    let lift = TaskCall { work: Work::Lift { partitions: vec![LogPartition(0), LogPartition(5)] }, ..call() };
    let bytes = bytes_of(b"\x81\xa4Lift\x81\xaapartitions\x92\x00\x05");
    assert_eq!(lift.encode(), bytes);
    assert_eq!(TaskCall::decode(&bytes).expect("a call"), lift);
    let split = TaskCall { work: Work::Split { partitions: vec![LogPartition(5)] }, again: true, ..call() };
    let again = [bytes_of(b"\x81\xa5Split\x81\xaapartitions\x91\x05"), b"\xa5again\xc3".to_vec()].concat();
    let again = [b"\x86", &again[1..]].concat();
    assert_eq!(split.encode(), again);
    assert_eq!(TaskCall::decode(&again).expect("a call"), split);
    let slice = TaskCall { work: Work::Slice { partition: LogPartition(5), from: 2, to: 9 }, ..call() };
    let bytes = bytes_of(b"\x81\xa5Slice\x83\xa9partition\x05\xa4from\x02\xa2to\x09");
    assert_eq!(slice.encode(), bytes);
    assert_eq!(TaskCall::decode(&bytes).expect("a call"), slice);
    let of = vec![Fingerprint::from_bytes([0x3c; 32]); 2];
    let combine = Work::Combine { index: 3, of };
    let combine = TaskCall { work: combine, held: vec![None, Some(WorkerId(4))], ..call() };
    let of = "3c".repeat(32);
    let work =
        [b"\x81\xa7Combine\x82\xa5index\x03\xa2of\x92\xd9\x40", of.as_bytes(), b"\xd9\x40", of.as_bytes()];
    let bytes = [bytes_of(&work.concat()), b"\xa4held\x92\xc0\x04".to_vec()].concat();
    let bytes = [b"\x86", &bytes[1..]].concat();
    assert_eq!(combine.encode(), bytes);
    assert_eq!(TaskCall::decode(&bytes).expect("a call"), combine);
    let done = TaskAnswer::Done { computed: true };
    let answer = |reason: &str, transient, lacks, unable| TaskAnswer::Failed {
        reason: reason.to_owned(),
        passing: true,
        transient,
        lacks,
        unable,
    };
    let failed = answer("why", false, Vec::new(), false);
    let unable = answer("why", true, Vec::new(), true);
    let lacking = answer("", true, vec![Fingerprint::from_bytes([0x3c; 32])], false);
    let lacks = [
        b"\x81\xa6Failed\x84\xa6reason\xa0\xa7passing\xc3\xa9transient\xc3\xa5lacks\x91\xd9\x40",
        of.as_bytes(),
    ];
    let lacks = lacks.concat();
    let answers: [(TaskAnswer, &[u8]); 4] = [
        (lacking, &lacks),
        (done, b"\x81\xa4Done\x81\xa8computed\xc3"),
        (failed, b"\x81\xa6Failed\x83\xa6reason\xa3why\xa7passing\xc3\xa9transient\xc2"),
        (unable, b"\x81\xa6Failed\x84\xa6reason\xa3why\xa7passing\xc3\xa9transient\xc3\xa6unable\xc3"),
    ];
    for (answer, bytes) in answers {
        assert_eq!(answer.encode(), bytes);
        assert_eq!(TaskAnswer::decode(bytes).expect("an answer"), answer);
    }
}

#[test]
fn a_field_that_is_not_known_is_passed_over_and_work_that_is_not_known_is_refused() {
    #[derive(Serialize)]
    struct Later<W> {
        priority: u32,
        task: Fingerprint,
        source: String,
        stands_on: u64,
        work: W,
        views: Vec<Fingerprint>,
    }
    #[derive(Serialize)]
    enum LaterWork {
        Compact { partition: LogPartition },
    }
    fn later<W: Serialize>(work: W) -> Vec<u8> {
        let TaskCall { task, source, stands_on, views, .. } = call();
        rmp_serde::to_vec_named(&Later { priority: 3, task, source, stands_on, work, views })
            .expect("written")
    }
    assert_eq!(TaskCall::decode(&later(call().work)).expect("read"), call());
    assert!(TaskCall::decode(&later(LaterWork::Compact { partition: LogPartition(2) })).is_err());
}
