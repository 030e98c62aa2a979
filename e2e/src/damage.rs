//! Damage to files under `--data`, as disks and people cause it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::random::Random;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// One bit is another.
    FlippedBit,
    /// It ends early.
    Truncated,
    /// It has no bytes.
    Emptied,
    /// Up to 512 bytes are zero.
    Zeroed,
    /// It is gone.
    Deleted,
}

impl Damage {
    /// All kinds.
    pub const ALL: [Damage; 5] =
        [Self::FlippedBit, Self::Truncated, Self::Emptied, Self::Zeroed, Self::Deleted];

    /// Does it to a file. Says where; `None` when the file is as it was.
    pub fn inflict(self, path: &Path, random: &mut Random) -> anyhow::Result<Option<u64>> {
        let mut bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let before = bytes.clone();
        let at = if bytes.is_empty() { 0 } else { random.below(bytes.len() as u64) as usize };
        match self {
            Self::Deleted => fs::remove_file(path)?,
            Self::FlippedBit if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            Self::Truncated => bytes.truncate(at),
            Self::Emptied => bytes.clear(),
            Self::Zeroed => {
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
            }
            Self::FlippedBit => {}
        }
        if self != Self::Deleted {
            fs::write(path, &bytes)?;
        }
        Ok((self == Self::Deleted || bytes != before).then_some(at as u64))
    }
}

/// Every kind of file that a node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A file of the log that is no longer written to.
    LogComplete,
    /// The file of the log that is written to.
    LogNewest,
    /// A topic's description.
    LogTopic,
    /// The pointer to a source's newest manifest.
    ManifestPointer,
    /// The newest manifest of a source.
    ManifestNewest,
    /// An older manifest.
    ManifestOlder,
    /// An archived segment.
    Segment,
    /// A file of the newest-version table.
    NewestTable,
    /// A view's groups.
    ViewBlock,
    /// A published view version.
    ViewVersion,
    /// A store of the index of newest versions, of emissions, of the quarantine, or of the groups of views: which, and
    /// what kind of file of it.
    Rocks(&'static str, &'static str),
}

/// Returns the kind of a file by its place below the data folder; none for what has no content.
fn kind_of(relative: &str) -> Option<FileKind> {
    let name = relative.rsplit('/').next().unwrap_or_default();
    let stores = [
        ("speed/index", "index"),
        ("speed/emitted", "emitted"),
        ("speed/quarantine", "quarantine"),
        ("sanso-views", "views"),
    ];
    if let Some((_, store)) = stores.into_iter().find(|(folder, _)| relative.starts_with(folder)) {
        let part = match name {
            "CURRENT" => "CURRENT",
            "IDENTITY" => "IDENTITY",
            _ if name.starts_with("MANIFEST") => "MANIFEST",
            _ if name.starts_with("OPTIONS") => "OPTIONS",
            _ if name.ends_with(".sst") => "table",
            _ if name.ends_with(".log") => "write-ahead log",
            _ => return None,
        };
        return Some(FileKind::Rocks(store, part));
    }
    match () {
        () if name == "topic.json" => Some(FileKind::LogTopic),
        () if relative.starts_with("log/") && name.ends_with(".log") => Some(FileKind::LogNewest),
        () if name == "in_force.json" => Some(FileKind::ManifestPointer),
        () if relative.contains("/manifests/") => Some(FileKind::ManifestNewest),
        () if relative.contains("/segments/") => Some(FileKind::Segment),
        () if relative.contains("/newest/") => Some(FileKind::NewestTable),
        () if relative.contains("/blocks/") => Some(FileKind::ViewBlock),
        () if relative.contains("/versions/") => Some(FileKind::ViewVersion),
        () => None,
    }
}

/// Lists the files below a data folder with their kinds, in order of path.
pub fn files_of(data: &Path) -> anyhow::Result<Vec<(FileKind, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(data)?.to_string_lossy().into_owned();
            found.extend(kind_of(&relative).map(|kind| (kind, path)));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    // Of log files and manifests of one folder the last is the newest.
    for at in 1..found.len() {
        let same_folder = found[at].1.parent() == found[at - 1].1.parent();
        match found[at - 1].0 {
            FileKind::LogNewest if same_folder => found[at - 1].0 = FileKind::LogComplete,
            FileKind::ManifestNewest if same_folder => found[at - 1].0 = FileKind::ManifestOlder,
            _ => {}
        }
    }
    Ok(found)
}

/// Cuts off what every file of groups of views below a data folder holds, as a node that runs has them. Returns how many
/// there were.
pub fn cut_off_groups(data: &Path) -> anyhow::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(data.join("sanso-views"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            fs::OpenOptions::new().write(true).open(&path)?.set_len(0)?;
            files += 1;
        }
    }
    Ok(files)
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file has a name")?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
