//! Files of the newest-version table at hand, as blocks of a node.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sanso_block::{BlockStore, Reading};
use sanso_dataset::{Dataset, DatasetError, NewestFile, with_log_columns};
use sanso_state::{Fingerprint, LogPartition, StorageLevel};

const SOURCE: &str = "readings";

fn rows(count: i64) -> RecordBatch {
    let names = (0..count).map(|n| format!("m{n}"));
    let columns: [(&str, ArrayRef); 2] = [
        ("usage_point", Arc::new(StringArray::from_iter_values(names))),
        ("value", Arc::new(Int64Array::from_iter_values(0..count))),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    with_log_columns(&rows, (0..count as u64).collect(), vec![7; count as usize]).expect("two more")
}

async fn put(dataset: &Dataset, date: i32, count: i64) -> NewestFile {
    let made_from = Fingerprint::of(&[date.to_le_bytes(), (count as i32).to_le_bytes()].concat());
    let put = dataset.put_newest(SOURCE, 1, LogPartition(0), Some(date), made_from, rows(count));
    put.await.expect("put")
}

fn kept(level: StorageLevel) -> (Dataset, Arc<InMemory>, BlockStore) {
    let (objects, blocks) = (Arc::new(InMemory::new()), BlockStore::in_memory(64 << 20));
    let dataset = Dataset::with_store(Arc::clone(&objects) as Arc<dyn ObjectStore>, Path::default());
    let dataset = dataset.with_blocks(blocks.clone());
    dataset.keep_table(SOURCE, level.into());
    (dataset, objects, blocks)
}

#[tokio::test]
async fn of_each_part_the_newest_file_is_at_hand() {
    let (dataset, _, blocks) = kept(StorageLevel::Memory);
    let files = [put(&dataset, 1, 10).await, put(&dataset, 2, 10).await, put(&dataset, 1, 20).await];
    let mut found = Vec::new();
    for file in &files {
        let rows = dataset.newest_at_hand(SOURCE, 1, file, Reading::Again).await;
        found.push(rows.map(|(rows, _)| rows.batches()[0].num_rows()));
    }
    assert_eq!(found, [None, Some(10), Some(20)]);
    assert_eq!(blocks.usage().blocks, 2);
}

#[tokio::test]
async fn columns_at_hand_are_those_of_the_file() {
    let (dataset, objects, blocks) = kept(StorageLevel::Memory);
    let file = put(&dataset, 1, 20_000).await;
    let plain = Dataset::with_store(objects, Path::default());
    let mut read = Vec::new();
    for dataset in [&dataset, &plain] {
        let pieces = dataset.read_newest_columns(SOURCE, &file, &[1, 2]).await.expect("read");
        let pieces: Vec<RecordBatch> = pieces.collect::<Result<_, _>>().expect("whole");
        assert!(pieces.iter().all(|piece| piece.num_rows() <= 8192));
        read.push(concat_batches(&pieces[0].schema(), &pieces).expect("of one schema"));
    }
    assert_eq!(read[0], read[1]);
    assert_eq!(read[0].num_rows(), 20_000);
    assert_eq!(blocks.counts().from_memory, 1);
}

#[tokio::test]
async fn what_is_at_hand_hides_no_damage_from_who_reads_the_file() {
    let (dataset, objects, _) = kept(StorageLevel::Memory);
    let file = put(&dataset, 1, 10).await;
    let path = dataset.layout().listed(SOURCE, &file.path);
    objects.put(&path, PutPayload::from_static(b"other bytes")).await.expect("put");
    let read = dataset.read_newest(SOURCE, &file).await;
    assert!(matches!(read, Err(DatasetError::Damaged { .. })));
    assert!(dataset.newest_at_hand(SOURCE, 1, &file, Reading::Again).await.is_some());
}

#[tokio::test]
async fn rows_of_other_content_are_not_taken_for_a_file() {
    let (dataset, ..) = kept(StorageLevel::Memory);
    let file = put(&dataset, 1, 10).await;
    // As if it was made again from damaged segments, and turned out another.
    let put = dataset.put_newest(SOURCE, 1, LogPartition(0), Some(1), file.fingerprint, rows(9));
    let other = put.await.expect("put");
    assert_eq!(other.path, file.path);
    assert!(dataset.newest_at_hand(SOURCE, 1, &file, Reading::Again).await.is_none());
}

#[tokio::test]
async fn a_source_that_keeps_nothing_has_nothing_at_hand() {
    let (dataset, _, blocks) = kept(StorageLevel::None);
    let file = put(&dataset, 1, 10).await;
    assert!(dataset.newest_at_hand(SOURCE, 1, &file, Reading::Again).await.is_none());
    assert!(dataset.newest_at_hand("undeclared", 1, &file, Reading::Again).await.is_none());
    assert_eq!(blocks.usage().blocks, 0);
}
