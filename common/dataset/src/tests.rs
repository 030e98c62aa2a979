//! Tests of the dataset as its users see it.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use sanso_state::{
    AggregateFunction, AggregateKind, Block, Cut, Fingerprint, GroupId, GroupState, Groups, LogPartition,
    SegmentId, Value, ValueType,
};

use crate::*;

const SOURCE: &str = "readings";

fn rows(values: &[i64]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("usage_point", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]);
    let names: Vec<String> = values.iter().map(|value| format!("m{value}")).collect();
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from(names)), Arc::new(Int64Array::from(values.to_vec()))];
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns fit the schema")
}

fn segment(partition: u32, index: u64) -> SegmentId {
    SegmentId { partition: LogPartition(partition), index }
}

async fn put(dataset: &Dataset, id: SegmentId, values: &[i64]) -> SegmentFile {
    let count = values.len() as u64;
    let times = vec![5_000_000; values.len()];
    dataset.put_segment(SOURCE, id, &rows(values), (0..count).collect(), times).await.expect("put")
}

/// Version `version` with one segment for each version up to it, and one newest file.
async fn commit(dataset: &Dataset, version: u64) -> Manifest {
    let mut segments = Vec::new();
    for index in 0..version {
        segments.push(put(dataset, segment(0, index), &[index as i64]).await);
    }
    let last = segments.last().expect("version 1 has a segment");
    let archived = dataset.read_segment(SOURCE, last).await.expect("read");
    let made_from = Fingerprint::of(&version.to_le_bytes());
    let newest = dataset.put_newest(SOURCE, 1, LogPartition(0), Some(20_484), made_from, archived).await;
    let manifest = Manifest {
        version,
        cut: Cut::new(vec![version]),
        columns: vec!["usage_point text".to_owned(), "value bigint".to_owned()],
        watermarks: vec![Some(7)],
        rows: 1,
        segments,
        newest: vec![newest.expect("put")],
        ..Manifest::beginning(SOURCE, 1, 1)
    };
    dataset.commit(&manifest).await.expect("commit");
    manifest
}

async fn damage(dataset: &Dataset, path: &Path) {
    let store = dataset.object_store();
    let mut bytes = store.get(path).await.expect("get").bytes().await.expect("bytes").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    store.put(path, PutPayload::from(bytes)).await.expect("put");
}

#[tokio::test]
async fn a_segment_reads_back_as_it_was_written_and_writing_it_again_changes_nothing() {
    let dataset = Dataset::in_memory();
    let file = put(&dataset, segment(3, 42), &[7, -1]).await;
    assert_eq!(file.path, "segments/log_partition=00003/000000000042.parquet");
    let read = dataset.read_segment(SOURCE, &file).await.expect("read");
    assert_eq!(source_columns(&read), rows(&[7, -1]));
    assert_eq!(offsets(&read).values(), &[0, 1]);
    assert_eq!(append_times(&read).values(), &[5_000_000, 5_000_000]);
    assert_eq!(put(&dataset, segment(3, 42), &[7, -1]).await, file);
}

#[tokio::test]
async fn an_empty_segment_is_a_segment() {
    let dataset = Dataset::in_memory();
    let file = put(&dataset, segment(0, 0), &[]).await;
    assert_eq!(dataset.read_segment(SOURCE, &file).await.expect("read").num_rows(), 0);
}

#[tokio::test]
async fn rows_out_of_offset_order_are_refused() {
    let dataset = Dataset::in_memory();
    let refused = dataset.put_segment(SOURCE, segment(0, 0), &rows(&[1, 2]), vec![1, 1], vec![0, 0]).await;
    assert!(matches!(refused, Err(DatasetError::Rows { .. })));
}

#[tokio::test]
async fn the_highest_committed_version_is_in_force_and_no_version_is_committed_twice() {
    let dataset = Dataset::in_memory();
    assert_eq!(dataset.manifest(SOURCE).await.expect("list"), None);
    let first = commit(&dataset, 1).await;
    let second = commit(&dataset, 2).await;
    assert_eq!(*dataset.manifest(SOURCE).await.expect("load").expect("committed"), second);
    let again = dataset.commit(&first).await;
    assert!(matches!(again, Err(DatasetError::VersionTaken { version: 1, .. })));
    assert_eq!(*dataset.manifest_at(SOURCE, 1).await.expect("load"), first);
}

#[tokio::test]
async fn a_local_dataset_is_there_after_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let manifest = commit(&Dataset::open_local(folder.path()).expect("open"), 1).await;
    let dataset = Dataset::open_local(folder.path()).expect("open again");
    assert_eq!(*dataset.manifest(SOURCE).await.expect("load").expect("committed"), manifest);
    let base = dataset.newest_rows(SOURCE, LogPartition(0)).await.expect("read").expect("archived");
    assert_eq!((base.version, base.floor, base.max_event_us), (1, 1, Some(7)));
    assert!(folder.path().join("readings/newest/log_partition=00000/event_date=2026-01-31").is_dir());
}

#[tokio::test]
async fn damage_is_refused_with_the_name_of_the_file() {
    let dataset = Dataset::in_memory();
    let manifest = commit(&dataset, 1).await;
    for path in [dataset.segment_files(&manifest), dataset.newest_files(&manifest)].concat() {
        damage(&dataset, &path).await;
        let text = match path.as_ref().contains("/segments/") {
            true => {
                dataset.read_segment(SOURCE, &manifest.segments[0]).await.expect_err("damaged").to_string()
            }
            false => dataset.read_newest(SOURCE, &manifest.newest[0]).await.expect_err("damaged").to_string(),
        };
        assert!(text.contains(path.as_ref()) && text.contains("damaged"), "{text}");
    }
    let path = dataset.layout().manifest(SOURCE, 1);
    damage(&dataset, &path).await;
    let error = dataset.manifest(SOURCE).await.expect_err("damaged");
    assert!(matches!(&error, DatasetError::Damaged { path: named, .. } if named == path.as_ref()), "{error}");
}

#[tokio::test]
async fn every_single_damaged_byte_of_a_manifest_is_noticed() {
    let dataset = Dataset::in_memory();
    let written = commit(&dataset, 1).await;
    let path = dataset.layout().manifest(SOURCE, 1);
    let store = dataset.object_store();
    let bytes = store.get(&path).await.expect("get").bytes().await.expect("bytes");
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x01;
        store.put(&path, PutPayload::from(damaged)).await.expect("put");
        // What is not noticed must mean the same (a digit of the format that is older than ours).
        if let Ok(Some(read)) = dataset.manifest(SOURCE).await {
            assert_eq!(*read, written, "byte {at}");
        }
    }
}

#[tokio::test]
async fn a_listed_file_that_is_gone_is_an_error() {
    let dataset = Dataset::in_memory();
    let manifest = commit(&dataset, 1).await;
    dataset.object_store().delete(&dataset.newest_files(&manifest)[0]).await.expect("delete");
    let read = dataset.newest_rows(SOURCE, LogPartition(0)).await;
    assert!(matches!(read, Err(DatasetError::Missing { .. })));
}

#[tokio::test]
async fn a_manifest_of_a_newer_format_is_refused() {
    let dataset = Dataset::in_memory();
    commit(&dataset, 1).await;
    let path = dataset.layout().manifest(SOURCE, 1);
    let store = dataset.object_store();
    let bytes = store.get(&path).await.expect("get").bytes().await.expect("bytes");
    let text = String::from_utf8(bytes.to_vec()).expect("JSON").replacen("\"format\":2", "\"format\":9", 1);
    store.put(&path, PutPayload::from(Bytes::from(text))).await.expect("put");
    assert!(matches!(dataset.manifest(SOURCE).await, Err(DatasetError::Format { found: 9, .. })));
}

#[tokio::test]
async fn what_no_kept_version_lists_is_removed_and_the_rest_stays() {
    let dataset = Dataset::in_memory();
    for version in 1..=4 {
        commit(&dataset, version).await;
    }
    let orphan = put(&dataset, segment(0, 9), &[1]).await;
    // Two manifests and their two newest files.
    assert_eq!(dataset.remove_unreferenced(SOURCE, 2).await.expect("remove"), 4);
    assert_eq!(dataset.manifest_versions(SOURCE).await.expect("list"), [3, 4]);
    dataset.read_segment(SOURCE, &orphan).await.expect("a segment stays, the next version writes it again");
    for version in [3, 4] {
        let manifest = dataset.manifest_at(SOURCE, version).await.expect("load");
        for file in &manifest.segments {
            dataset.read_segment(SOURCE, file).await.expect("kept");
        }
        let stream = dataset.newest_stream(&manifest, LogPartition(0));
        let batches: Vec<RecordBatch> = stream.try_collect().await.expect("kept");
        let all = concat_batches(&batches[0].schema(), &batches).expect("one schema");
        assert_eq!(source_columns(&all), rows(&[version as i64 - 1]));
    }
    assert_eq!(dataset.remove_unreferenced(SOURCE, 2).await.expect("remove"), 0);
}

fn count() -> AggregateKind {
    AggregateKind::typed(AggregateFunction::Count, Some(ValueType::Int)).expect("integers can be counted")
}

fn block(version: u64, value: i64) -> Arc<Block> {
    let mut state = GroupState::zero(&[count()]);
    state.update(&[Some(Value::Int(value))], 1);
    let id = GroupId { key: Value::encode_key(&[Value::Int(value)]), window_start: 0 };
    let groups: Groups = [(id, state)].into_iter().collect();
    let cut = Cut::new(vec![version]);
    Arc::new(Block { view: Fingerprint::of(b"view"), version, cut, watermarks_us: vec![Some(3)], groups })
}

async fn publish(dataset: &Dataset, id: ViewId<'_>, block: &Arc<Block>) -> PublishedView {
    let published = PublishedView {
        source: id.source.to_owned(),
        view: id.name.to_owned(),
        fingerprint: id.fingerprint,
        version: block.version,
        made_from: Fingerprint::of(b"manifest"),
        cut: block.cut.clone(),
        watermarks_us: block.watermarks_us.clone(),
        blocks: vec![PublishedBlock {
            whole: dataset.put_block(id, 0, block).await.expect("put"),
            added: Vec::new(),
        }],
    };
    dataset.publish(&published).await.expect("publish");
    published
}

#[tokio::test]
async fn a_published_block_reads_back_and_a_damaged_one_is_refused() {
    let dataset = Dataset::in_memory();
    let kinds: Arc<[AggregateKind]> = [count()].into();
    let id = ViewId { source: SOURCE, name: "load", fingerprint: Fingerprint::of(b"view"), kinds: &kinds };
    let published = publish(&dataset, id, &block(4, 9)).await;
    assert_eq!(dataset.published_versions(id).await.expect("list"), [4]);
    assert_eq!(dataset.published(id, 4).await.expect("load"), published);
    assert_eq!(dataset.read_block(id, &published, 0).await.expect("read"), *block(4, 9));
    let folder = dataset.layout().view(SOURCE, "load", id.fingerprint);
    let path = Path::from(format!("{folder}/{}", published.blocks[0].whole.path));
    damage(&dataset, &path).await;
    let error = dataset.read_block(id, &published, 0).await.expect_err("damaged").to_string();
    assert!(error.contains(path.as_ref()), "{error}");
}

#[tokio::test]
async fn old_view_versions_are_removed_but_not_the_blocks_a_kept_one_carries() {
    let dataset = Dataset::in_memory();
    let kinds: Arc<[AggregateKind]> = [count()].into();
    let id = ViewId { source: SOURCE, name: "load", fingerprint: Fingerprint::of(b"view"), kinds: &kinds };
    for (version, value) in [(1, 5), (2, 6), (3, 6)] {
        publish(&dataset, id, &block(version, value)).await;
    }
    assert_eq!(dataset.remove_unpublished(id, 3, 2).await.expect("remove"), 2);
    assert_eq!(dataset.published_versions(id).await.expect("list"), [2, 3]);
    let kept = dataset.published(id, 3).await.expect("load");
    assert_eq!(dataset.read_block(id, &kept, 0).await.expect("carried").groups, block(3, 6).groups);
    assert_eq!(dataset.remove_views_before(SOURCE, 3, &[]).await.expect("remove"), 0);
    assert_eq!(dataset.remove_views_before(SOURCE, 4, &[id]).await.expect("live, so kept"), 0);
    assert_eq!(dataset.remove_views_before(SOURCE, 4, &[]).await.expect("remove"), 3);
    assert!(dataset.published_versions(id).await.expect("list").is_empty());
}

#[tokio::test]
async fn a_flipped_bit_is_found_before_an_engine_reads_the_file_by_itself() {
    let dataset = Dataset::in_memory();
    let manifest = commit(&dataset, 2).await;
    let contents = manifest.segments.iter().map(|file| file.content);
    let files: Vec<_> = dataset.segment_files(&manifest).into_iter().zip(contents).collect();
    dataset.verify("history", files[..1].to_vec()).await.expect("whole files");
    let path = &files[1].0;
    let mut bytes = dataset.get(path).await.expect("read").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    dataset.object_store().put(path, PutPayload::from(bytes)).await.expect("damage");
    let refused = dataset.verify("history", files.clone()).await;
    assert!(matches!(refused, Err(DatasetError::Damaged { path: found, .. }) if found == path.to_string()));
    // What is not known to be whole is read again.
    dataset.object_store().delete(path).await.expect("delete");
    let refused = dataset.verify("history", files).await;
    assert!(matches!(refused, Err(DatasetError::Missing { .. })));
}
