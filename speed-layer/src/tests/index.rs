//! One suite for every index of newest versions.

use bytes::Bytes;
use sanso_catalog::RecordCounts;

use crate::newest::{Accepted, Commit, MemoryIndex, NewestIndex, Version};
use crate::rocks::{RocksIndex, RocksShare};

fn version(offset: u64) -> Version {
    let byte = offset as u8;
    Version { offset, version: offset as i64 * 10, content: [byte; 32], row: vec![byte; 3].into() }
}

fn accepted(identity: &[u8], offset: u64, superseded: Option<u64>) -> Accepted {
    Accepted {
        identity: Bytes::copy_from_slice(identity),
        version: version(offset),
        superseded: superseded.map(version),
    }
}

fn commit(from: u64, to: u64, accepted: Vec<Accepted>) -> Commit {
    let counts = RecordCounts { records: to, ..RecordCounts::default() };
    let max_event_us = Some(to as i64 * 100);
    Commit { from, to, accepted, counts, max_event_us, checkpoint: to.is_multiple_of(4) }
}

fn offset_as_of(index: &impl NewestIndex, identity: &[u8], offset: u64) -> Option<u64> {
    let answers = index.as_of(&[(identity, offset)]).expect("the index answers");
    let answer = answers.into_iter().next().expect("one answer for each question")?;
    assert_eq!(answer, version(answer.offset), "the version is as it was put");
    Some(answer.offset)
}

fn contract(index: &mut impl NewestIndex) {
    assert_eq!((index.floor(), index.position(), index.max_event_us()), (0, 0, None));
    // One identity is a prefix of another, and one holds bytes that look like an offset.
    let (a, ab, long) = (b"a".as_slice(), b"ab".as_slice(), b"a\xff\xff\xff\xff\xff\xff\xff\xff".as_slice());
    let first = vec![accepted(a, 0, None), accepted(ab, 1, None), accepted(a, 2, Some(0))];
    index.commit(commit(0, 4, first)).expect("commit");
    let second = vec![accepted(a, 5, Some(2)), accepted(long, 6, None), accepted(ab, 9, Some(1))];
    index.commit(commit(4, 10, second)).expect("commit");
    assert_eq!((index.position(), index.counts().records, index.max_event_us()), (10, 10, Some(1000)));
    let as_of_a: Vec<_> = (0..8).map(|offset| offset_as_of(index, a, offset)).collect();
    assert_eq!(as_of_a, [None, Some(0), Some(0), Some(2), Some(2), Some(2), Some(5), Some(5)]);
    assert_eq!(offset_as_of(index, ab, 9), Some(1));
    assert_eq!(offset_as_of(index, ab, 10), Some(9));
    assert_eq!(offset_as_of(index, long, 6), None);
    assert_eq!(offset_as_of(index, b"b", 10), None);
    let many = index.as_of(&[(ab, 10), (b"none", 10), (a, 3)]).expect("the index answers");
    let offsets: Vec<_> = many.into_iter().map(|version| version.map(|v| v.offset)).collect();
    assert_eq!(offsets, [Some(9), None, Some(2)]);
    assert_eq!(index.checkpoint(3).expect("checkpoint"), None);
    assert_eq!(index.checkpoint(4).expect("checkpoint"), Some(400));
    assert_eq!(index.checkpoint(10).expect("checkpoint"), Some(400));

    index.collapse(11).expect("a floor above the position changes nothing");
    assert_eq!(index.floor(), 0);
    index.collapse(4).expect("collapse");
    assert_eq!(index.floor(), 4);
    let as_of_a: Vec<_> = (4..8).map(|offset| offset_as_of(index, a, offset)).collect();
    assert_eq!(as_of_a, [Some(2), Some(2), Some(5), Some(5)], "answers at or above the floor stay");
    assert_eq!(offset_as_of(index, ab, 5), Some(1));
    assert_eq!(index.checkpoint(9).expect("checkpoint"), Some(400));
    assert_eq!((index.position(), index.counts().records), (10, 10));
}

#[test]
fn an_index_in_memory_keeps_the_contract() {
    contract(&mut MemoryIndex::new());
}

#[test]
fn an_index_on_disk_keeps_the_contract_and_what_it_was_given() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("index");
    let share = RocksShare::new(1 << 20, 1 << 20);
    let build = RocksIndex::build(&path, &share).expect("build");
    let mut index = build.finish("source 1", 0, None).expect("finish");
    contract(&mut index);
    drop(index);
    let index = RocksIndex::open(&path, "source 1", &share).expect("open").expect("it is whole");
    assert_eq!((index.floor(), index.position(), index.counts().records), (4, 10, 10));
    assert_eq!(offset_as_of(&index, b"ab", 10), Some(9));
    drop(index);
    assert!(RocksIndex::open(&path, "source 2", &share).expect("open").is_none(), "another declaration");
}

#[test]
fn an_index_half_built_is_not_opened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let share = RocksShare::new(1 << 20, 1 << 20);
    let mut build = RocksIndex::build(folder.path(), &share).expect("build");
    build.add([(b"a".as_slice().into(), version(1))]).expect("add");
    drop(build);
    assert!(RocksIndex::open(folder.path(), "s", &share).expect("open").is_none());
    let mut build = RocksIndex::build(folder.path(), &share).expect("build again");
    build.add([(b"b".as_slice().into(), version(2))]).expect("add");
    let index = build.finish("s", 8, Some(7)).expect("finish");
    assert_eq!((index.floor(), index.position(), index.max_event_us()), (8, 8, Some(7)));
    assert_eq!((offset_as_of(&index, b"a", 8), offset_as_of(&index, b"b", 8)), (None, Some(2)));
}

/// Copies the files that an index has at this moment: what a killed process leaves.
fn killed(path: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(path).expect("list") {
        let entry = entry.expect("an entry");
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copy");
        }
    }
    copy
}

#[test]
fn an_index_that_was_killed_is_an_earlier_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let share = RocksShare::new(1 << 20, 1 << 20);
    let build = RocksIndex::build(folder.path(), &share).expect("build");
    let mut index = build.finish("s", 0, None).expect("finish");
    index.commit(commit(0, 4, vec![accepted(b"a", 0, None)])).expect("commit");
    drop(index);
    // Closing brought that to files; `a` is newest at 0 there.
    let mut index = RocksIndex::open(folder.path(), "s", &share).expect("open").expect("it is whole");
    let before = index.newest_tables();
    let large = |offset: u64| {
        let version = Version { row: vec![7; 1 << 20].into(), ..version(offset) };
        Accepted { identity: format!("large {offset}").into_bytes().into(), version, superseded: None }
    };
    let first = std::iter::once(accepted(b"a", 5, Some(0))).chain((6..26).map(large));
    index.commit(commit(4, 26, first.collect())).expect("commit");
    index.commit(commit(26, 27, Vec::new())).expect("commit");
    // The newest versions alone are more than a write buffer, and reach a file by themselves.
    while index.newest_tables() == before {
        std::thread::yield_now();
    }
    let left = killed(folder.path());
    let index = RocksIndex::open(left.path(), "s", &share).expect("open").expect("it is whole");
    assert!(index.position() >= 4, "what was closed stays");
    assert_eq!(offset_as_of(&index, b"a", 4), Some(0), "position {}", index.position());
    let newest = if index.position() >= 26 { Some(5) } else { Some(0) };
    assert_eq!(offset_as_of(&index, b"a", 26), newest, "position {}", index.position());
}

#[test]
fn an_index_without_one_of_its_families_is_damaged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let share = RocksShare::new(1 << 20, 1 << 20);
    let build = RocksIndex::build(folder.path(), &share).expect("build");
    let mut index = build.finish("s", 0, None).expect("finish");
    index.commit(commit(0, 4, vec![accepted(b"a", 0, None)])).expect("commit");
    drop(index);
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, folder.path()).expect("list");
    let mut db = rocksdb::DB::open_cf(&options, folder.path(), families).expect("open");
    db.drop_cf("newest").expect("drop");
    drop(db);
    let error = RocksIndex::open(folder.path(), "s", &share).expect_err("a family is missing");
    assert_eq!(error.remedy(), crate::Remedy::Rebuild, "{error:?}");
}
