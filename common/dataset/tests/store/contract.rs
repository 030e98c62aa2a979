//! What the dataset needs of an object store, on each that it can lie in.

use anyhow::ensure;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use sanso_bucket::{Bucket, available};
use sanso_dataset::{Dataset, DatasetError};

use crate::support::{advance, check, config, open};

async fn put(store: &dyn ObjectStore, path: &Path, text: &'static str, mode: PutMode) -> Result<(), Error> {
    let options = PutOptions { mode, ..PutOptions::default() };
    store.put_opts(path, Bytes::from_static(text.as_bytes()).into(), options).await.map(|_| ())
}

async fn text(store: &dyn ObjectStore, path: &Path) -> Result<Bytes, Error> {
    store.get(path).await?.bytes().await
}

/// `swaps`: whether an object can be replaced only if it is still the one that was read.
async fn keeps_the_contract(dataset: Dataset, swaps: bool) -> anyhow::Result<()> {
    let store = dataset.object_store();
    let folder = Path::from("contract/of a store");
    let path = folder.clone().join("log_partition=00001").join("a=b %.parquet");
    ensure!(matches!(text(&store, &path).await, Err(Error::NotFound { .. })));
    put(&store, &path, "first", PutMode::Create).await?;
    let again = put(&store, &path, "second", PutMode::Create).await;
    ensure!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    ensure!(text(&store, &path).await? == "first", "a refused write changes nothing");
    put(&store, &path, "0123456789", PutMode::Overwrite).await?;
    ensure!(text(&store, &path).await? == "0123456789", "a write is read at once");
    ensure!(store.get_ranges(&path, &[2..4, 7..10]).await? == ["23", "789"]);
    let head = store.head(&path).await?;
    ensure!(head.size == 10 && head.last_modified.timestamp() > 0);
    let tag = UpdateVersion { e_tag: head.e_tag, version: head.version };
    let swap = |text| put(&store, &path, text, PutMode::Update(tag.clone()));
    if swaps {
        swap("swapped").await?;
        let late = swap("late").await;
        ensure!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
        ensure!(text(&store, &path).await? == "swapped");
    } else {
        ensure!(matches!(swap("swapped").await, Err(Error::NotImplemented { .. })));
    }
    let listed: Vec<_> = store.list(Some(&folder)).try_collect().await?;
    ensure!(listed.iter().map(|file| &file.location).eq([&path]), "{listed:?}");
    store.delete(&path).await?;
    let again = store.delete(&path).await;
    ensure!(matches!(again, Ok(()) | Err(Error::NotFound { .. })), "{again:?}");
    ensure!(matches!(text(&store, &path).await, Err(Error::NotFound { .. })));
    versions_follow_each_other(&dataset).await
}

async fn versions_follow_each_other(dataset: &Dataset) -> anyhow::Result<()> {
    let first = advance(dataset, None).await?;
    let taken = advance(dataset, None).await;
    ensure!(matches!(taken, Err(DatasetError::VersionTaken { version: 1, .. })), "{taken:?}");
    let mut newest = first;
    for _ in 0..3 {
        newest = advance(dataset, Some(&newest)).await?;
        check(dataset, &newest).await;
    }
    dataset.remove_unreferenced("readings", 2).await?;
    check(dataset, &newest).await;
    Ok(())
}

#[tokio::test]
async fn memory_keeps_the_contract() -> anyhow::Result<()> {
    keeps_the_contract(Dataset::in_memory(), true).await
}

#[tokio::test]
async fn a_local_folder_keeps_the_contract() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    keeps_the_contract(Dataset::open_local(folder.path())?, false).await
}

#[tokio::test]
async fn an_s3_bucket_keeps_the_contract() -> anyhow::Result<()> {
    if !available("an_s3_bucket_keeps_the_contract") {
        return Ok(());
    }
    let bucket = Bucket::start().await?;
    keeps_the_contract(open(&config(bucket.endpoint())).await?, true).await
}
