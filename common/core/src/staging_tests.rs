//! A block in parts does what it does as a whole, whatever comes between them; what is not all there does nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use sanso_state::{
    AggregateFunction, Block, Cut, Delta, Entry, Extension, GroupId, LogPartition, Outcome, Segments,
    Snapshot, Value, ViewPartitionConfig,
};

use super::*;
use crate::cluster::{Incarnation, NodeId, State};
use crate::hosted::{Encoded, Hosted, Write, Written};

const SEGMENT: u64 = 1_000;

fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

fn view() -> Fingerprint {
    Fingerprint::of(b"a view")
}

fn id(index: u32) -> PartitionId {
    PartitionId { view: view(), index }
}

fn staging(number: u64) -> Staging {
    Staging { writer: Instance { node: NodeId(1), incarnation: Incarnation(7) }, number }
}

/// Groups of so many keys, two windows each.
fn groups(keys: u32) -> Groups {
    let mut groups = Groups::new();
    for key in 0..keys {
        for window_start in [0, 7] {
            let id = GroupId { key: Value::encode_key(&[Value::text(format!("meter {key}"))]), window_start };
            groups.update_one(&kinds(), &id, &[None], i64::from(key) + 1);
        }
    }
    groups
}

fn block(version: u64, keys: u32) -> Arc<Block> {
    let (cut, watermarks_us) = (Cut::new(vec![SEGMENT]), vec![Some(9)]);
    Arc::new(Block { view: view(), version, cut, watermarks_us, groups: groups(keys) })
}

fn create(index: u32, base: Arc<Block>) -> Write {
    let config = ViewPartitionConfig { view: view(), kinds: kinds(), segments: Segments::new(SEGMENT) };
    Write::Create { id: id(index), config, base }
}

fn delta(at: u64) -> Write {
    let (view, partition) = (view(), LogPartition(0));
    let delta =
        Delta { view, partition, from: at, to: at + 1, groups: groups(3), watermark_us: None, idle: false };
    Write::Enter(id(0), Entry::Delta(delta))
}

fn stage(of: Staging, number: u32, groups: Groups) -> Write {
    Write::Stage(id(0), BlockPart { of, number, kinds: kinds(), groups })
}

fn adopt(version: u64, keys: u32) -> Write {
    Write::Enter(id(0), Entry::Adopt(block(version, keys)))
}

fn does(hosted: &mut Hosted, write: Write) -> Written {
    hosted.apply(&Encoded::unsent(write))
}

/// A partition with an empty view partition.
fn begun() -> Hosted {
    let mut hosted = Hosted::default();
    does(&mut hosted, create(0, Arc::new(Block::empty(view(), 1))));
    hosted
}

fn held(hosted: &Hosted) -> Vec<(PartitionId, Snapshot)> {
    let all = hosted.partitions().into_iter();
    all.map(|(id, partition)| (id, partition.snapshot().expect("all is in memory"))).collect()
}

/// What happens between two parts.
#[derive(Clone, Copy, Debug)]
enum Between {
    Delta,
    /// The part is written again: its writer has not heard that it was taken.
    Again,
    /// Another replica goes on, which was sent the state.
    Moved,
    /// Another block is begun for another view partition.
    Elsewhere,
}

proptest! {
    #[test]
    fn a_block_in_parts_does_what_it_does_as_a_whole(
        keys in 0_u32..40,
        most in vec(1_usize..30, 1..8),
        between in vec(
            vec(prop_oneof![
                Just(Between::Delta), Just(Between::Again), Just(Between::Moved), Just(Between::Elsewhere)
            ], 0..3),
            0..20,
        ),
        what in 0..4,
    ) {
        let write = match what {
            0 => create(0, block(5, keys)),
            1 => create(1, block(5, keys)),
            2 => adopt(5, keys),
            _ => Write::Enter(id(0), Entry::Extend(Extension { of: 0, added: block(5, keys) })),
        };
        let (mut parted, mut whole) = (begun(), begun());
        let (target, block) = write.block().map(|(id, block)| (id, Arc::clone(block))).expect("a block");
        let (mut left, mut parts, mut deltas) = (block.groups.parts(), 0, 0);
        let mut sizes = most.iter().cycle();
        let mut between = between.iter();
        while let Some(groups) = left.take(*sizes.next().expect("some")) {
            let part = BlockPart { of: staging(1), number: parts, kinds: kinds(), groups };
            prop_assert_eq!(does(&mut parted, Write::Stage(target, part.clone())), Written::Staged);
            parts += 1;
            for happens in between.next().into_iter().flatten() {
                match happens {
                    Between::Delta => {
                        prop_assert_eq!(does(&mut parted, delta(deltas)), does(&mut whole, delta(deltas)));
                        deltas += 1;
                    }
                    Between::Again => {
                        prop_assert_eq!(does(&mut parted, Write::Stage(target, part.clone())), Written::Staged);
                    }
                    Between::Moved => parted = parted.clone(),
                    Between::Elsewhere => {
                        let part = BlockPart { of: staging(2), number: 0, ..part.clone() };
                        prop_assert_eq!(does(&mut parted, Write::Stage(id(7), part)), Written::Staged);
                    }
                }
                prop_assert_eq!(held(&parted), held(&whole), "nobody sees what is staged");
            }
        }
        let rest = Box::new(write.clone().with_groups(Groups::new()).expect("it brings a block"));
        let last = Write::WithStaged { of: staging(1), parts, write: rest };
        if parts > 0 {
            prop_assert_eq!(does(&mut parted, last.clone()), does(&mut whole, write));
            prop_assert_eq!(held(&parted), held(&whole));
        }
        prop_assert_eq!(does(&mut parted, last), Written::NotStaged);
        prop_assert_eq!(held(&parted), held(&whole));
        prop_assert!(parted.staged().iter().all(|(id, _)| *id != target));
    }
}

#[test]
fn what_is_not_all_there_does_nothing() {
    let mut hosted = begun();
    let (one, other) = (staging(1), staging(2));
    let last = |of, parts| {
        let rest = adopt(5, 0);
        Write::WithStaged { of, parts, write: Box::new(rest) }
    };
    assert_eq!(does(&mut hosted, stage(one, 1, groups(2))), Written::NotStaged, "nothing has begun");
    assert_eq!(does(&mut hosted, stage(one, 0, groups(2))), Written::Staged);
    assert_eq!(does(&mut hosted, stage(one, 2, groups(2))), Written::NotStaged, "one is missing");
    assert_eq!(does(&mut hosted, last(one, 2)), Written::NotStaged);
    assert_eq!(does(&mut hosted, last(other, 1)), Written::NotStaged);
    assert_eq!(does(&mut hosted, stage(other, 0, groups(3))), Written::Staged, "another begins");
    assert_eq!(does(&mut hosted, stage(one, 1, groups(2))), Written::NotStaged);
    assert_eq!(does(&mut hosted, last(one, 1)), Written::NotStaged);
    assert_eq!(hosted.readable().groups(), 6);
    assert_eq!(does(&mut hosted, last(other, 1)), Written::Entered(Outcome::Adopted));
    assert_eq!(held(&hosted)[0].1.base, block(5, 3));
}

#[test]
fn what_nobody_comes_back_for_is_forgotten() {
    let mut hosted = begun();
    let begin = |hosted: &mut Hosted| {
        assert_eq!(does(hosted, stage(staging(1), 0, groups(2))), Written::Staged);
        assert_eq!(hosted.staged().len(), 1);
    };
    begin(&mut hosted);
    assert_eq!(does(&mut hosted, adopt(4, 1)), Written::Entered(Outcome::Adopted));
    assert_eq!((hosted.staged(), hosted.readable().groups()), (Vec::new(), 2));
    begin(&mut hosted);
    assert_eq!(does(&mut hosted, adopt(4, 1)), Written::Entered(Outcome::Stale));
    assert_eq!(hosted.staged().len(), 1, "it may be for a newer version");
    does(&mut hosted, Write::Remove(view()));
    assert_eq!((hosted.staged(), hosted.readable().groups()), (Vec::new(), 0));
}
