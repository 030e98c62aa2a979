//! Runs on real disks: read back as they were written, gone with who held them, within bounds, and damage told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sanso_runs::{DiskRuns, RunsConfig, RunsUsage};
use sanso_state::{
    AggregateFunction, AggregateKind, GroupId, GroupState, Part, RunGroups, RunStore, SortedRun, Value,
    ValueType,
};

fn kinds() -> Arc<[AggregateKind]> {
    let kind = |function| AggregateKind::typed(function, Some(ValueType::Int)).expect("defined over numbers");
    [AggregateFunction::Sum, AggregateFunction::Max].map(kind).into()
}

fn state(value: i64) -> GroupState {
    let mut state = GroupState::zero(&kinds());
    state.update(&[Some(Value::Int(value)), Some(Value::Int(value))], 1);
    state
}

type Listed = Vec<(GroupId, GroupState)>;

fn groups(count: i64) -> Listed {
    let id = |at: i64| GroupId { key: Value::encode_key(&[Value::Int(at / 10)]), window_start: at % 10 };
    (0..count).map(|at| (id(at), state(at))).collect()
}

fn iterate(groups: &Listed) -> RunGroups<'_> {
    Box::new(groups.iter().cloned().map(Ok))
}

fn config(dirs: &[&Path]) -> RunsConfig {
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    RunsConfig { dirs, disk_bytes_max: 1 << 30, cache_bytes: 1 << 20 }
}

fn all(run: &dyn SortedRun) -> Listed {
    run.read(Part::ALL).collect::<Result<_, _>>().expect("it can be read")
}

/// Returns the files that runs are in.
fn files(dir: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(dir.join("sanso-views")).expect("it is there");
    let paths = folder.map(|entry| entry.expect("it can be listed").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_run_is_read_as_it_was_written(
        written in btree_map((vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..4), any::<i8>()), 1..9_i64, 0..60),
        key in vec(prop_oneof![Just(0_u8), Just(0xff)], 0..3),
        (from, to) in (any::<i8>(), any::<i8>()),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let runs = DiskRuns::open(&config(&[dir.path()])).expect("opened");
        let extreme = |window: i8| match window {
            i8::MIN => i64::MIN,
            i8::MAX => i64::MAX,
            window => window.into(),
        };
        let listed: Listed = written
            .iter()
            .map(|((key, window), value)| {
                (GroupId { key: key.as_slice().into(), window_start: extreme(*window) }, state(*value))
            })
            .collect();
        let before = groups(20);
        let other = runs.write(&kinds(), iterate(&before)).expect("written");
        let run = runs.write(&kinds(), iterate(&listed)).expect("written");
        prop_assert_eq!(run.groups(), listed.len() as u64);
        prop_assert_eq!(&all(&*run), &listed);
        let keys = listed.iter().map(|(id, _)| &*id.key).chain([key.as_slice()]);
        for key in keys.map(Some).chain([None]) {
            let part = Part::of(key, extreme(from), extreme(to));
            let expected: Listed = listed.iter().filter(|(id, _)| part.contains(id)).cloned().collect();
            let found: Result<Listed, _> = run.read(part).collect();
            prop_assert_eq!(found, Ok(expected), "{:?}", part);
        }
        prop_assert_eq!(all(&*other), before, "another run is another one");
    }
}

#[test]
fn a_run_is_gone_with_who_held_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let runs = DiskRuns::open(&config(&[dir.path()])).expect("opened");
    let (few, many) = (groups(10), groups(5_000));
    let kept = runs.write(&kinds(), iterate(&few)).expect("written");
    let bytes = runs.usage().disk_bytes;
    let dropped = runs.write(&kinds(), iterate(&many)).expect("written");
    assert_eq!(files(dir.path()).len(), 2);
    assert!(runs.usage().disk_bytes > bytes);
    let reading = dropped.read(Part::ALL);
    assert_eq!(reading.count(), 5_000);
    drop(dropped);
    assert_eq!((files(dir.path()).len(), runs.usage().disk_bytes), (1, bytes));
    assert_eq!(all(&*kept), few);
    let empty = runs.write(&kinds(), iterate(&Vec::new())).expect("nothing is written");
    assert_eq!((empty.groups(), all(&*empty)), (0, Vec::new()));
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let runs =
        DiskRuns::open(&RunsConfig { disk_bytes_max: 10_000, ..config(&[dir.path()]) }).expect("opened");
    let many = groups(100_000);
    let refused = runs.write(&kinds(), iterate(&many)).expect_err("it is larger").to_string();
    assert!(refused.contains("no room is left"), "{refused}");
    let broken = many.iter().take(9).cloned().map(Ok).chain([Err(sanso_state::RunError("torn".to_owned()))]);
    assert!(
        runs.write(&kinds(), Box::new(broken)).expect_err("it can't be read").to_string().contains("torn")
    );
    assert_eq!(
        (files(dir.path()).len(), runs.usage()),
        (0, RunsUsage { cache_bytes: runs.usage().cache_bytes, disk_bytes: 0 })
    );
    assert_eq!(std::fs::read_dir(dir.path().join("sanso-views/writing")).expect("it is there").count(), 0);
    let few = groups(10);
    assert_eq!(all(&*runs.write(&kinds(), iterate(&few)).expect("there is room")), few);
}

#[test]
fn a_directory_that_takes_nothing_is_left_out() {
    let (broken, sound) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let runs = DiskRuns::open(&config(&[broken.path(), sound.path()])).expect("opened");
    std::fs::write(broken.path().join("sanso-views"), "in the way").expect("written");
    let written = groups(100);
    runs.write(&kinds(), iterate(&written)).expect_err("it can't be opened");
    for _ in 0..2 {
        assert_eq!(all(&*runs.write(&kinds(), iterate(&written)).expect("the other one")), written);
    }
}

#[test]
fn runs_are_spread_over_the_directories() {
    let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let runs = DiskRuns::open(&config(&[a.path(), b.path()])).expect("opened");
    let written = groups(1_000);
    let held: Vec<_> = (0..4).map(|_| runs.write(&kinds(), iterate(&written)).expect("written")).collect();
    assert_eq!((files(a.path()).len(), files(b.path()).len()), (2, 2));
    held.iter().for_each(|run| assert_eq!(all(&**run), written));
}

#[test]
fn a_directory_is_of_one_process_and_begins_empty() {
    let dir = tempfile::tempdir().expect("a folder");
    let written = groups(100);
    let runs = DiskRuns::open(&config(&[dir.path()])).expect("opened");
    let late = DiskRuns::open(&config(&[dir.path()])).expect("nobody has written yet");
    let kept = runs.write(&kinds(), iterate(&written)).expect("written");
    let taken = late.write(&kinds(), iterate(&written)).expect_err("it is in use").to_string();
    assert!(taken.contains("sanso-views"), "{taken}");
    let refused = DiskRuns::open(&config(&[dir.path()])).expect_err("it is in use").to_string();
    assert!(refused.contains("sanso-views") && refused.contains("directories of its own"), "{refused}");
    assert_eq!(all(&*kept), written, "the other one has deleted nothing");
    // As after kill -9: what holds it never lets go.
    let leaked = files(dir.path());
    assert_eq!(leaked.len(), 1);
    let copy = tempfile::tempdir().expect("a folder");
    let folder = copy.path().join("sanso-views");
    std::fs::create_dir(&folder).expect("made");
    for entry in std::fs::read_dir(dir.path().join("sanso-views")).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_file() {
            std::fs::copy(&path, folder.join(path.file_name().expect("a file"))).expect("copied");
        }
    }
    let next = DiskRuns::open(&config(&[copy.path()])).expect("opened");
    assert!(!copy.path().join("sanso-views").exists());
    assert_eq!(next.usage().disk_bytes, 0);
    assert_eq!(all(&*next.write(&kinds(), iterate(&written)).expect("written")), written);
}

#[test]
fn a_damaged_file_is_told_and_never_taken_for_groups() {
    let dir = tempfile::tempdir().expect("a folder");
    let written = groups(20_000);
    let runs = DiskRuns::open(&RunsConfig { cache_bytes: 0, ..config(&[dir.path()]) }).expect("opened");
    let run = runs.write(&kinds(), iterate(&written)).expect("written");
    let [file] = &files(dir.path())[..] else { panic!("one file") };
    let mut bytes = std::fs::read(file).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).expect("damaged");
    let found: Vec<_> = run.read(Part::ALL).collect();
    let (whole, error) = (&found[..found.len() - 1], found.last().expect("an error"));
    assert!(error.as_ref().expect_err("a block is damaged").to_string().contains("orruption"), "{error:?}");
    for (found, written) in whole.iter().zip(&written) {
        assert_eq!(found.as_ref().ok(), Some(written));
    }
    let (first, _) = &written[0];
    let again: Vec<_> = run.read(Part::of(Some(&first.key), 0, 1)).collect();
    assert!(matches!(&again[..], [Err(_)]), "what could not be read is not asked again: {again:?}");
    assert!(run.is_lost() && !runs.write(&kinds(), iterate(&written)).expect("written").is_lost());
}
