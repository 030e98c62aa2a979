//! No listing decides which version is in force or what may be deleted, and no writer that slept
//! brings an old number into force.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sanso_dataset::{Dataset, DatasetError, Manifest};

use crate::lagging::Lagging;
use crate::support::{SOURCE, advance, check, check_files, write};

fn lagging() -> (Arc<Lagging>, Dataset) {
    let store = Arc::new(Lagging::default());
    (Arc::clone(&store), Dataset::with_store(store, Path::from("data")))
}

/// Commits versions up to one, and cleans after each.
async fn grow(dataset: &Dataset, before: Option<Manifest>, to: u64) -> Manifest {
    let mut newest = before;
    while newest.as_ref().is_none_or(|newest| newest.version < to) {
        newest = Some(advance(dataset, newest.as_ref()).await.expect("advance"));
        dataset.remove_unreferenced(SOURCE, 2).await.expect("clean");
    }
    newest.expect("at least one version")
}

#[tokio::test]
async fn the_newest_version_is_found_whole_however_far_the_listing_lags() {
    for seen in 0..=6 {
        let (store, dataset) = lagging();
        let mut newest = None;
        for version in 1..=6 {
            newest = Some(grow(&dataset, newest, version).await);
            if version <= seen {
                store.look().await;
            }
            let opened = Dataset::with_store(Arc::clone(&store) as _, Path::from("data"));
            check(&opened, newest.as_ref().expect("committed")).await;
            if version > 1 {
                let before = opened.manifest_at(SOURCE, version - 1).await.expect("two are kept");
                check_files(&opened, &before).await;
            }
        }
    }
}

#[tokio::test]
async fn a_writer_that_slept_while_versions_came_and_went_is_refused() {
    for looks in [false, true] {
        let (store, dataset) = lagging();
        let first = grow(&dataset, None, 1).await;
        store.look().await;
        let newest = grow(&dataset, Some(first.clone()), 6).await;
        if looks {
            store.look().await;
            dataset.remove_unreferenced(SOURCE, 2).await.expect("clean");
        }
        // Version 2 is long gone, so its place is free.
        let stale = advance(&dataset, Some(&first)).await;
        assert!(matches!(stale, Err(DatasetError::VersionTaken { version: 2, .. })), "{stale:?}");
        check(&dataset, &newest).await;
        check(&dataset, &grow(&dataset, Some(newest), 7).await).await;
    }
}

#[tokio::test]
async fn two_writers_of_equal_content_notice_each_other() {
    let dataset = Dataset::in_memory();
    advance(&dataset, None).await.expect("the first");
    let second = advance(&dataset, None).await;
    assert!(matches!(second, Err(DatasetError::VersionTaken { version: 1, .. })), "{second:?}");
}

#[tokio::test]
async fn a_version_whose_pointer_was_not_written_is_in_force() {
    let dataset = Dataset::in_memory();
    let first = advance(&dataset, None).await.expect("commit");
    let pointer = dataset.layout().in_force(SOURCE);
    let store = dataset.object_store();
    let before = store.get(&pointer).await.expect("get").bytes().await.expect("bytes");
    let second = advance(&dataset, Some(&first)).await.expect("commit");
    store.put(&pointer, before.into()).await.expect("the pointer of a crash before it was written");
    check(&dataset, &second).await;
}

#[tokio::test]
async fn a_pointer_that_is_lost_or_damaged_is_done_without_and_written_anew() {
    let dataset = Dataset::in_memory();
    let store = dataset.object_store();
    let pointer = dataset.layout().in_force(SOURCE);
    let mut newest = grow(&dataset, None, 3).await;
    let whole = store.get(&pointer).await.expect("get").bytes().await.expect("bytes").to_vec();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        store.put(&pointer, Bytes::from(damaged).into()).await.expect("put");
        match dataset.manifest(SOURCE).await {
            Ok(found) => assert_eq!(*found.expect("committed"), newest, "byte {at}"),
            // The digit of the format became a higher one.
            Err(error) => assert!(matches!(error, DatasetError::Format { .. }), "byte {at}: {error}"),
        }
    }
    for damage in [Some(""), None] {
        match damage {
            Some(text) => drop(store.put(&pointer, text.into()).await.expect("put")),
            None => store.delete(&pointer).await.expect("delete"),
        }
        check(&dataset, &newest).await;
        newest = grow(&dataset, Some(newest.clone()), newest.version + 1).await;
        check(&dataset, &newest).await;
        assert!(!store.get(&pointer).await.expect("get").bytes().await.expect("bytes").is_empty());
    }
}

#[tokio::test]
async fn a_version_taken_back_by_hand_gives_way_to_the_one_before() {
    let dataset = Dataset::in_memory();
    let mut kept = grow(&dataset, None, 3).await;
    for taken_back in 1..=2 {
        let mut newest = kept.clone();
        for _ in 0..taken_back {
            newest = advance(&dataset, Some(&newest)).await.expect("commit");
        }
        for version in kept.version + 1..=newest.version {
            let path = dataset.layout().manifest(SOURCE, version);
            dataset.object_store().delete(&path).await.expect("delete");
        }
        check(&dataset, &kept).await;
        kept = advance(&dataset, Some(&kept)).await.expect("its number is free again");
        check(&dataset, &kept).await;
    }
}

#[tokio::test]
async fn what_another_process_is_about_to_commit_is_not_removed() {
    let dataset = Dataset::in_memory();
    let first = advance(&dataset, None).await.expect("commit");
    let (segment, newest) = write(&dataset, 2).await.expect("another process writes");
    dataset.remove_unreferenced(SOURCE, 1).await.expect("clean");
    dataset.read_segment(SOURCE, &segment).await.expect("the segment stays");
    dataset.read_newest(SOURCE, &newest).await.expect("the newest file stays");
    check(&dataset, &first).await;
}
