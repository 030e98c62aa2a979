//! The store against Raft's own suite, and against damage.

use std::fs;
use std::path::Path;

use openraft::StorageError;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftLeaderId;
use tempfile::TempDir;

use super::*;
use crate::agreed::{Agreed, Command, LEVEL, Put};
use crate::runtime::{Entry, LogId};

struct Folders;

impl StoreBuilder<Raft, LogStore, Machine, TempDir> for Folders {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Raft>> {
        let folder = TempDir::new().expect("a folder");
        let (log, machine, _) = open(folder.path()).expect("a new store");
        Ok((folder, log, machine))
    }
}

fn open(folder: &Path) -> Result<(LogStore, Machine, Watches), StoreError> {
    let disk = Arc::new(Disk::open(folder, "test", NodeId(1))?);
    let syncer = Syncer::start(disk.clone());
    let (published, watches) = Published::new();
    let machine = Machine::new(disk.clone(), syncer.clone(), published);
    Ok((LogStore::new(disk, syncer), machine, watches))
}

fn entry(index: u64) -> Entry {
    let leader = openraft::type_config::alias::LeaderIdOf::<Raft>::new(1, 1).to_committed();
    let value = Some(vec![7; 300]);
    let put = Command::Put(Put { key: format!("key {index}"), expect: 0, value });
    Entry { log_id: LogId::new(leader, index), payload: openraft::EntryPayload::Normal(put.seal()) }
}

/// A folder with a log of a few entries, closed again.
fn filled() -> TempDir {
    let folder = TempDir::new().unwrap();
    in_runtime(async {
        let (mut log, _, _) = open(folder.path()).unwrap();
        let leader = openraft::type_config::alias::LeaderIdOf::<Raft>::new(1, 1);
        log.save_vote(&openraft::Vote { leader_id: leader, committed: true }).await.unwrap();
        log.blocking_append((0..8).map(entry)).await.unwrap();
    });
    folder
}

/// Runs on a runtime that is gone afterwards, with all that holds the folder.
fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.to_string_lossy().ends_with(suffix)).collect()
}

#[test]
fn the_store_keeps_what_raft_asks_of_it() {
    in_runtime(Suite::test_all(Folders)).unwrap();
}

/// What a crash of the machine would lose can't be seen from here; that the disk is asked for can.
#[test]
fn nothing_is_acknowledged_before_the_disk_was_asked_for_it() {
    let folder = TempDir::new().unwrap();
    in_runtime(async {
        let (mut log, mut machine, _) = open(folder.path()).unwrap();
        let disk = log.disk.clone();
        let syncs = || disk.counted.get_ticker_count(rocksdb::statistics::Ticker::WalFileSynced);
        let mut before = syncs();
        let mut grown = |what: &str| {
            assert!(syncs() > before, "{what}");
            before = syncs();
        };
        let leader = openraft::type_config::alias::LeaderIdOf::<Raft>::new(1, 1);
        log.save_vote(&openraft::Vote { leader_id: leader, committed: false }).await.unwrap();
        grown("a vote");
        log.blocking_append([entry(0)]).await.unwrap();
        grown("an entry");
        machine.apply(futures::stream::iter([Ok((entry(0), None))])).await.unwrap();
        let kept = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        grown("a snapshot that is made");
        machine.install_snapshot(&kept.meta, kept.snapshot).await.unwrap();
        grown("a snapshot that is sent");
    });
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = filled();
    in_runtime(async {
        let (mut log, _, _) = open(folder.path()).unwrap();
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id.map(|id| id.index), Some(7));
        let mut reader = log.get_log_reader().await;
        let entries = openraft::RaftLogReader::try_get_log_entries(&mut reader, 0..8).await.unwrap();
        assert_eq!(entries, (0..8).map(entry).collect::<Vec<_>>());
        let vote = openraft::RaftLogReader::read_vote(&mut reader).await.unwrap();
        assert!(vote.is_some_and(|vote| vote.committed));
    });
}

#[test]
fn a_folder_of_another_node_or_cluster_is_refused_by_name() {
    let folder = filled();
    for (cluster, node) in [("test", 2), ("other", 1)] {
        let refused = Disk::open(folder.path(), cluster, NodeId(node)).err().unwrap();
        assert!(matches!(&refused, StoreError::Foreign { .. }), "{refused}");
        assert!(refused.to_string().contains(&folder.path().display().to_string()), "{refused}");
    }
    let foreign = TempDir::new().unwrap();
    fs::write(foreign.path().join("readings.csv"), "1,2").unwrap();
    let refused = Disk::open(foreign.path(), "test", NodeId(1)).err().unwrap();
    assert!(matches!(&refused, StoreError::Foreign { .. }), "{refused}");
}

#[test]
fn what_a_later_version_wrote_is_no_damage() {
    // An entry in a later form; a state at a later level; a folder in a later format.
    let entry = [&b"\x82\xa7version\x02"[..], b"\xa7message\x07"].concat();
    let state = bodies::encode(&Agreed { level: LEVEL + 1, ..Agreed::default() });
    let meta = crate::runtime::SnapshotMeta::default();
    let snapshot = bodies::encode(&machine::Snapshot { meta, body: state });
    let about = bodies::encode(&About { format: FORMAT + 1, cluster: "test".into(), node: 1 });
    for (family, key, value) in
        [(LOG, &3_u64.to_be_bytes()[..], entry), ("default", SNAPSHOT, snapshot), ("default", ABOUT, about)]
    {
        let folder = filled();
        {
            let disk = Disk::open(folder.path(), "test", NodeId(1)).unwrap();
            disk.db.put_cf(disk.family(family), key, value).unwrap();
        }
        let refused = Disk::open(folder.path(), "test", NodeId(1)).err().expect("it is of a later version");
        assert!(matches!(refused, StoreError::Later { .. }), "{refused}");
        let told = refused.to_string();
        assert!(told.contains("update this node") && !told.contains("delete"), "{told}");
    }
}

#[test]
fn a_damaged_log_is_refused_and_an_unfinished_last_write_is_cut_back() {
    let folder = filled();
    let log = files(folder.path(), ".log").pop().unwrap();
    let whole = fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 4] ^= 0x10;
    fs::write(&log, &damaged).unwrap();
    let refused = Disk::open(folder.path(), "test", NodeId(1)).err().expect("the damage is seen");
    let told = refused.to_string();
    assert!(
        told.contains(&folder.path().display().to_string()) && told.contains("take this node out"),
        "{told}"
    );

    let folder = filled();
    let log = files(folder.path(), ".log").pop().unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 5]).unwrap();
    in_runtime(async {
        let (mut log, _, _) = open(folder.path()).unwrap();
        let last = log.get_log_state().await.unwrap().last_log_id;
        assert_eq!(last, None, "all entries were one write");
        let mut reader = log.get_log_reader().await;
        assert!(openraft::RaftLogReader::read_vote(&mut reader).await.unwrap().is_some());
    });
}

#[test]
fn a_hole_in_the_log_is_refused() {
    let folder = filled();
    {
        let disk = Disk::open(folder.path(), "test", NodeId(1)).unwrap();
        disk.db.delete_cf(disk.family(LOG), 3_u64.to_be_bytes()).unwrap();
    }
    let refused = Disk::open(folder.path(), "test", NodeId(1)).err().expect("the hole is seen");
    assert!(refused.to_string().contains("hole before entry 4"), "{refused}");
}

#[test]
fn a_snapshot_takes_the_place_of_the_entries_before_it() {
    let folder = filled();
    let table = in_runtime(async {
        let (mut log, mut machine, watches) = open(folder.path()).unwrap();
        let entries = (0..8).map(|index| Ok((entry(index), None)));
        machine.apply(futures::stream::iter(entries)).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        log.purge(entry(7).log_id).await.unwrap();
        log.blocking_append([entry(8)]).await.unwrap();
        watches.table.borrow().clone()
    });
    assert_eq!(table.revision(), 8);
    in_runtime(async {
        let (mut log, mut machine, watches) = open(folder.path()).unwrap();
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(7));
        let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
        machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        assert_eq!(*watches.table.borrow(), table);
    });
}
