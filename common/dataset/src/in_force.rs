//! Which version of a source is in force, and how the next one becomes it. No listing decides it.
//!
//! ```text
//!   put manifest k (fails if k exists) ─▶ in_force.json says k ─▶ what only older versions list may go
//!         crash here: a reader that is pointed to k-1 looks for k and finds it
//! ```
//!
//! `in_force.json` points to a version that was in force; those after it are asked for one by one, so
//! the pointer may lag, but never as far as the first manifest that was removed. It only ever moves
//! forward (compare and swap where the store can), and so a process that slept while another made
//! versions and removed old manifests can't bring an old number into force: its manifest k is created,
//! since k is gone, but the pointer is beyond k, and the manifest is taken back.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{DatasetError, Result};
use crate::manifest::{Manifest, seal, seal_once, unseal};

/// How often a read or a swap starts again because another process was faster.
const ATTEMPTS: usize = 4;

/// What `in_force.json` says.
#[derive(Serialize, Deserialize)]
struct InForce {
    source: String,
    version: u64,
}

/// What was found in its place.
#[derive(PartialEq)]
struct Pointer {
    /// None where it is not there, or damaged: then a listing has to do, and the next commit mends it.
    version: Option<u64>,
    /// The object that was read; none where there is none.
    tag: Option<UpdateVersion>,
}

impl Dataset {
    /// Returns the newest version of a source; none when nothing is committed yet. A damaged newest
    /// manifest is an error, not a silent step back; one that was deleted by hand is a step back.
    pub async fn manifest(&self, source: &str) -> Result<Option<Arc<Manifest>>> {
        let mut pointer = self.pointer(source).await?;
        for _ in 0..ATTEMPTS {
            let Some(version) = pointer.version else { break };
            if let Some(pointed) = self.manifest_if_any(source, version).await? {
                return self.follow(source, Some(pointed)).await;
            }
            // Either versions came and this one went meanwhile, or a person took it back.
            let again = self.pointer(source).await?;
            if again == pointer {
                break;
            }
            pointer = again;
        }
        let listed = self.newest_listed(source).await?;
        self.follow(source, listed).await
    }

    /// Makes a version in one step. Refused with [`DatasetError::VersionTaken`] when it exists, or
    /// when a later one was made meanwhile.
    ///
    /// All files it lists must have been written before. After an error the version may exist
    /// nevertheless: [`Dataset::manifest`] knows.
    pub async fn commit(&self, manifest: &Manifest) -> Result<()> {
        let (source, version) = (&manifest.source, manifest.version);
        let path = self.layout().manifest(source, version);
        if !self.put_new(&path, seal_once(manifest)?).await? {
            return Err(taken(source, version));
        }
        for _ in 0..ATTEMPTS {
            let pointer = self.pointer(source).await?;
            if self.is_overtaken(source, version, &pointer).await? {
                self.delete(&path).await?;
                return Err(taken(source, version));
            }
            if pointer.version == Some(version) || self.point(source, version, pointer.tag).await? {
                return Ok(());
            }
        }
        Err(taken(source, version))
    }

    async fn is_overtaken(&self, source: &str, version: u64, pointer: &Pointer) -> Result<bool> {
        let Some(later) = pointer.version.filter(|&pointed| pointed > version) else { return Ok(false) };
        // A pointer to what a person took back overtakes nothing.
        Ok(self.manifest_if_any(source, later).await?.is_some())
    }

    /// Points to a version, if the pointer is still what was read; says whether it was.
    async fn point(&self, source: &str, version: u64, tag: Option<UpdateVersion>) -> Result<bool> {
        let path = self.layout().in_force(source);
        let bytes = seal(&InForce { source: source.to_owned(), version });
        let Some(tag) = tag else { return self.put_new(&path, bytes).await };
        match self.put_with(&path, bytes.clone(), PutMode::Update(tag)).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::Precondition { .. }) => Ok(false),
            // A local folder can't, and has one process: the log beside it is locked.
            Err(object_store::Error::NotImplemented { .. }) => self.put(&path, bytes).await.map(|()| true),
            Err(error) => Err(DatasetError::store("write", path, error)),
        }
    }

    async fn pointer(&self, source: &str) -> Result<Pointer> {
        let path = self.layout().in_force(source);
        let (bytes, tag) = match self.get_tagged(&path).await {
            Ok(read) => read,
            Err(DatasetError::Missing { .. }) => return Ok(Pointer { version: None, tag: None }),
            Err(error) => return Err(error),
        };
        let version = self.pointed_to(source, &path, &bytes)?;
        Ok(Pointer { version, tag: Some(tag) })
    }

    fn pointed_to(&self, source: &str, path: &Path, bytes: &[u8]) -> Result<Option<u64>> {
        let remedy = "the next version writes it anew";
        match unseal::<InForce>(path, bytes, remedy) {
            Ok(read) if read.source == source => Ok(Some(read.version)),
            Ok(_) => Ok(None),
            Err(error @ DatasetError::Damaged { .. }) => {
                tracing::warn!(%error, "the versions are found by listing them");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the versions after one until there is none.
    async fn follow(&self, source: &str, from: Option<Arc<Manifest>>) -> Result<Option<Arc<Manifest>>> {
        let mut newest = from;
        loop {
            let next = newest.as_ref().map_or(1, |manifest| manifest.version + 1);
            match self.manifest_if_any(source, next).await? {
                Some(manifest) => newest = Some(manifest),
                None => return Ok(newest),
            }
        }
    }

    /// For a pointer that is lost, or points to what a person took back.
    async fn newest_listed(&self, source: &str) -> Result<Option<Arc<Manifest>>> {
        for version in self.manifest_versions(source).await?.into_iter().rev() {
            if let Some(manifest) = self.manifest_if_any(source, version).await? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// Returns one version of a source, if it is there.
    pub async fn manifest_if_any(&self, source: &str, version: u64) -> Result<Option<Arc<Manifest>>> {
        match self.manifest_at(source, version).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(DatasetError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn taken(source: &str, version: u64) -> DatasetError {
    DatasetError::VersionTaken { source_name: source.to_owned(), version }
}
