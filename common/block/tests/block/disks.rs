//! Disks that tear, flip, fill, break and come back; and the next life.

use std::fs;
use std::path::Path;
use std::process::Command;

use sanso_block::{BlockConfig, BlockError, BlockStore, Found, Reading, StorageLevel};

use crate::support::{files, id, open, rows};

async fn get(store: &BlockStore, n: u64) -> bool {
    match store.get(id(n), StorageLevel::MemoryDisk, Reading::Again).await {
        Some(got) => {
            assert_eq!(*got, *rows(n));
            true
        }
        None => false,
    }
}

#[tokio::test]
async fn a_damaged_file_is_not_there_and_is_removed() {
    let damages: [fn(&Path); 4] = [
        |path| {
            let mut bytes = fs::read(path).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).expect("write");
        },
        |path| fs::write(path, &fs::read(path).expect("read")[..100]).expect("write"),
        |path| fs::write(path, b"").expect("write"),
        |path| fs::remove_file(path).expect("remove"),
    ];
    for damage in damages {
        let dir = tempfile::tempdir().expect("make a folder");
        let store = open(0, 1 << 20, &[dir.path()]);
        store.put(id(1), StorageLevel::MemoryDisk, rows(1)).await;
        assert!(get(&store, 1).await);
        damage(&files(dir.path())[0]);
        assert!(!get(&store, 1).await);
        assert_eq!((store.counts().damaged, files(dir.path()).len()), (1, 0));
        assert_eq!(store.usage().disk_bytes, 0);
        store.put(id(1), StorageLevel::MemoryDisk, rows(1)).await;
        assert!(get(&store, 1).await, "made again");
    }
}

#[tokio::test]
async fn a_file_under_the_name_of_another_block_is_not_it() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(0, 1 << 20, &[dir.path()]);
    for n in 1..=2 {
        store.put(id(n), StorageLevel::Disk, rows(n)).await;
    }
    let both = files(dir.path());
    fs::copy(&both[0], &both[1]).expect("copy");
    let found = [get(&store, 1).await, get(&store, 2).await];
    assert_eq!(found.iter().filter(|found| **found).count(), 1, "{found:?}");
}

#[tokio::test]
async fn the_next_life_finds_whole_files_and_removes_unfinished_ones() {
    let dirs = [tempfile::tempdir().expect("make a folder"), tempfile::tempdir().expect("make a folder")];
    let paths = [dirs[0].path(), dirs[1].path()];
    {
        let store = open(1, 1 << 20, &paths);
        for n in 1..=5 {
            store.put(id(n), StorageLevel::MemoryDisk, rows(n)).await;
        }
    }
    let whole = files(paths[0]);
    assert_eq!((whole.len(), files(paths[1]).len()), (2, 2), "spread over both");
    let (part, foreign) = (whole[0].with_extension("part"), whole[0].with_file_name("notes.txt"));
    fs::write(&part, b"half a block").expect("write");
    fs::write(&foreign, b"not ours").expect("write");
    let flipped = fs::read(&whole[0]).expect("read").iter().map(|byte| byte ^ 0x10).collect::<Vec<_>>();
    fs::write(&whole[0], flipped).expect("write");
    let store = open(1, 1 << 20, &paths);
    assert!(!part.exists() && foreign.exists());
    let mut found = Vec::new();
    for n in 1..=5 {
        found.push(get(&store, n).await);
    }
    // The fifth was in memory only; one of the others was damaged between the lives.
    assert!(!found[4]);
    assert_eq!(found.iter().filter(|found| **found).count(), 3, "{found:?}");
    assert_eq!(store.counts().damaged, 1);
}

#[tokio::test]
async fn what_the_next_life_finds_fits_its_bound_and_the_oldest_leave() {
    let dir = tempfile::tempdir().expect("make a folder");
    {
        let store = open(0, 1 << 20, &[dir.path()]);
        for n in 1..=4 {
            store.put(id(n), StorageLevel::Disk, rows(n)).await;
        }
    }
    let size = fs::metadata(&files(dir.path())[0]).expect("its size").len();
    let store = open(0, 2 * size + size / 2, &[dir.path()]);
    assert_eq!(files(dir.path()).len(), 2);
    let found: Vec<bool> = (1..=4).map(|n| matches!(store.find(id(n)), Found::File(_))).collect();
    assert_eq!(found, [false, false, true, true]);
}

#[tokio::test]
async fn a_disk_that_fails_means_blocks_that_are_not_kept() {
    let (broken, whole) =
        (tempfile::tempdir().expect("make a folder"), tempfile::tempdir().expect("make a folder"));
    let store = open(1, 1 << 20, &[broken.path()]);
    fs::remove_dir_all(broken.path().join("sanso-blocks")).expect("remove");
    for n in 1..=3 {
        store.put(id(n), StorageLevel::MemoryDisk, rows(n)).await;
    }
    assert_eq!([get(&store, 1).await, get(&store, 2).await, get(&store, 3).await], [false, false, true]);
    let counts = store.counts();
    assert_eq!((counts.refused_by_disk, counts.evicted), (2, 2));
    fs::create_dir(broken.path().join("sanso-blocks")).expect("make");
    store.put(id(4), StorageLevel::MemoryDisk, rows(4)).await;
    assert!(get(&store, 3).await, "the disk works again");
    drop(store);
    let store = open(0, 1 << 20, &[broken.path(), whole.path()]);
    fs::remove_dir_all(broken.path().join("sanso-blocks")).expect("remove");
    store.put(id(5), StorageLevel::Disk, rows(5)).await;
    assert!(get(&store, 5).await, "the other disk took it");
}

/// A file system of one megabyte, where this process may mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("make a folder");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|done| done.status.success()).then(|| Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_means_blocks_that_are_not_kept() {
    let Some(small) = Small::mount() else {
        eprintln!("skipped: a file system can't be mounted here");
        return;
    };
    let store = open(0, 1 << 30, &[small.0.path()]);
    for n in 0..200 {
        store.put(id(n), StorageLevel::MemoryDisk, rows(n)).await;
    }
    let counts = store.counts();
    assert!(counts.refused_by_disk > 0 && counts.damaged == 0, "{counts:?}");
    let kept = files(small.0.path()).len() as u64;
    assert!(kept > 50 && kept + counts.refused_by_disk == 200, "{kept} kept, {counts:?}");
    for n in 0..kept {
        assert!(get(&store, n).await, "{n} of {kept}");
    }
    let parts = fs::read_dir(small.0.path().join("sanso-blocks")).expect("list").count() as u64;
    assert_eq!(parts, kept + 1, "nothing unfinished is left, only the lock");
}

#[tokio::test]
async fn a_spill_directory_has_one_store() {
    let dir = tempfile::tempdir().expect("make a folder");
    let config = BlockConfig { spill_dirs: vec![dir.path().to_owned()], ..BlockConfig::default() };
    let store = BlockStore::open(&config).expect("open");
    assert!(matches!(BlockStore::open(&config), Err(BlockError::InUse { .. })));
    drop(store);
    BlockStore::open(&config).expect("open again");
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("write");
    let config = BlockConfig { spill_dirs: vec![file], ..BlockConfig::default() };
    assert!(
        matches!(BlockStore::open(&config), Err(BlockError::Folder { .. })),
        "no folder can be made there"
    );
}
