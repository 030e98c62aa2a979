//! Versions of a small source, written and checked.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::TryStreamExt;
use sanso_dataset::{
    Credentials, Dataset, DatasetConfig, Manifest, NewestFile, Result, SegmentFile, source_columns,
};
use sanso_state::{Cut, Fingerprint, LogPartition, SegmentId};

pub(crate) const SOURCE: &str = "readings";

pub(crate) fn rows(value: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("usage_point", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["meter"])), Arc::new(Int64Array::from(vec![value]))];
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns fit the schema")
}

/// Writes the segment and the newest-version table that a version adds.
pub(crate) async fn write(dataset: &Dataset, version: u64) -> Result<(SegmentFile, NewestFile)> {
    let id = SegmentId { partition: LogPartition(0), index: version - 1 };
    let segment = dataset.put_segment(SOURCE, id, &rows(version as i64), vec![version - 1], vec![5]).await?;
    let archived = dataset.read_segment(SOURCE, &segment).await?;
    let made_from = Fingerprint::of(&version.to_le_bytes());
    let newest = dataset.put_newest(SOURCE, 1, LogPartition(0), Some(20_484), made_from, archived).await?;
    Ok((segment, newest))
}

/// Writes and commits the version after `before`.
pub(crate) async fn advance(dataset: &Dataset, before: Option<&Manifest>) -> Result<Manifest> {
    let version = before.map_or(0, |before| before.version) + 1;
    let (segment, newest) = write(dataset, version).await?;
    let mut segments = before.map(|before| before.segments.clone()).unwrap_or_default();
    segments.push(segment);
    let manifest = Manifest {
        version,
        cut: Cut::new(vec![version]),
        columns: vec!["usage_point text".to_owned(), "value bigint".to_owned()],
        watermarks: vec![Some(7)],
        rows: 1,
        segments,
        newest: vec![newest],
        ..Manifest::beginning(SOURCE, 1, 1)
    };
    dataset.commit(&manifest).await?;
    Ok(manifest)
}

/// Checks that a version is in force, and that all it lists is there and whole.
pub(crate) async fn check(dataset: &Dataset, expected: &Manifest) {
    let found = dataset.manifest(SOURCE).await.expect("load").expect("committed");
    assert_eq!(*found, *expected);
    check_files(dataset, expected).await;
}

pub(crate) async fn check_files(dataset: &Dataset, manifest: &Manifest) {
    for (value, segment) in (1..).zip(&manifest.segments) {
        let read = dataset.read_segment(SOURCE, segment).await.expect("a segment");
        assert_eq!(source_columns(&read), rows(value));
    }
    let newest = dataset.newest_stream(manifest, LogPartition(0));
    let newest: Vec<RecordBatch> = newest.try_collect().await.expect("the newest-version table");
    assert_eq!(newest.iter().map(source_columns).collect::<Vec<_>>(), [rows(manifest.version as i64)]);
}

/// Settings for a bucket, less patient than a node's.
pub(crate) fn config(endpoint: String) -> DatasetConfig {
    DatasetConfig {
        url: Some(format!("s3://{}/some/prefix", sanso_bucket::Bucket::NAME)),
        endpoint: Some(endpoint),
        region: None,
        allow_http: true,
        retries_max: 3,
        retry_ms_max: 60_000,
        request_ms_max: 20_000,
        connect_ms_max: 5_000,
    }
}

pub(crate) async fn open(config: &DatasetConfig) -> Result<Dataset> {
    let credentials = Credentials::Key { id: "id".into(), secret: "never shown".into(), token: None };
    Dataset::open(config, std::path::Path::new("unused"), credentials).await
}
