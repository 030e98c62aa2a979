//! The process of one broker, and the guardian that outlives the test to end it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};

use anyhow::{Context, bail, ensure};

/// What a broker says once it serves.
const STARTED: &str = "Kafka Server started";

/// Java as brokers and their tools need it: small, quick to start.
fn java(jars: &Path) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xms96m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    java.arg("-cp").arg(format!("{}/*", jars.display()));
    java.stdin(Stdio::null()).stdout(Stdio::piped());
    java
}

/// Prepares a broker's data folder, with a user for SCRAM.
pub(crate) fn format(jars: &Path, cluster: &str, properties: &Path, scram: &str) -> anyhow::Result<Child> {
    let mut tool = java(jars);
    tool.args(["kafka.tools.StorageTool", "format", "-t", cluster, "-S", scram, "-c"]).arg(properties);
    tool.stderr(Stdio::piped()).spawn().context("start java to format a broker's folder")
}

/// A started broker. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    guardian: Child,
    /// In a lock so that a cluster may be kept in a static.
    started: Mutex<mpsc::Receiver<()>>,
    log: PathBuf,
}

impl Broker {
    /// Starts the process; [`Broker::ready`] waits until it serves. `folder` is removed by the
    /// guardian when the test dies.
    pub(crate) fn start(jars: &Path, folder: &Path, node: usize) -> anyhow::Result<Self> {
        let log = folder.join(format!("broker-{node}.log"));
        let mut copy = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let logging = format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display());
        let mut child = java(jars)
            .args([&logging, "kafka.Kafka"])
            .arg(folder.join(format!("broker-{node}.properties")))
            .stderr(copy.try_clone()?)
            .spawn()
            .context("start java")?;
        let guardian = guardian(child.id(), folder)?;
        let output = child.stdout.take().context("read the broker's log")?;
        let (serves, started) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The log is for people; a full disk must not block the broker.
                let _ = writeln!(copy, "{line}");
                if line.contains(STARTED) {
                    let _ = serves.send(());
                }
            }
        });
        Ok(Self { child, guardian, started: Mutex::new(started), log })
    }

    /// Waits until the broker serves.
    pub(crate) fn ready(&mut self) -> anyhow::Result<()> {
        let started = self.started.get_mut().expect("nobody panics with it");
        if started.recv().is_ok() {
            return Ok(());
        }
        let status = self.child.wait()?;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("the broker ended before it served ({status}):\n{}", tail.join("\n"))
    }

    /// Stops the broker in order (SIGTERM) and waits for its end.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        ensure!(Command::new("kill").arg(&pid).status()?.success(), "send SIGTERM");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A line releases the guardian; it would take the end of its input for the test's death.
        if let Some(mut input) = self.guardian.stdin.take() {
            let _ = input.write_all(b"released\n");
        }
        let _ = self.guardian.wait();
    }
}

/// Starts a process that kills the broker and removes the folder when this process is gone.
fn guardian(pid: u32, folder: &Path) -> anyhow::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"read -r line || { kill -9 "$1"; rm -rf "$2"; }"#, "guardian"]);
    shell.arg(pid.to_string()).arg(folder);
    // A Ctrl-C meets the whole group at once; the guardian must outlive it.
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().context("start the guardian")
}
