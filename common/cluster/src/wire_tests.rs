//! What is written is read back, by this version and by those next to it.

use std::collections::BTreeMap;

use sanso_core::Staged;
use sanso_core::cluster::{Incarnation, Instance, NodeId, State};
use sanso_state::{AggregateFunction, Value};

use super::*;

pub(super) fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

fn config() -> ViewPartitionConfig {
    let view = Fingerprint::of(b"a view");
    ViewPartitionConfig { view, kinds: kinds(), segments: Segments::new(4) }
}

pub(super) fn id(index: u32) -> PartitionId {
    PartitionId { view: config().view, index }
}

pub(super) fn groups(key: &str, rows: i64) -> Groups {
    let mut groups = Groups::new();
    let group = GroupId { key: Value::encode_key(&[Value::text(key)]), window_start: 7 };
    groups.update_one(&kinds(), &group, &[None], rows);
    groups
}

fn delta(from: Offset, to: Offset) -> Delta {
    let groups = if to > from { groups("a meter", (to - from) as i64) } else { Groups::new() };
    let partition = LogPartition(0);
    Delta { view: config().view, partition, from, to, groups, watermark_us: Some(-3), idle: to == from }
}

/// Every kind of write, each with an effect.
pub(super) fn writes() -> Vec<Write> {
    let view = config().view;
    let base = Arc::new(Block::empty(view, 1));
    let block = Block {
        view,
        version: 1,
        cut: Cut::new(vec![4]),
        watermarks_us: vec![Some(9)],
        groups: groups("a meter", 4),
    };
    let segment = SegmentId { partition: LogPartition(0), index: 1 };
    vec![
        Write::Create { id: id(0), config: config(), base: Arc::clone(&base) },
        Write::Create { id: id(8), config: config(), base },
        Write::Enter(id(0), Entry::Delta(delta(0, 4))),
        Write::Enter(id(0), Entry::Delta(delta(4, 8))),
        Write::Enter(id(0), Entry::Delta(delta(8, 8))),
        Write::Enter(id(0), Entry::Delta(delta(8, 10))),
        Write::Enter(id(0), Entry::Rebuild(segment, groups("another", 4))),
        Write::Enter(id(0), Entry::Adopt(Arc::new(block))),
        Write::Enter(id(1), Entry::Delta(delta(0, 1))),
        Write::Remove(Fingerprint::of(b"another view")),
    ]
}

/// A batch version told by what it adds; to be taken after [`writes`].
pub(super) fn extension() -> Write {
    let added = Block {
        view: config().view,
        version: 2,
        cut: Cut::new(vec![8]),
        watermarks_us: vec![None],
        groups: groups("another", 4),
    };
    Write::Enter(id(0), Entry::Extend(Extension { of: 1, added: Arc::new(added) }))
}

/// A batch version that is written in two parts, and another one of which there is one; to be taken after [`extension`].
pub(super) fn parts() -> Vec<Write> {
    let writer = Instance { node: NodeId(1), incarnation: Incarnation(1_700_000_000_000_001) };
    let (of, other) = (Staging { writer, number: 300 }, Staging { writer, number: 301 });
    let part = |of, number, key| BlockPart { of, number, kinds: kinds(), groups: groups(key, 4) };
    let added = Block {
        view: config().view,
        version: 3,
        cut: Cut::new(vec![8]),
        watermarks_us: vec![None],
        groups: Groups::new(),
    };
    let rest = Write::Enter(id(0), Entry::Extend(Extension { of: 2, added: Arc::new(added) }));
    vec![
        Write::Stage(id(0), part(of, 0, "a meter")),
        Write::Stage(id(0), part(of, 1, "a third")),
        Write::WithStaged { of, parts: 2, write: Box::new(rest) },
        Write::Stage(id(5), part(other, 0, "a meter")),
    ]
}

/// Decodes what is no piece.
pub(super) fn decoded_message(bytes: &[u8]) -> Result<Message<Hosted>, WireError> {
    match heard(bytes)? {
        Heard::Message(message) => Ok(message),
        Heard::Piece(piece) => panic!("{piece:?}"),
    }
}

type Held = (Vec<(PartitionId, Snapshot)>, Vec<(PartitionId, Staged)>);

fn held(state: &Hosted) -> Held {
    let all = state.partitions().into_iter();
    let held = all.map(|(id, partition)| (id, partition.snapshot().expect("all is in memory")));
    (held.collect(), state.staged())
}

#[test]
fn a_write_does_the_same_wherever_it_was_decoded() {
    let (mut here, mut there) = (Hosted::default(), Hosted::default());
    let mut outcomes = Vec::new();
    for made in writes().into_iter().chain([extension()]).chain(parts()) {
        let made = write(made, &kinds());
        let arrived = encoded(Arc::clone(made.bytes())).expect("just encoded");
        let outcome = here.apply(&made);
        assert_eq!(there.apply(&arrived), outcome);
        // What was decoded is used up; the bytes are not.
        assert_eq!(there.clone().apply(&arrived), here.clone().apply(&made));
        assert_eq!(held(&there), held(&here));
        outcomes.push(outcome);
    }
    assert_eq!(
        outcomes[6..],
        [
            Written::Entered(Outcome::Rebuilt),
            Written::Entered(Outcome::Adopted),
            Written::NotLive,
            Written::Removed,
            Written::Entered(Outcome::Adopted),
            Written::Staged,
            Written::Staged,
            Written::Entered(Outcome::Adopted),
            Written::Staged,
        ]
    );
}

#[test]
fn a_snapshot_arrives_as_it_was() {
    let mut state = Hosted::default();
    writes().into_iter().for_each(|made| _ = state.apply(&write(made, &kinds())));
    let before = held(&state);
    assert_eq!(before.0.len(), 2);
    let at = Position { life: 1, epoch: Epoch(2), seq: 10 };
    let sent = Message::Replication {
        partition: Partition(3),
        epoch: Epoch(2),
        from_since: 4,
        to_since: 5,
        message: Replication::Snapshot { at, state },
    };
    let arrived = decoded_message(&message(sent).expect("all is in memory")).expect("just encoded");
    let Message::Replication { partition, epoch, from_since, to_since, message } = arrived else {
        panic!("a replica speaks")
    };
    assert_eq!((partition, epoch, from_since, to_since), (Partition(3), Epoch(2), 4, 5));
    let Replication::Snapshot { at: there, state } = message else { panic!("a snapshot") };
    assert_eq!((there, held(&state)), (at, before));
}

#[test]
fn fields_that_a_later_version_adds_are_passed_over_and_its_kinds_are_refused() {
    let later: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::from([(
        "Heartbeat",
        BTreeMap::from([("sent_us", 1), ("echo_us", 2), ("map_version", 3), ("load", 4)]),
    )]);
    let Ok(Message::Heartbeat(heartbeat)) = decoded_message(&encode(&later)) else { panic!("a heartbeat") };
    assert_eq!(heartbeat, Heartbeat { sent_us: 1, echo_us: 2, map_version: 3 });
    let unknown: BTreeMap<&str, u64> = BTreeMap::from([("Rumour", 1)]);
    decoded_message(&encode(&unknown)).expect_err("of a later version");
}

#[test]
fn hostile_bytes_are_errors() {
    for good in [writes().swap_remove(2), parts().swap_remove(0), parts().swap_remove(2)] {
        let good = write(good, &kinds());
        for cut in 0..good.bytes().len() {
            encoded(good.bytes()[..cut].into()).expect_err("it was cut");
            let mut turned = good.bytes().to_vec();
            turned[cut] ^= 0x55;
            // Either an error or another write; never a panic.
            let _ = encoded(turned.into());
        }
    }
}

#[test]
fn what_is_written_with_staged_groups_is_a_block() {
    let Write::WithStaged { of, parts, .. } = parts().swap_remove(2) else { panic!("it is the last part") };
    let refused = |inner: Write| {
        let made = write(Write::WithStaged { of, parts, write: Box::new(inner) }, &kinds());
        encoded(Arc::clone(made.bytes())).expect_err("it brings no block").0
    };
    assert_eq!(refused(writes().swap_remove(2)), "a write without a block");
    assert_eq!(refused(writes().swap_remove(6)), "a write without a block");
    let nested = Write::WithStaged { of, parts, write: Box::new(extension()) };
    assert_eq!(refused(nested), "a write within a write within a write");
}
