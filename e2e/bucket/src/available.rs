//! Whether an S3 server can be started here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Says whether a server can be started here; prints why not, naming the test that is skipped.
///
/// # Panics
/// When it can't and the environment has `CI`: there every test must run.
#[allow(clippy::print_stderr, reason = "a test that can't run here says so")]
pub fn available(test: &str) -> bool {
    let python = python();
    let imports = Command::new(&python)
        .args(["-c", "import moto.server"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if imports.is_ok_and(|status| status.success()) {
        return true;
    }
    let reason = format!("no S3 server: {} has no package moto", python.display());
    assert!(std::env::var_os("CI").is_none(), "{test}: {reason}; in CI that is a failure");
    eprintln!("SKIPPED {test}: {reason}; `deploy/setup/install.sh test` installs it");
    false
}

/// Returns the Python that has moto: `SANSO_MOTO_PYTHON`, else where `install.sh` puts it.
pub(crate) fn python() -> PathBuf {
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        cache.or_else(home).unwrap_or_default().join("sanso/moto/bin/python3")
    };
    std::env::var_os("SANSO_MOTO_PYTHON").map_or_else(cache, PathBuf::from)
}
