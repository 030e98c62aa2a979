//! What can be wrong around a node: a disk of its own that is full, a clock of its own that jumps.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// More than a node of a drill writes.
const DISK_MB: u32 = 256;
const FILLER: &str = "filler";

/// A small file system in memory, mounted on a folder. Unmounted when dropped.
#[derive(Debug)]
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; that needs privileges.
    pub(super) fn mount(folder: &Path) -> anyhow::Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_MB}m"), "tmpfs"]).arg(folder);
        let output = mount.stdin(Stdio::null()).output().context("run mount")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a small disk can't be mounted here: {said}");
        Ok(Self(folder.to_owned()))
    }

    /// Leaves no byte free.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        let mut file = std::fs::File::create(self.0.join(FILLER)).context("fill a disk")?;
        for block in [1 << 20, 1 << 12, 1] {
            let zeros = vec![0; block];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("fill a disk"),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.0.join(FILLER)).context("empty a disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still writes there is being killed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A wall clock that only one process sees. The monotonic clock goes on, as in reality.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Makes one that is set by a file.
    pub(super) fn new(file: PathBuf) -> anyhow::Result<Self> {
        let folders = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|library| library.is_file());
        let library = library.context("no libfaketime (deploy/setup/install.sh drill installs it)")?;
        let clock = Self { library, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it that many seconds ahead of the real one, at once.
    pub(super) fn set(&self, ahead_s: u32) -> anyhow::Result<()> {
        // Replaced as a whole: it is read at every look at the clock.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("+{ahead_s}s\n")).context("set a clock")?;
        std::fs::rename(&new, &self.file).context("set a clock")
    }

    /// Makes a command run by it.
    pub(super) fn govern(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}
