//! The store in memory, and with a disk that works.

use std::process::Command;

use futures::future::join_all;
use sanso_block::{Found, Reading, StorageLevel, Usage};

use crate::support::{files, id, open, rows, weight};

#[tokio::test]
async fn the_least_recently_used_leaves_first() {
    let store = open(3, 0, &[]);
    for n in 1..=3 {
        store.put(id(n), StorageLevel::Memory, rows(n)).await;
    }
    assert!(store.get(id(1), StorageLevel::Memory, Reading::Again).await.is_some());
    assert!(store.get(id(2), StorageLevel::Memory, Reading::Once).await.is_some());
    store.put(id(4), StorageLevel::Memory, rows(4)).await;
    let found: Vec<bool> = (1..=4).map(|n| store.find(id(n)) == Found::Memory).collect();
    assert_eq!(found, [true, false, true, true], "a pass over all is no use");
    let counts = store.counts();
    assert_eq!((counts.from_memory, counts.evicted, counts.evicted_to_disk), (2, 1, 0));
}

#[tokio::test]
async fn what_does_not_fit_in_memory_goes_to_disk_and_comes_back() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(2, 1 << 20, &[dir.path()]);
    for n in 1..=4 {
        store.put(id(n), StorageLevel::MemoryDisk, rows(n)).await;
    }
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(store.usage().memory_bytes, 2 * rows(0).bytes());
    for n in [1, 2, 3, 4, 1] {
        let got = store.get(id(n), StorageLevel::MemoryDisk, Reading::Again).await;
        assert_eq!(got.as_deref(), Some(&*rows(n)));
        assert_eq!(store.find(id(n)), Found::Memory, "it came back");
        assert!(store.usage().memory_bytes <= 2 * weight());
    }
    // A file stays when its block comes back, so that the next eviction costs nothing.
    assert_eq!(files(dir.path()).len(), 4);
    let counts = store.counts();
    assert_eq!((counts.from_disk, counts.missed, counts.evicted), (5, 0, 0));
}

#[tokio::test]
async fn a_pass_over_all_leaves_everything_where_it_is() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(1, 1 << 20, &[dir.path()]);
    for n in 1..=3 {
        store.put(id(n), StorageLevel::MemoryDisk, rows(n)).await;
    }
    for n in 1..=3 {
        assert!(store.get(id(n), StorageLevel::MemoryDisk, Reading::Once).await.is_some());
    }
    assert_eq!(store.find(id(3)), Found::Memory);
    assert!(matches!(store.find(id(1)), Found::File(_)));
}

#[tokio::test]
async fn each_level_keeps_what_it_says() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(8, 1 << 20, &[dir.path()]);
    for (n, level) in (0..).zip(StorageLevel::ALL) {
        store.put(id(n), level, rows(n)).await;
        let found = store.find(id(n));
        match level {
            StorageLevel::Memory | StorageLevel::MemoryDisk => assert_eq!(found, Found::Memory),
            StorageLevel::Disk => assert!(matches!(found, Found::File(_)), "{found:?}"),
            StorageLevel::None => assert_eq!(found, Found::Nowhere),
        }
    }
    // The disk's block is read each time, and stays where it is.
    let disk =
        StorageLevel::ALL.iter().position(|level| *level == StorageLevel::Disk).expect("a level") as u64;
    assert!(store.get(id(disk), StorageLevel::Disk, Reading::Again).await.is_some());
    assert!(matches!(store.find(id(disk)), Found::File(_)));
    assert!(store.get(id(0), StorageLevel::None, Reading::Again).await.is_none(), "the level is none now");
}

#[tokio::test]
async fn a_block_larger_than_all_of_memory_goes_to_disk_or_nowhere() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(0, 1 << 20, &[dir.path()]);
    store.put(id(1), StorageLevel::MemoryDisk, rows(1)).await;
    store.put(id(2), StorageLevel::Memory, rows(2)).await;
    assert!(matches!(store.find(id(1)), Found::File(_)));
    assert_eq!(store.find(id(2)), Found::Nowhere);
    assert_eq!(store.counts().refused_by_memory, 1);
    let got = store.get(id(1), StorageLevel::MemoryDisk, Reading::Again).await;
    assert_eq!(got.as_deref(), Some(&*rows(1)), "though it can't come back to memory");
}

#[tokio::test]
async fn those_who_ask_for_one_block_share_one_read_of_it() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(1, 1 << 20, &[dir.path()]);
    store.put(id(1), StorageLevel::Disk, rows(1)).await;
    // A pipe holds the read until something is written into it.
    let file = files(dir.path()).remove(0);
    let bytes = std::fs::read(&file).expect("read");
    std::fs::remove_file(&file).expect("remove");
    let made = Command::new("mkfifo").arg(&file).status().expect("run mkfifo");
    assert!(made.success());
    let mut gets = join_all((0..50).map(|_| store.get(id(1), StorageLevel::MemoryDisk, Reading::Again)));
    assert!(futures::poll!(&mut gets).is_pending());
    let written = tokio::task::spawn_blocking(move || std::fs::write(&file, bytes));
    for got in gets.await {
        assert_eq!(got.as_deref(), Some(&*rows(1)));
    }
    written.await.expect("joined").expect("write");
    let counts = store.counts();
    assert_eq!((counts.from_disk, counts.shared, counts.missed), (1, 49, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bounds_hold_whatever_is_done_at_once() {
    let dirs = [tempfile::tempdir().expect("make a folder"), tempfile::tempdir().expect("make a folder")];
    let disk_max = 6 * 9_000;
    let store = open(4, disk_max, &[dirs[0].path(), dirs[1].path()]);
    let levels = [StorageLevel::MemoryDisk, StorageLevel::Disk, StorageLevel::Memory];
    let work = (0..8u64).map(|worker| {
        let store = store.clone();
        tokio::spawn(async move {
            for step in 0..100u64 {
                let n = (worker * 7 + step * 5) % 24;
                let level = levels[(n % 3) as usize];
                match store.get(id(n), level, Reading::Again).await {
                    Some(got) => assert_eq!(*got, *rows(n)),
                    None => store.put(id(n), level, rows(n)).await,
                }
                if step % 17 == 0 {
                    store.remove(id((n + 1) % 24));
                }
                let Usage { memory_bytes, disk_bytes, .. } = store.usage();
                assert!(memory_bytes <= 4 * weight(), "{memory_bytes} bytes in memory");
                assert!(disk_bytes <= disk_max, "{disk_bytes} bytes on disk");
            }
        })
    });
    for done in join_all(work).await {
        done.expect("a worker ended well");
    }
    let counts = store.counts();
    assert!(counts.evicted_to_disk > 0 && counts.evicted > 0 && counts.deleted > 0, "{counts:?}");
    assert_eq!(counts.damaged, 0);
}

#[tokio::test]
async fn a_removed_block_is_nowhere() {
    let dir = tempfile::tempdir().expect("make a folder");
    let store = open(1, 1 << 20, &[dir.path()]);
    store.put(id(1), StorageLevel::MemoryDisk, rows(1)).await;
    store.put(id(2), StorageLevel::MemoryDisk, rows(2)).await;
    store.remove(id(1));
    store.remove(id(2));
    assert_eq!(store.usage(), Usage { blocks: 0, memory_bytes: 0, disk_bytes: 0 });
    assert!(store.get(id(1), StorageLevel::MemoryDisk, Reading::Again).await.is_none());
}
