//! Documents of the master dataset: what is read can be written and reads back as the same, and a
//! pointer to the version in force, whatever it says, hides no version.

use std::sync::{Arc, LazyLock};

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use sanso_dataset::{Dataset, DatasetError, Manifest, ViewId};
use sanso_state::{AggregateFunction, AggregateKind, Fingerprint};
use tokio::runtime::{Builder, Runtime};

const SOURCE: &str = "s";
const VIEW: &str = "v";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("start a runtime"));

/// A document. The first byte's lowest bit says whether it is put into an envelope with the right
/// checksum, so that the fuzzer gets past that; the next two say which document it is.
pub(crate) fn document(bytes: &[u8]) {
    is_read(bytes);
}

/// Does what [`document`] says; says whether the document could be read.
fn is_read(bytes: &[u8]) -> bool {
    let Some((choice, text)) = bytes.split_first() else { return false };
    let document = if choice & 1 == 1 { sealed(text) } else { text.to_vec() };
    RUNTIME.block_on(async {
        match choice >> 1 & 3 {
            0 => manifest(document).await,
            1 => pointer(document).await,
            2 => published(document).await,
            _ => replay(document).await,
        }
    })
}

/// Puts a document into an envelope, as the dataset does.
fn sealed(document: &[u8]) -> Vec<u8> {
    let text = document.trim_ascii();
    let checksum = Fingerprint::of(text);
    let mut envelope = format!(r#"{{"format":2,"checksum":"{checksum}","manifest":"#).into_bytes();
    envelope.extend_from_slice(text);
    envelope.push(b'}');
    envelope
}

/// A dataset, and its files.
fn dataset() -> (Arc<InMemory>, Dataset) {
    let store = Arc::new(InMemory::new());
    (Arc::clone(&store), Dataset::with_store(store, Path::default()))
}

async fn put(store: &InMemory, path: &Path, bytes: Vec<u8>) {
    store.put(path, PutPayload::from(bytes)).await.expect("memory takes it");
}

async fn manifest(document: Vec<u8>) -> bool {
    let (store, dataset) = dataset();
    put(&store, &dataset.layout().manifest(SOURCE, 1), document).await;
    let Ok(Some(manifest)) = dataset.manifest(SOURCE).await else { return false };
    assert_eq!((manifest.source.as_str(), manifest.version), (SOURCE, 1));
    let copy = Dataset::in_memory();
    copy.commit(&manifest).await.expect("what is read can be written");
    let again = copy.manifest(SOURCE).await.expect("read it").expect("it is there");
    assert_eq!(again, manifest);
    assert_eq!(again.fingerprint(), manifest.fingerprint());
    manifest.division();
    let files = [dataset.newest_files(&manifest), dataset.segment_files(&manifest)];
    let root = dataset.layout().source(SOURCE);
    assert!(files.iter().flatten().all(|file| file.prefix_matches(&root)), "all are the source's own");
    true
}

async fn pointer(document: Vec<u8>) -> bool {
    let (store, dataset) = dataset();
    for version in 1..=2 {
        dataset.commit(&empty(version)).await.expect("it is the next one");
    }
    put(&store, &dataset.layout().in_force(SOURCE), document).await;
    match dataset.manifest(SOURCE).await {
        Ok(found) => assert_eq!(found.expect("two were committed").version, 2),
        // Of a newer program.
        Err(DatasetError::Format { .. }) => return false,
        Err(error) => panic!("{error}"),
    }
    dataset.commit(&empty(3)).await.expect("it is the next one");
    assert_eq!(dataset.manifest(SOURCE).await.expect("it is mended").expect("three").version, 3);
    true
}

fn empty(version: u64) -> Manifest {
    Manifest { version, ..Manifest::beginning(SOURCE, 1, 4) }
}

async fn published(document: Vec<u8>) -> bool {
    let kinds = [AggregateKind::typed(AggregateFunction::CountRows, None).expect("it is defined")];
    let kinds: Arc<[AggregateKind]> = Arc::new(kinds);
    let fingerprint = Fingerprint::from_bytes([0; 32]);
    let view = ViewId { source: SOURCE, name: VIEW, fingerprint, kinds: &kinds };
    let (store, dataset) = dataset();
    put(&store, &dataset.layout().published_version(SOURCE, VIEW, fingerprint, 1), document).await;
    let Ok(published) = dataset.published(view, 1).await else { return false };
    let copy = Dataset::in_memory();
    copy.publish(&published).await.expect("what is read can be written");
    if (published.source.as_str(), published.view.as_str()) == (SOURCE, VIEW) {
        assert_eq!(copy.published(view, 1).await.expect("it is there"), published);
    }
    for index in (0..).take(published.blocks.len()) {
        dataset.read_block(view, &published, index).await.expect_err("there are no blocks");
    }
    true
}

async fn replay(document: Vec<u8>) -> bool {
    let (store, dataset) = dataset();
    put(&store, &dataset.layout().replay(SOURCE, 1, false), document.clone()).await;
    let Ok(replays) = dataset.replays(SOURCE, 0).await else { return false };
    let (plan, done) = replays.first().expect("one was planned");
    assert!(done.is_none());
    let copy = Dataset::in_memory();
    assert!(copy.plan_replay(SOURCE, plan).await.expect("what is read can be written"));
    if plan.number == 1 {
        assert_eq!(copy.replays(SOURCE, 0).await.expect("it is there")[0].0, *plan);
    }
    put(&store, &dataset.layout().replay(SOURCE, 1, true), document).await;
    // As the record of where it went, too: it may lack the offsets, and is then refused.
    let _ = dataset.replays(SOURCE, 0).await;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_begins_with_documents_that_are_read() {
        for (name, bytes) in crate::seeds("document") {
            assert_eq!(is_read(&bytes), name != "pointer_newer", "{name}");
        }
    }
}
