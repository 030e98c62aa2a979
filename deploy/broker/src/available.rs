//! Whether brokers, and the tools that speak to them, can be started here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Says whether brokers can be started here; prints why not, naming the test that is skipped.
///
/// # Panics
/// When they can't and the environment has `CI`: there every test must run.
#[allow(clippy::print_stderr, reason = "a test that can't run here says so")]
pub fn available(test: &str) -> bool {
    let can = jars().and_then(|_| runs("java", "-version")).and_then(|()| runs("kcat", "-V"));
    let Err(reason) = can else { return true };
    assert!(std::env::var_os("CI").is_none(), "{test}: {reason}; in CI that is a failure");
    eprintln!("SKIPPED {test}: {reason}; `deploy/setup/install.sh kafka` installs what it needs");
    false
}

/// Returns the folder of the brokers' jars: `SANSO_KAFKA_JARS`, else where `install.sh` puts them.
pub(crate) fn jars() -> Result<PathBuf, String> {
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        cache.or_else(home).unwrap_or_default().join("sanso/kafka/lib")
    };
    let folder = std::env::var_os("SANSO_KAFKA_JARS").map_or_else(cache, PathBuf::from);
    let jar = |name: &str| name.starts_with("kafka-server-") && name.ends_with(".jar");
    let listed = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    if listed.map(|entry| entry.file_name()).any(|name| name.to_str().is_some_and(jar)) {
        return Ok(folder);
    }
    Err(format!("no jars of Apache Kafka in {}", folder.display()))
}

fn runs(program: &str, argument: &str) -> Result<(), String> {
    let ran = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if ran.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("no {program}")) }
}
