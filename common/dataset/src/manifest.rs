//! Manifests: what makes a version of a source's dataset.
//!
//! ```text
//!   write segments, newest files ──▶ put manifest k (fails if k exists) ──▶ version k is in force
//!            crash here: k-1 is in force, the files are orphans
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use rand::TryRng;
use rand::rngs::SysRng;
use sanso_state::{Cut, Fingerprint, LogPartition, SegmentId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::dataset::Dataset;
use crate::error::{DatasetError, ROLL_BACK, Result};
use crate::layout::version_of;
use crate::quarantine::QuarantineFile;

/// The format of manifests that this program writes, and the newest that it reads.
///
/// 2: lists the quarantine. A program that knows only 1 would drop it, so it must not go on from here.
const FORMAT: u32 = 2;

/// One version of a source's dataset: everything below a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The source.
    pub source: String,
    /// The number of the version: 1, 2, … without gaps.
    pub version: u64,
    /// For each log partition the offset up to which everything is archived.
    pub cut: Cut,
    /// Offsets in a segment.
    pub segment_size: u64,
    /// The source's columns as `name type`, in order.
    pub columns: Vec<String>,
    /// What else of the source's declaration decides the newest-version table, in words.
    pub rules: String,
    /// For each log partition the largest event time below the cut in microseconds, as the
    /// watermark counts it (`sanso_state::Watermark::max_event_us`).
    pub watermarks: Vec<Option<i64>>,
    /// Rows in the newest-version table.
    pub rows: u64,
    /// The segments archived, in order of log partition and index.
    pub segments: Vec<SegmentFile>,
    /// The files of the newest-version table, in order of log partition and date.
    pub newest: Vec<NewestFile>,
    /// From where on the quarantine is listed; none in manifests of format 1, which list nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_from: Option<Cut>,
    /// The quarantine of the segments that have refused records, in order of log partition and index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<QuarantineFile>,
}

impl Manifest {
    /// Returns what stands for nothing archived. It is never written.
    pub fn beginning(source: &str, partitions: u32, segment_size: u64) -> Self {
        Self {
            source: source.to_owned(),
            version: 0,
            cut: Cut::zero(partitions),
            segment_size,
            columns: Vec::new(),
            rules: String::new(),
            watermarks: vec![None; partitions as usize],
            rows: 0,
            segments: Vec::new(),
            newest: Vec::new(),
            quarantine_from: Some(Cut::zero(partitions)),
            quarantine: Vec::new(),
        }
    }

    /// Returns the fingerprint of all that the manifest says, and so of all files of the version.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(text_of(self).get().as_bytes())
    }
}

/// One archived segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFile {
    /// The segment.
    pub segment: SegmentId,
    /// Rows in the file; fewer than offsets where records were holes or refused.
    pub rows: u64,
    /// The first and the last UTC date of event time, in days since 1970-01-01; none where there are no rows, the
    /// table is not divided by date, or the writer was a program that did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dates: Option<(i32, i32)>,
    /// The file's size.
    pub bytes: u64,
    /// The fingerprint of the file's bytes.
    pub content: Fingerprint,
    /// The file, relative to the source's folder.
    pub path: String,
}

impl SegmentFile {
    /// Says whether rows of a date may be in it.
    pub fn may_hold(&self, date: Option<i32>) -> bool {
        self.dates.zip(date).is_none_or(|((first, last), date)| (first..=last).contains(&date))
    }
}

/// One file of the newest-version table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestFile {
    /// The log partition.
    pub partition: LogPartition,
    /// The UTC date of event time in days since 1970-01-01; none where the table is not divided
    /// by date.
    pub date: Option<i32>,
    /// Rows in the file.
    pub rows: u64,
    /// The file's size.
    pub bytes: u64,
    /// The fingerprint of what the file was made from.
    pub fingerprint: Fingerprint,
    /// The fingerprint of the file's bytes.
    pub content: Fingerprint,
    /// The file, relative to the source's folder.
    pub path: String,
}

/// A JSON document with the checksum of its own text.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: u32,
    checksum: Fingerprint,
    /// Tells a document apart from an equal one that another process wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    once: Option<String>,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

fn text_of(document: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(document).expect("plain structs are always JSON")
}

/// Encodes a document with its checksum. Equal documents give equal bytes.
pub(crate) fn seal(document: &impl Serialize) -> Bytes {
    sealed(document, None)
}

/// Encodes a document like no other time, so that whose document took a place can be told by its bytes.
pub(crate) fn seal_once(document: &impl Serialize) -> Result<Bytes> {
    let once = SysRng.try_next_u64().map_err(|source| DatasetError::Randomness { source })?;
    Ok(sealed(document, Some(format!("{once:016x}"))))
}

fn sealed(document: &impl Serialize, once: Option<String>) -> Bytes {
    let text = text_of(document);
    let checksum = Fingerprint::of(text.get().as_bytes());
    let envelope = Envelope { format: FORMAT, checksum, once, manifest: &text };
    serde_json::to_vec(&envelope).expect("plain structs are always JSON").into()
}

/// Decodes a document and refuses it when its text is not what was written.
pub(crate) fn unseal<T: DeserializeOwned>(path: &Path, bytes: &[u8], remedy: &'static str) -> Result<T> {
    let damaged = |what: &dyn ToString| DatasetError::damaged(path, what.to_string(), remedy);
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
    if envelope.format > FORMAT {
        let (found, known) = (envelope.format, FORMAT);
        return Err(DatasetError::Format { path: path.to_string(), found, known });
    }
    if Fingerprint::of(envelope.manifest.get().as_bytes()) != envelope.checksum {
        return Err(damaged(&"its text does not have the checksum written beside it"));
    }
    serde_json::from_str(envelope.manifest.get()).map_err(|e| damaged(&e))
}

impl Dataset {
    /// Returns one version of a source.
    pub async fn manifest_at(&self, source: &str, version: u64) -> Result<Arc<Manifest>> {
        let path = self.layout().manifest(source, version);
        let bytes = self.get(&path).await?;
        let manifest: Manifest = unseal(&path, &bytes, ROLL_BACK)?;
        if manifest.version != version || manifest.source != source {
            let what = format!("it is version {} of source {}", manifest.version, manifest.source);
            return Err(DatasetError::damaged(path, what, ROLL_BACK));
        }
        Ok(Arc::new(manifest))
    }

    /// Returns the versions of a source that the store lists, oldest first. A listing may lag behind
    /// what was written and deleted; [`Dataset::manifest`] says what is in force.
    pub async fn manifest_versions(&self, source: &str) -> Result<Vec<u64>> {
        let listed = self.list(&self.layout().manifests(source)).await?;
        let mut versions: Vec<u64> = listed.iter().filter_map(|file| version_of(&file.location)).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Returns the object paths of the newest-version table's files at a manifest.
    pub fn newest_files(&self, manifest: &Manifest) -> Vec<Path> {
        let files = manifest.newest.iter();
        files.map(|file| self.layout().listed(&manifest.source, &file.path)).collect()
    }

    /// Returns the object paths of all archived segments at a manifest.
    pub fn segment_files(&self, manifest: &Manifest) -> Vec<Path> {
        let files = manifest.segments.iter();
        files.map(|file| self.layout().listed(&manifest.source, &file.path)).collect()
    }

    /// Returns the object paths of the quarantine's files at a manifest.
    pub fn quarantine_files(&self, manifest: &Manifest) -> Vec<Path> {
        let files = manifest.quarantine.iter();
        files.map(|file| self.layout().listed(&manifest.source, &file.path)).collect()
    }

    /// Deletes all but the `keep` newest manifests of a source, and the files of the newest-version
    /// table that none of those kept lists: replaced ones, and orphans of a crash. Returns how many
    /// files it deleted. A listing that lags leaves files to the next time.
    ///
    /// What is younger than the newest manifest stays: another process may be about to commit it.
    /// Segments and their quarantine stay always: an orphan is what the next version writes again, and
    /// nobody else may have them.
    pub async fn remove_unreferenced(&self, source: &str, keep: usize) -> Result<u64> {
        let Some(newest) = self.manifest(source).await? else { return Ok(0) };
        let first = (newest.version + 1).saturating_sub(keep.max(1) as u64);
        let mut listed: BTreeSet<Path> = self.newest_files(&newest).into_iter().collect();
        for version in first..newest.version {
            if let Some(manifest) = self.manifest_if_any(source, version).await? {
                listed.extend(self.newest_files(&manifest));
            }
        }
        let mut deleted = 0;
        for version in self.manifest_versions(source).await? {
            if version < first {
                self.delete(&self.layout().manifest(source, version)).await?;
                deleted += 1;
            }
        }
        let committed = self.last_modified(&self.layout().manifest(source, newest.version)).await?;
        for file in self.list(&self.layout().source(source).join("newest")).await? {
            if !listed.contains(&file.location) && file.last_modified < committed {
                self.delete(&file.location).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}
