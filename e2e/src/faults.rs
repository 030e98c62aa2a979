//! Commands that start the binary in a worse world: a wrong clock, a slow or failing disk, little
//! memory. Each ends with the binary's name, as [`World::start_as`](crate::World::start_as) wants it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::node::binary;

/// Returns the node under a limit of the system, as `prlimit` has it: `--nofile=56`.
pub fn limited(limit: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(limit).arg(binary());
    command
}

/// A wall clock that only the node sees, and that can jump while the node runs.
///
/// What is waited for goes by the monotonic clock, as in reality: that one never jumps.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Makes a clock whose setting lies in a folder, or none after saying that the test is skipped.
    ///
    /// # Panics
    /// In CI, when libfaketime isn't there.
    pub fn new(folder: &Path) -> anyhow::Result<Option<Self>> {
        let folders = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
        let libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        let library = libraries.into_iter().find(|library| library.is_file());
        let Some(library) = library.filter(|_| cfg!(target_os = "linux")) else {
            skipped("clocks that jump", "libfaketime");
            return Ok(None);
        };
        let clock = Self { library, file: folder.join("clock") };
        clock.jump("+0d")?;
        Ok(Some(clock))
    }

    /// Sets it that far from the real one, at once: `+365d`, `-1h`.
    pub fn jump(&self, offset: &str) -> anyhow::Result<()> {
        // Replaced as a whole: it is read at every look at the clock.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n"))?;
        std::fs::rename(&new, &self.file).context("set the clock")
    }

    /// Returns a command that runs the node by this clock.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}

/// Returns the node on a disk that treats these calls, `fsync,fdatasync`, as strace's `-e inject=`
/// says, such as `delay_enter=30ms` or `error=EIO:when=9`; or none after saying that the test is skipped.
///
/// # Panics
/// In CI, when strace isn't there or may not trace.
pub fn syncs(calls: &str, inject: &str) -> Option<Command> {
    let trace = |program: &Path| {
        let mut command = Command::new("strace");
        // As a grandchild (-D), so that the child's number is the node's.
        command.args(["-D", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null"]);
        command.arg("-e").arg(format!("trace={calls}"));
        command.arg("-e").arg(format!("inject={calls}:{inject}")).arg(program);
        command
    };
    let tried = trace(Path::new("true")).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if tried.is_ok_and(|status| status.success()) {
        return Some(trace(&binary()));
    }
    skipped("slow and failing disks", "strace");
    None
}

fn skipped(what: &str, needs: &str) {
    assert!(std::env::var_os("CI").is_none(), "there is no {needs} that works; in CI that is a failure");
    eprintln!("SKIPPED: {what} are NOT tested: no {needs} that works (`make test` installs it)");
}
