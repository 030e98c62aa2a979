//! The dataset's handle: an object store and a layout, and how bytes get in and out.
//!
//! All reading and writing of whole files goes through here, so that fingerprints are
//! checked, local files are on disk, and errors name the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path as DiskPath, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use sanso_state::Fingerprint;

use crate::error::{DatasetError, RESTORE, Result};
use crate::kept::Kept;
use crate::layout::Layout;

/// A dataset in an object store. Clones share it.
#[derive(Clone)]
pub struct Dataset {
    store: Arc<dyn ObjectStore>,
    layout: Arc<Layout>,
    disk: Option<Arc<Disk>>,
    /// Files found whole by [`Dataset::verify`], by what they were listed for.
    verified: Arc<Mutex<BTreeMap<String, BTreeSet<Path>>>>,
    /// What of it is at hand on this node.
    pub(crate) kept: Option<Arc<Kept>>,
}

/// Files that are verified at the same time; each is in memory whole.
const VERIFIED_AT_ONCE: usize = 2;

/// A local directory, and which folders in it are known to be on disk themselves.
struct Disk {
    root: PathBuf,
    folders: Mutex<BTreeSet<PathBuf>>,
}

impl Disk {
    /// Brings a file to disk, its name, and the names of the folders that lead to it.
    fn sync(&self, file: &DiskPath) -> std::io::Result<()> {
        File::open(file)?.sync_all()?;
        for folder in file.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root)) {
            File::open(folder)?.sync_all()?;
            // A folder that was brought to disk before has its own name on disk, and so have those above.
            let known = !self.folders.lock().expect("no panic while it is held").insert(folder.to_owned());
            if known {
                break;
            }
        }
        Ok(())
    }
}

impl Dataset {
    /// Opens (or creates) a dataset in a local directory. Files are synchronised to disk.
    pub fn open_local(directory: &DiskPath) -> Result<Dataset> {
        let disk =
            |action, source| DatasetError::Disk { action, path: directory.display().to_string(), source };
        std::fs::create_dir_all(directory).map_err(|e| disk("create", e))?;
        let root = directory.canonicalize().map_err(|e| disk("resolve", e))?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| DatasetError::store("open", directory.display(), e))?;
        Ok(Dataset {
            store: Arc::new(store),
            layout: Arc::new(Layout::new(Path::default())),
            disk: Some(Arc::new(Disk { root, folders: Mutex::default() })),
            verified: Arc::default(),
            kept: None,
        })
    }

    /// Creates an empty dataset in memory.
    pub fn in_memory() -> Dataset {
        Self::with_store(Arc::new(InMemory::new()), Path::default())
    }

    /// Opens a dataset below `prefix` in any object store; the store says how durable a put is.
    pub fn with_store(store: Arc<dyn ObjectStore>, prefix: Path) -> Dataset {
        Dataset {
            store,
            layout: Arc::new(Layout::new(prefix)),
            disk: None,
            verified: Arc::default(),
            kept: None,
        }
    }

    /// Returns the object store, for engines that read the Parquet files themselves.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Returns the paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes a file, replacing what is there.
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<()> {
        self.put_with(path, bytes, PutMode::Overwrite)
            .await
            .map_err(|e| DatasetError::store("write", path, e))?;
        self.sync(path).await
    }

    /// Writes a file unless there is one; says whether it was written.
    ///
    /// A store may have written it, lost the answer, and refuse the repeat: so a file that is there
    /// with exactly these bytes was written.
    pub(crate) async fn put_new(&self, path: &Path, bytes: Bytes) -> Result<bool> {
        match self.put_with(path, bytes.clone(), PutMode::Create).await {
            Ok(()) => self.sync(path).await.map(|()| true),
            Err(object_store::Error::AlreadyExists { .. }) => match self.get(path).await {
                Ok(found) => Ok(found == bytes),
                // It went meanwhile; whose it was nobody can tell.
                Err(DatasetError::Missing { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            Err(error) => Err(DatasetError::store("write", path, error)),
        }
    }

    /// Writes a file in a given mode, without bringing it to disk.
    pub(crate) async fn put_with(
        &self,
        path: &Path,
        bytes: Bytes,
        mode: PutMode,
    ) -> object_store::Result<()> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.store.put_opts(path, PutPayload::from_bytes(bytes), options).await.map(|_| ())
    }

    /// Brings a local file and the names that lead to it to disk: the log may be trimmed on the
    /// strength of it.
    async fn sync(&self, path: &Path) -> Result<()> {
        let Some(disk) = self.disk.clone() else { return Ok(()) };
        let file = disk.root.join(path.as_ref());
        let synced = tokio::task::spawn_blocking(move || disk.sync(&file));
        let outcome = synced.await.unwrap_or_else(|join| Err(std::io::Error::other(join)));
        outcome.map_err(|source| DatasetError::Disk { action: "synchronise", path: path.to_string(), source })
    }

    /// Reads a whole file.
    pub(crate) async fn get(&self, path: &Path) -> Result<Bytes> {
        self.get_tagged(path).await.map(|(bytes, _)| bytes)
    }

    /// Reads a whole file, and what identifies it for a conditional write.
    pub(crate) async fn get_tagged(&self, path: &Path) -> Result<(Bytes, UpdateVersion)> {
        let read = async {
            let found = self.store.get(path).await?;
            let (e_tag, version) = (found.meta.e_tag.clone(), found.meta.version.clone());
            Ok((found.bytes().await?, UpdateVersion { e_tag, version }))
        };
        read.await.map_err(|error| read_error(path, error))
    }

    /// Returns when the store last wrote a file, by the store's clock.
    pub(crate) async fn last_modified(&self, path: &Path) -> Result<DateTime<Utc>> {
        let head = self.store.head(path).await.map_err(|error| read_error(path, error))?;
        Ok(head.last_modified)
    }

    /// Reads a whole file and refuses it unless its bytes have this fingerprint.
    pub(crate) async fn get_checked(
        &self,
        path: &Path,
        fingerprint: Fingerprint,
        remedy: &'static str,
    ) -> Result<Bytes> {
        let bytes = self.get(path).await?;
        let found = Fingerprint::of(&bytes);
        if found != fingerprint {
            let what = format!(
                "its {} bytes have the checksum {}, those written had {}",
                bytes.len(),
                found.short(),
                fingerprint.short()
            );
            return Err(DatasetError::damaged(path, what, remedy));
        }
        Ok(bytes)
    }

    /// Refuses damaged files, for those who let an engine read them by itself: Parquet alone does
    /// not notice a bit that is another. `list` names what the files are listed for; each file of a
    /// list is read once in the life of the process, or again after a list without it.
    pub async fn verify(&self, list: &str, files: Vec<(Path, Fingerprint)>) -> Result<()> {
        let known = || self.verified.lock().expect("no panic while it is held");
        let before = known().get(list).cloned().unwrap_or_default();
        let paths: BTreeSet<Path> = files.iter().map(|(path, _)| path.clone()).collect();
        let unknown = files.into_iter().filter(|(path, _)| !before.contains(path));
        let reads = unknown
            .map(|(path, content)| async move { self.get_checked(&path, content, RESTORE).await.map(drop) });
        stream::iter(reads).buffer_unordered(VERIFIED_AT_ONCE).try_collect::<()>().await?;
        known().insert(list.to_owned(), paths);
        Ok(())
    }

    /// Lists the files below a folder, in no order.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.list(Some(folder)).try_collect().await;
        listed.map_err(|e| DatasetError::store("list", folder, e))
    }

    /// Deletes a file; one that is not there is no error.
    pub(crate) async fn delete(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(DatasetError::store("delete", path, error)),
        }
    }
}

/// A file that is not there is one thing, a whole bucket that is not there another: taken for missing
/// files it would look like a dataset that is still empty.
fn read_error(path: &Path, error: object_store::Error) -> DatasetError {
    match error {
        object_store::Error::NotFound { ref source, .. } if !is_bucket_missing(source.as_ref()) => {
            DatasetError::Missing { path: path.to_string() }
        }
        error => DatasetError::store("read", path, error),
    }
}

/// Says whether an S3 server answered that the bucket is not there.
pub(crate) fn is_bucket_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    says(error, "NoSuchBucket")
}

/// Says whether an error or a cause of it has this text: the only trace of a server's own code.
pub(crate) fn says(error: &(dyn std::error::Error + 'static), text: &str) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.to_string().contains(text))
}

/// Runs Parquet work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the runtime shuts down while a file is being coded"),
        },
    }
}
