//! What the embedded log asks of the file system: names, durable creation, positioned I/O.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{LogError, Result};

/// Ends the name of what is being written; never valid in a topic's name.
pub(super) const UNFINISHED: &str = "~";

/// Gives the path of the file whose first offset is `base`.
pub(super) fn file_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Reads the first offset from a file's name.
pub(super) fn file_base(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let legal = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    legal.then(|| digits.parse().ok()).flatten()
}

/// Makes an error from what the system said.
pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> LogError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let path = path.to_owned();
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => LogError::Full { path, source },
        _ => LogError::Io { action, path, source },
    }
}

/// Writes a file so that, whatever happens, it is there whole or not at all.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<File> {
    let mut name = path.file_name().expect("files have names").to_owned();
    name.push(UNFINISHED);
    let unfinished = path.with_file_name(name);
    let attempt = || {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all_at(content, 0)?;
        file.sync_data()?;
        fs::rename(&unfinished, path)?;
        Ok(file)
    };
    let file = attempt().map_err(|e| {
        // Left behind it would do no harm: the next attempt truncates it.
        let _ = fs::remove_file(&unfinished);
        failed("write", path, e)
    })?;
    let dir = path.parent().expect("files are in a directory");
    if let Err(error) = sync_dir(dir) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(|e| failed("sync directory", dir, e))
}

/// Makes a directory, and its name durable.
pub(super) fn create_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create directory", dir, e));
        }
        _ => {}
    }
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Lists the names in a directory, sorted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let list = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    };
    list().map_err(|e| failed("list", dir, e))
}

/// Deletes a file unless it is gone already, and makes that durable.
pub(super) fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("delete", path, e)),
        _ => {}
    }
    sync_dir(path.parent().expect("files are in a directory"))
}
