//! A spill directory: files of blocks, named by block and serial number.
//!
//! ```text
//!   DIR/sanso-blocks/lock                       held while the store lives
//!                    {fingerprint}-{serial}.block
//!                    {fingerprint}-{serial}.part    being written; removed at the start
//! ```
//!
//! Nothing else in the directory is touched.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use sanso_state::Fingerprint;

use crate::BlockId;
use crate::error::BlockError;
use crate::ledger::FilePlace;

const NAME: &str = "sanso-blocks";
const WHOLE: &str = "block";
const PART: &str = "part";

/// One spill directory, ours while this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Whether the last write failed, so that a full disk is told once.
    is_failing: AtomicBool,
    _lock: File,
}

/// A file of an earlier life.
pub(crate) struct Earlier {
    pub(crate) id: BlockId,
    pub(crate) serial: u64,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl Folder {
    /// Opens, or makes, the folder in a spill directory; returns the whole files of earlier lives.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<Earlier>), BlockError> {
        let path = directory.join(NAME);
        let failed = |action| {
            let path = directory.display().to_string();
            move |source| BlockError::Folder { action, path, source }
        };
        fs::create_dir_all(&path).map_err(failed("create"))?;
        let lock = File::create(path.join("lock")).map_err(failed("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BlockError::InUse { path: directory.display().to_string() });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
        }
        let earlier = scan(&path).map_err(failed("list"))?;
        Ok((Self { path, is_failing: AtomicBool::new(false), _lock: lock }, earlier))
    }

    /// Writes a file under its name, in one step. Not synchronised: a torn one is noticed by its checksum.
    pub(crate) fn write(&self, id: BlockId, file: FilePlace, bytes: &[u8]) -> io::Result<()> {
        let part = self.named(id, file.serial, PART);
        let write = || {
            File::create(&part)?.write_all(bytes)?;
            fs::rename(&part, self.named(id, file.serial, WHOLE))
        };
        write().inspect_err(|_| drop(fs::remove_file(&part)))
    }

    /// Reads a file; never more than it is to have.
    pub(crate) fn read(&self, id: BlockId, file: FilePlace) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(file.bytes as usize);
        File::open(self.named(id, file.serial, WHOLE))?.take(file.bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Deletes a file; one that is not there is no matter.
    pub(crate) fn delete(&self, id: BlockId, file: FilePlace) {
        let path = self.named(id, file.serial, WHOLE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a block's file can't be deleted");
            }
            _ => {}
        }
    }

    /// Tells whether a write went well; a failure is told once, until one goes well again.
    pub(crate) fn tell(&self, outcome: &io::Result<()>) {
        let failed = outcome.is_err();
        let before = self.is_failing.swap(failed, Ordering::Relaxed);
        let path = self.path.display();
        match outcome {
            Err(error) if !before => {
                tracing::warn!(%path, %error, "blocks are not kept in this spill directory until it takes them");
            }
            Ok(()) if before => tracing::info!(%path, "the spill directory takes blocks again"),
            _ => {}
        }
    }

    /// Returns the path of a file, for people.
    pub(crate) fn shown(&self, id: BlockId, file: FilePlace) -> String {
        self.named(id, file.serial, WHOLE).display().to_string()
    }

    fn named(&self, id: BlockId, serial: u64, extension: &str) -> PathBuf {
        self.path.join(format!("{}-{serial}.{extension}", id.0))
    }
}

/// Lists the files of earlier lives, and removes those that were not finished.
fn scan(path: &Path) -> io::Result<Vec<Earlier>> {
    let mut earlier = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((id, serial, extension)) = name.to_str().and_then(parse) else { continue };
        if extension == PART {
            fs::remove_file(entry.path())?;
            continue;
        }
        let metadata = entry.metadata()?;
        earlier.push(Earlier { id, serial, bytes: metadata.len(), modified: metadata.modified()? });
    }
    Ok(earlier)
}

fn parse(name: &str) -> Option<(BlockId, u64, &str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (id, serial) = stem.split_once('-')?;
    let id = BlockId(id.parse::<Fingerprint>().ok()?);
    let is_ours = [WHOLE, PART].contains(&extension);
    is_ours.then_some((id, serial.parse().ok()?, extension))
}
