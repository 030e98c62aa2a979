//! What nodes say to each other, by version.

use std::fmt::Debug;
use std::path::Path;

use sanso_core::cluster::{Change, ClusterMap, Incarnation, Instance, NodeId, State};

use crate::voters::ControlPart;

use super::tests::{decoded_message, extension, groups, id, kinds, parts, writes};
use super::*;
use crate::transfer::{self, Transfer};

#[path = "../../golden.rs"]
mod golden;

use golden::Golden;

/// Something that is read as `T` and written again as `write` does.
fn golden<T: 'static>(
    name: impl Into<String>,
    bytes: Vec<u8>,
    read: fn(&[u8]) -> Result<T, WireError>,
    write: fn(T) -> Vec<u8>,
) -> Golden {
    let again = move |bytes: &[u8]| write(read(bytes).expect("it is of this version"));
    Golden { name: format!("{}.msgpack", name.into()), bytes, again: Box::new(again) }
}

fn document<T: Debug + Serialize + DeserializeOwned + 'static>(name: &str, document: &T) -> Golden {
    let bytes = encode(document);
    let read: T = decode(&bytes).expect("it was just written");
    assert_eq!(format!("{read:?}"), format!("{document:?}"), "{name} is read as it was written");
    golden(name, bytes, decode::<T>, |document| encode(&document))
}

fn instance(node: u16) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(1_700_000_000_000_000 + u64::from(node)) }
}

fn map() -> ClusterMap {
    let mut map = ClusterMap::new(2, 2);
    for change in [
        Change::Join(instance(1)),
        Change::Join(instance(2)),
        Change::Join(instance(3)),
        Change::Drain(NodeId(3), true),
        Change::Down(instance(2)),
        Change::Voters([1, 2, 3].map(NodeId).into()),
    ] {
        map.apply(&change).expect("it changes something");
    }
    map
}

fn named_writes() -> impl Iterator<Item = (String, Encoded)> {
    let names = [
        "create",
        "create-other",
        "delta",
        "delta-next",
        "delta-idle",
        "delta-open",
        "rebuild",
        "adopt",
        "delta-elsewhere",
        "remove",
    ];
    let writes = writes().into_iter().map(|made| write(made, &kinds()));
    names.into_iter().map(str::to_owned).zip(writes)
}

fn messages() -> Vec<(String, Message<Hosted>)> {
    let at = Position { life: 1, epoch: Epoch(2), seq: 10 };
    let entry = |(_, op)| Logged { epoch: Epoch(3), op };
    let mut state = Hosted::default();
    named_writes().for_each(|(_, write)| _ = state.apply(&write));
    let replication = [
        (
            "append",
            Replication::Append { previous: at, entries: named_writes().map(entry).collect(), commit: 9 },
        ),
        ("ask", Replication::Append { previous: at, entries: Vec::new(), commit: 9 }),
        ("snapshot", Replication::Snapshot { at, state }),
        ("appended", Replication::Appended { matched: 300, shown: 299 }),
        ("mismatched", Replication::Mismatched { commit: 8 }),
    ];
    let heartbeat = Heartbeat { sent_us: 70_000, echo_us: 300, map_version: 9 };
    let mut all = vec![
        ("heartbeat".to_owned(), Message::Heartbeat(heartbeat)),
        ("map".to_owned(), Message::Map(Arc::new(map()))),
    ];
    all.extend(replication.map(|(name, message)| {
        let (partition, epoch) = (Partition(3), Epoch(2));
        (name.to_owned(), Message::Replication { partition, epoch, from_since: 4, to_since: 5, message })
    }));
    all
}

fn encoded(said: Message<Hosted>) -> Vec<u8> {
    message(said).expect("all is in memory")
}

fn golden_write(name: &str, made: &Encoded) -> Golden {
    golden(format!("write.{name}"), made.bytes().to_vec(), decoded_write, |made| {
        write(made, &kinds()).bytes().to_vec()
    })
}

fn submits() -> Vec<Golden> {
    let mut all: Vec<Golden> = Vec::new();
    let extension = write(extension(), &kinds());
    for (name, made) in named_writes().chain([("extend".to_owned(), extension)]) {
        let bytes = made.bytes().to_vec();
        all.push(golden_write(&name, &made));
        let call = SubmitCall { partition: Partition(3), write: ByteBuf::from(bytes) };
        all.push(document(&format!("submit.{name}"), &call));
    }
    let answers = [
        ("created", SubmitAnswer::Created),
        ("removed", SubmitAnswer::Removed),
        ("accepted", SubmitAnswer::Accepted { applied: 300 }),
        ("refused", SubmitAnswer::Refused { from: 300, applied: 7 }),
        ("invalid", SubmitAnswer::Invalid { reason: "a segment's boundary".to_owned() }),
        ("adopted", SubmitAnswer::Adopted),
        ("stale", SubmitAnswer::Stale),
        ("rebuilt", SubmitAnswer::Rebuilt),
        ("not-held", SubmitAnswer::NotHeld),
        ("not-live", SubmitAnswer::NotLive),
        ("not-primary", SubmitAnswer::NotPrimary),
        ("busy", SubmitAnswer::Busy),
        ("unknown", SubmitAnswer::Unknown),
    ];
    all.extend(answers.map(|(name, answer)| document(&format!("submit.answer.{name}"), &answer)));
    all
}

fn reads() -> Vec<Golden> {
    let keys = vec![[1, 2].as_slice().into(), [255].as_slice().into()];
    let segment = SegmentId { partition: LogPartition(7), index: 300 };
    let questions = [
        ("keys", Question::Read(ReadRequest::Keys { keys, from: -1, to: 300 })),
        ("scan", Question::Read(ReadRequest::Scan { from: i64::MIN, to: i64::MAX })),
        ("progress", Question::Read(ReadRequest::Progress)),
        ("segment", Question::Segment(segment)),
    ];
    let mut all: Vec<Golden> = questions
        .into_iter()
        .map(|(name, question)| document(&format!("read.{name}"), &ReadCall::of(id(8), &question)))
        .collect();
    let progress = Progress {
        version: 2,
        cut: Cut::new(vec![4, 8]),
        applied: vec![10, 300],
        watermark_us: Some(-3),
        base_groups: 1,
        speed_groups: 2,
        late_groups: 3,
    };
    let held = groups("a meter", 7);
    let states = held.iter().map(|(group, state)| (group.clone(), state.clone())).collect();
    let answers = [
        ("reply", Reply::Read(ReadReply { groups: states, progress }, true)),
        ("segment", Reply::Segment(Some(held))),
        ("no-segment", Reply::Segment(None)),
        ("not-live", Reply::NotLive),
        ("not-in-sync", Reply::NotInSync),
    ];
    all.extend(answers.map(|(name, reply)| {
        let bytes = encode(&ReadAnswer::of(&kinds(), reply));
        let read = |bytes: &[u8]| decode::<ReadAnswer>(bytes)?.reply();
        golden(format!("read.answer.{name}"), bytes, read, |reply| encode(&ReadAnswer::of(&kinds(), reply)))
    }));
    all
}

/// A state in pieces, and as one.
fn pieces() -> Vec<Golden> {
    let at = Position { life: 1, epoch: Epoch(2), seq: 10 };
    let of = Transfer { partition: Partition(3), epoch: Epoch(2), from_since: 4, to_since: 5, number: 300 };
    let mut state = Hosted::default();
    named_writes().for_each(|(_, write)| _ = state.apply(&write));
    let mut all = Vec::new();
    let unstaged = state.clone();
    parts().into_iter().for_each(|made| _ = state.apply(&write(made, &kinds())));
    for (name, state, piece_bytes) in
        [("whole", &unstaged, usize::MAX), ("small", &unstaged, 1), ("staged", &state, usize::MAX)]
    {
        let mut count = 0;
        let cut = transfer::cut(of, at, state.clone(), piece_bytes, |made| {
            let read = |bytes: &[u8]| match heard(bytes)? {
                Heard::Piece(piece) => Ok(piece),
                Heard::Message(message) => panic!("{message:?}"),
            };
            all.push(golden(format!("piece.{name}.{count}"), piece(made), read, piece));
            count += 1;
            true
        });
        cut.expect("all is in memory");
    }
    all
}

/// A block in parts.
fn staging() -> Vec<Golden> {
    let names = ["stage", "stage-next", "with-staged", "stage-other"];
    let writes = parts().into_iter().map(|made| write(made, &kinds()));
    let mut all: Vec<Golden> =
        names.into_iter().zip(writes).map(|(name, made)| golden_write(name, &made)).collect();
    let answers = [("staged", SubmitAnswer::Staged), ("not-staged", SubmitAnswer::NotStaged)];
    all.extend(answers.map(|(name, answer)| document(&format!("submit.answer.{name}"), &answer)));
    all
}

#[test]
fn what_version_2_said_more_is_read_and_said_the_same() {
    let all: Vec<Golden> = pieces().into_iter().chain(staging()).collect();
    golden::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/2"), &all);
}

#[test]
fn what_version_1_said_is_read_and_said_the_same() {
    let messages = messages()
        .into_iter()
        .map(|(name, said)| golden(format!("message.{name}"), encoded(said), decoded_message, encoded));
    let mut all: Vec<Golden> = messages.collect();
    all.extend(submits());
    all.extend(reads());
    all.push(document("map.answer", &map()));
    let (voters, learners) = ([1, 2, 3].map(NodeId).into(), [NodeId(4)].into());
    let leader = Some(NodeId(2));
    let part = ControlPart { leader, term: 7, voters, learners, applied: Some(300), forgotten: false };
    all.push(document("control.answer", &part));
    golden::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/1"), &all);
}
