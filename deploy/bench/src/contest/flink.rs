//! Apache Flink on the same tuples, in a Java process of its own: state on its heap, no checkpoints.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{Contender, Outcome, Work};

const PROGRAM: &str = include_str!("Flink.java");
/// Flink on Java 17 wants these; its own scripts open them too.
const OPENED: [&str; 2] =
    ["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"];

/// Returns the folder of Flink's jars, which `make bench-peers` installs; none where they are not there.
fn jars() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("SANSO_FLINK_JARS")?);
    let mut files = folder.read_dir().ok()?.filter_map(Result::ok);
    files.any(|file| file.file_name().to_string_lossy().starts_with("flink-dist")).then_some(folder)
}

/// Says why Flink can't take part here; nothing when it can.
pub(crate) fn absent() -> Option<String> {
    if jars().is_none() {
        return Some("SANSO_FLINK_JARS names no folder of Flink's jars".to_owned());
    }
    let found = Command::new("javac").arg("-version").output();
    (!found.is_ok_and(|output| output.status.success())).then(|| "there is no javac".to_owned())
}

/// Runs it in this many parallel instances of each step.
pub(super) fn run(contender: Contender, work: &Work) -> anyhow::Result<Outcome> {
    let class_path = format!("{}/*", jars().context("SANSO_FLINK_JARS")?.display());
    let folder = tempfile::tempdir()?;
    compile(folder.path(), &class_path)?;
    let mode = if contender == Contender::FlinkSql { "sql" } else { "plain" };
    let output = Command::new("java")
        .args(OPENED)
        .args(["-cp", &format!("{class_path}:{}", folder.path().display()), "Flink", mode])
        .args([work.tuples, work.keys.into(), work.hot_percent, work.threads as u64].map(|n| n.to_string()))
        .output()
        .context("start Java")?;
    ensure!(output.status.success(), "Flink: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("read Flink's result")
}

fn compile(folder: &Path, class_path: &str) -> anyhow::Result<()> {
    let program = folder.join("Flink.java");
    std::fs::write(&program, PROGRAM)?;
    let output = Command::new("javac").args(["-cp", class_path, "-d"]).arg(folder).arg(program).output()?;
    ensure!(output.status.success(), "javac: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
