//! Whatever a state holds and however it is cut, it comes out as it was; what is no state gives nothing.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sanso_core::cluster::{Change, Incarnation};
use sanso_state::{
    AggregateFunction, Delta, Entry, Extension, Fingerprint, GroupId, LogPartition, MemoryRuns, Outcome,
    Value,
};

use super::*;
use crate::wire::Heard;

const SEGMENT: u64 = 4;
const AT: Position = Position { life: 1, epoch: Epoch(2), seq: 10 };
const OF: Transfer =
    Transfer { partition: Partition(3), epoch: Epoch(2), from_since: 4, to_since: 5, number: 6 };

fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

fn node(number: u16) -> Instance {
    Instance { node: NodeId(number), incarnation: Incarnation(7) }
}

/// Some groups: rows by key and window.
type Rows = BTreeMap<(u8, i64), i64>;

fn groups(rows: &Rows) -> Groups {
    let mut groups = Groups::new();
    for ((key, window_start), rows) in rows {
        let id = GroupId {
            key: Value::encode_key(&[Value::text(format!("meter {key}"))]),
            window_start: *window_start,
        };
        groups.update_one(&kinds(), &id, &[None], *rows);
    }
    groups
}

/// A view partition: what its version has in memory, what it has in runs, and what came since.
#[derive(Clone, Debug)]
struct Holds {
    base: Rows,
    runs: Vec<Rows>,
    since: Vec<(u32, Rows)>,
}

impl Holds {
    fn partition(&self, view: Fingerprint) -> ViewPartition {
        let config = ViewPartitionConfig { view, kinds: kinds(), segments: Segments::new(SEGMENT) };
        let mut version = 0;
        let mut block = |rows: &Rows| {
            version += 1;
            let (cut, watermarks_us) = (Cut::new(vec![SEGMENT, 0]), vec![Some(-3), None]);
            Block { view, version, cut, watermarks_us, groups: groups(rows) }
        };
        let mut partition = ViewPartition::new(config, Arc::new(Block::empty(view, 2)));
        for rows in self.runs.iter().chain([&self.base]) {
            let added = Arc::new(block(rows));
            if let Some(moved) = partition.to_spill(1) {
                let run = moved.write(&kinds(), &MemoryRuns).expect("it is in memory");
                assert!(partition.spilled(&moved, &run));
            }
            let of = partition.version();
            assert_eq!(partition.apply(Entry::Extend(Extension { of, added })), Outcome::Adopted);
        }
        for (log, rows) in &self.since {
            let log = LogPartition(*log);
            let from = partition.applied()[log.index()];
            let groups = groups(rows);
            let delta = Delta {
                view,
                partition: log,
                from,
                to: from + 1,
                groups,
                watermark_us: Some(9),
                idle: false,
            };
            assert_eq!(partition.apply(Entry::Delta(delta)), Outcome::Accepted { applied: from + 1 });
        }
        partition
    }
}

fn rows() -> impl Strategy<Value = Rows> {
    btree_map((0_u8..12, -1_i64..2), prop_oneof![-2_i64..0, 1_i64..9], 0..16)
}

fn states() -> impl Strategy<Value = Hosted> {
    let holds = (rows(), vec(rows(), 0..3), vec((0_u32..2, rows()), 0..8));
    let holds = holds.prop_map(|(base, runs, since)| Holds { base, runs, since });
    let staged = btree_map((0_u8..2, 0_u32..3), (1_u32..4, rows()), 0..3);
    (btree_map((0_u8..2, 0_u32..3), holds, 0..4), staged).prop_map(|(all, staged)| {
        let made = all.iter().map(|((view, index), holds)| {
            let view = Fingerprint::of(&[*view]);
            (PartitionId { view, index: *index }, holds.partition(view))
        });
        let mut made: Vec<_> = made.collect();
        made.sort_by_key(|(id, _)| *id);
        let staged = staged.into_iter().map(|((view, index), (parts, rows))| {
            let of = Staging { writer: node(1), number: u64::from(index) };
            let staged = Staged { of, parts, kinds: kinds(), groups: Arc::new(groups(&rows)) };
            (PartitionId { view: Fingerprint::of(&[view]), index }, staged)
        });
        let mut staged: Vec<_> = staged.collect();
        staged.sort_by_key(|(id, _)| *id);
        Hosted::with_staged(made, staged)
    })
}

type Held = (Vec<(PartitionId, Snapshot)>, Vec<(PartitionId, Staged)>);

fn held(state: &Hosted) -> Held {
    let all = state.partitions().into_iter();
    let held = all.map(|(id, partition)| (id, partition.snapshot().expect("all is in memory")));
    (held.collect(), state.staged())
}

/// Cuts a state, and gives its pieces as they travel.
fn sent(state: &Hosted, piece_bytes: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let all = cut(OF, AT, state.clone(), piece_bytes, |piece| {
        pieces.push(wire::piece(piece));
        true
    });
    all.expect("all is in memory");
    pieces
}

fn arrives(transfers: &mut Transfers, piece: &[u8]) -> Result<Option<Hosted>, TransferError> {
    let Ok(Heard::Piece(piece)) = wire::heard(piece) else { panic!("it is a piece") };
    Ok(transfers.take(node(1), piece)?.map(|message| match message {
        Message::Replication { partition, epoch, from_since, to_since, message } => {
            assert_eq!((partition, epoch, from_since, to_since), (OF.partition, OF.epoch, 4, 5));
            let Replication::Snapshot { at, state } = message else { panic!("{message:?}") };
            assert_eq!(at, AT);
            state
        }
        other => panic!("{other:?}"),
    }))
}

/// Something that goes wrong with one of the pieces, but the first.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Lost,
    Twice,
    Late,
    OfAnother,
}

proptest! {
    #[test]
    fn a_state_comes_out_as_it_was_however_it_is_cut(state in states(), piece_bytes in 0_usize..600) {
        let mut transfers = Transfers::default();
        let pieces = sent(&state, piece_bytes);
        let (last, others) = pieces.split_last().expect("there is one at least");
        for piece in others {
            prop_assert!(arrives(&mut transfers, piece).expect("it is the next").is_none());
        }
        let whole = arrives(&mut transfers, last).expect("it is the next").expect("it is the last");
        prop_assert_eq!(held(&whole), held(&state));
        prop_assert!(transfers.0.is_empty());
    }

    #[test]
    fn a_state_that_lacks_a_piece_or_has_one_out_of_turn_is_none(
        state in states(),
        wrong in prop_oneof![Just(Wrong::Lost), Just(Wrong::Twice), Just(Wrong::Late), Just(Wrong::OfAnother)],
        which in any::<prop::sample::Index>(),
    ) {
        let mut pieces = sent(&state, 40);
        prop_assume!(pieces.len() > 2);
        let at = 1 + which.index(pieces.len() - 2);
        match wrong {
            Wrong::Lost => _ = pieces.remove(at),
            Wrong::Twice => pieces.insert(at, pieces[at].clone()),
            Wrong::Late => pieces.swap(at, at + 1),
            Wrong::OfAnother => {
                let Ok(Heard::Piece(piece)) = wire::heard(&pieces[at]) else { panic!("it is a piece") };
                let of = Transfer { number: OF.number + 1, ..OF };
                pieces[at] = wire::piece(Piece { of, ..piece });
            }
        }
        let mut transfers = Transfers::default();
        let taken: Vec<_> = pieces.iter().map(|piece| arrives(&mut transfers, piece)).collect();
        prop_assert!(!taken.iter().any(|taken| matches!(taken, Ok(Some(_)))));
        prop_assert!(taken.iter().any(Result::is_err));
        prop_assert!(transfers.0.is_empty(), "what is wrong is dropped with all before it");
    }

    #[test]
    fn hostile_bytes_are_no_panic(state in states(), at in any::<prop::sample::Index>(), turned in 1_u8..) {
        let mut pieces = sent(&state, 300);
        let all: usize = pieces.iter().map(Vec::len).sum();
        let mut at = at.index(all);
        for piece in &mut pieces {
            match piece.get_mut(at) {
                Some(byte) => {
                    *byte ^= turned;
                    break;
                }
                None => at -= piece.len(),
            }
        }
        let mut transfers = Transfers::default();
        for piece in &pieces {
            if let Ok(Heard::Piece(piece)) = wire::heard(piece) {
                let _ = transfers.take(node(1), piece);
            }
        }
    }
}

/// Two view partitions, each with a base and two segments: 0 to 3, 4 to 7; what is staged for both, 8 and 9, 10 and 11; and the end.
fn parts() -> Vec<Part> {
    let rows = |key: u8| Rows::from([((key, 0), 1), ((key + 1, 0), 1)]);
    let holds = Holds { base: rows(1), runs: Vec::new(), since: vec![(0, rows(1)), (1, rows(2))] };
    let view = Fingerprint::of(b"a view");
    let made = [0, 1].map(|index| (PartitionId { view, index }, holds.partition(view)));
    let staged = [0, 1].map(|index| {
        let of = Staging { writer: node(1), number: 1 };
        let staged = Staged { of, parts: 1, kinds: kinds(), groups: Arc::new(groups(&rows(1))) };
        (PartitionId { view, index }, staged)
    });
    let pieces = sent(&Hosted::with_staged(made.into(), staged.into()), usize::MAX);
    assert_eq!(pieces.len(), 1);
    let Ok(Heard::Piece(piece)) = wire::heard(&pieces[0]) else { panic!("it is a piece") };
    piece.parts
}

#[test]
fn a_segment_that_came_to_nothing_is_held_all_the_same() {
    let holds = Holds { base: Rows::new(), runs: Vec::new(), since: vec![(0, Rows::new())] };
    let view = Fingerprint::of(b"a view");
    let state = Hosted::of(vec![(PartitionId { view, index: 0 }, holds.partition(view))]);
    let [piece] = &sent(&state, usize::MAX)[..] else { panic!("it is one piece") };
    let whole = arrives(&mut Transfers::default(), piece).expect("it is whole").expect("it is the last");
    assert_eq!(held(&whole), held(&state));
    assert_eq!(held(&whole).0[0].1.segments.len(), 1);
}

#[test]
fn what_is_not_in_its_place_is_refused_with_the_reason() {
    let refused = |change: fn(&mut Vec<Part>)| {
        let mut parts = parts();
        assert_eq!(parts.len(), 13);
        change(&mut parts);
        let piece = Piece { of: OF, number: 0, parts };
        let mut transfers = Transfers::default();
        let taken = transfers.take(node(1), piece);
        assert!(transfers.0.is_empty());
        match taken {
            Ok(message) => panic!("{message:?}"),
            Err(TransferError(reason)) => reason,
        }
    };
    assert_eq!(refused(|parts| _ = parts.remove(0)), "groups come before their view partition");
    assert_eq!(refused(|parts| parts.swap(1, 2)), "groups of a base come after segments");
    assert_eq!(refused(|parts| parts.swap(2, 3)), "segments are not in order");
    assert_eq!(refused(|parts| parts.rotate_left(4)), "something comes after its end");
    assert_eq!(refused(|parts| parts[..8].rotate_left(4)), "view partitions are not in order");
    assert_eq!(refused(|parts| parts[4..10].rotate_left(4)), "a view partition comes after what is staged");
    assert_eq!(refused(|parts| parts[8..12].rotate_left(2)), "what is staged is not in order");
    assert_eq!(refused(|parts| _ = parts.remove(8)), "groups come before what they are staged for");
}

#[test]
fn a_group_that_comes_twice_and_one_that_is_none_are_refused() {
    let twice = |at: usize| {
        let (mut all, again) = (parts(), parts().swap_remove(at));
        all.insert(at, again);
        Transfers::default()
            .take(node(1), Piece { of: OF, number: 0, parts: all })
            .map(|message| message.is_some())
    };
    assert_eq!(twice(1), Err(TransferError("a group comes twice")));
    assert_eq!(twice(2), Err(TransferError("a group comes twice")));
    assert_eq!(twice(9), Err(TransferError("a group comes twice")));
    let mut all = parts();
    let Part::Base { groups } = &mut all[1] else { panic!("it is a base") };
    groups.pop();
    let cut = Transfers::default().take(node(1), Piece { of: OF, number: 0, parts: all });
    assert_eq!(cut.map(|_| ()), Err(TransferError("groups can't be decoded")));
}

#[test]
fn a_new_transfer_takes_the_place_of_the_one_before_and_what_nobody_wants_is_dropped() {
    let mut transfers = Transfers::default();
    let begins = |number, partition| {
        let of = Transfer { number, partition: Partition(partition), ..OF };
        let mut parts = parts();
        parts.truncate(2);
        Piece { of, number: 0, parts }
    };
    for (number, partition) in [(1, 0), (2, 1), (3, 0)] {
        let taken = transfers.take(node(1), begins(number, partition));
        assert!(taken.is_ok_and(|message| message.is_none()));
    }
    let numbers = |transfers: &Transfers| transfers.0.values().map(|held| held.of.number).collect::<Vec<_>>();
    assert_eq!(numbers(&transfers), [3, 2]);
    transfers.retain(|_, of| of.number != 2);
    assert_eq!(numbers(&transfers), [3]);
    transfers.retain(|from, _| from != NodeId(1));
    assert!(transfers.0.is_empty());
}

#[test]
fn a_state_is_wanted_from_the_primary_of_its_epoch_by_those_who_hold_the_partition() {
    let mut map = ClusterMap::new(1, 2);
    for number in [1, 2] {
        map.apply(&Change::Join(node(number))).expect("it is new");
    }
    let assignment = map.assignment(Partition(0)).clone();
    let from = assignment.primary.expect("both are there");
    let to = assignment.holders().find(|holder| *holder != from).expect("it has two");
    let of = Transfer {
        partition: Partition(0),
        epoch: assignment.epoch,
        from_since: from.since,
        to_since: to.since,
        number: 1,
    };
    let wanted = |of: Transfer, from: u16, to: u16| of.is_wanted(&map, NodeId(from), NodeId(to));
    let (one, other) = (from.instance.node.0, to.instance.node.0);
    assert!(wanted(of, one, other));
    assert!(!wanted(of, other, one) && !wanted(of, 3, other) && !wanted(of, one, 3));
    assert!(!wanted(Transfer { epoch: Epoch(of.epoch.0 + 1), ..of }, one, other));
    assert!(!wanted(Transfer { from_since: of.from_since + 9, ..of }, one, other));
    assert!(!wanted(Transfer { to_since: of.to_since + 9, ..of }, one, other));
    assert!(!wanted(Transfer { partition: Partition(1), ..of }, one, other));
}

#[test]
fn who_wants_no_more_is_given_no_more_and_what_cant_be_read_is_an_error() {
    #[derive(Debug)]
    struct Broken;
    impl SortedRun for Broken {
        fn groups(&self) -> u64 {
            1
        }
        fn read<'a>(&'a self, _: sanso_state::Part<'a>) -> RunGroups<'a> {
            Box::new(std::iter::once(Err(RunError("the disk is gone".to_owned()))))
        }
    }
    let rows: Rows = (0..20).map(|key| ((key, 0), 1)).collect();
    let holds = Holds { base: rows, runs: Vec::new(), since: Vec::new() };
    let view = Fingerprint::of(b"a view");
    let mut partition = holds.partition(view);
    let state =
        |partition: &ViewPartition| Hosted::of(vec![(PartitionId { view, index: 0 }, partition.clone())]);
    let mut given = 0;
    let stopped = cut(OF, AT, state(&partition), 50, |_| {
        given += 1;
        given < 3
    });
    assert!(matches!(stopped, Err(CutError::Unwanted)), "{stopped:?}");
    assert_eq!(given, 3);
    let moved = partition.to_spill(1).expect("there are some");
    let run: Arc<dyn SortedRun> = Arc::new(Broken);
    assert!(partition.spilled(&moved, &run));
    let broken = cut(OF, AT, state(&partition), 50, |_| true);
    assert!(matches!(broken, Err(CutError::Unreadable(_))), "{broken:?}");
}
