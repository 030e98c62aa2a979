//! Starts and stops the built binary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::client::Client;
use crate::data::package;

/// Returns the binary under test.
///
/// # Panics
/// When there is none; `make build` makes it.
pub fn binary() -> PathBuf {
    let default = || package().join("../bin/sanso");
    let binary = std::env::var_os("SANSO_BIN").map_or_else(default, PathBuf::from);
    assert!(binary.is_file(), "no binary at {}: run `make build` first", binary.display());
    binary
}

/// A running `sanso dev` or `sanso node`. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    /// Speaks to the node.
    pub client: Client,
}

/// How long a node may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

impl Node {
    /// Starts `sanso dev` on a free port and waits until it is ready.
    ///
    /// Its log goes to `node.log` beside the data folder; the ready line is how
    /// this learns the port, so nothing is polled.
    pub fn start(app: &Path, data: &Path, more: &[&str]) -> anyhow::Result<Node> {
        Self::start_as(Command::new(binary()), app, data, more)
    }

    /// Starts it by another command that ends with the binary's name, such as `prlimit … sanso`.
    ///
    /// A node that ends before it is ready is an error with its log; so is one that takes too long.
    pub fn start_as(mut command: Command, app: &Path, data: &Path, more: &[&str]) -> anyhow::Result<Node> {
        std::fs::create_dir_all(data)?;
        command.arg("dev").arg(app).arg("--data").arg(data);
        command.args(["--listen", "127.0.0.1:0", "--json"]).args(more);
        Self::launch(command, &data.with_file_name("node.log"))
    }

    /// Starts `sanso node` and waits until it answers, which may be before it is given anything.
    pub fn start_member(file: &Path) -> anyhow::Result<Node> {
        let mut command = Command::new(binary());
        command.arg("node").arg("--config").arg(file).arg("--json");
        Self::launch(command, &file.with_extension("log"))
    }

    fn launch(mut command: Command, path: &Path) -> anyhow::Result<Node> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.context("start sanso")?;
        let stderr = child.stderr.take().context("read the node's log")?;
        let (address, ready) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let mut copy = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                use std::io::Write;
                // The log is for people; a full disk must not end the test's node.
                let _ = writeln!(copy, "{line}");
                if let Some(found) = ready_address(&line) {
                    let _ = address.send(found);
                }
                lines.lock().expect("no panic while it is held").push(line);
            }
        });
        let mut node = Node { child, log, reader: Some(reader), client: Client::new("") };
        match ready.recv_timeout(PATIENCE) {
            Ok(address) => {
                node.client = Client::new(address);
                Ok(node)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("HANG: sanso was not ready after {PATIENCE:?}:\n{}", node.log().join("\n"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = node.end()?;
                bail!("sanso ended before it was ready ({status}):\n{}", node.log().join("\n"))
            }
        }
    }

    /// Returns the process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the resident memory now and at its most, in bytes.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        memory_of(self.pid())
    }

    /// Returns the private memory that it may write to, in bytes: what `prlimit --data` bounds.
    pub fn data_bytes(&self) -> anyhow::Result<u64> {
        status_bytes(self.pid(), "VmData:")
    }

    /// Returns what the node has logged, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic while it is held").clone()
    }

    /// Returns the messages of a level, `WARN` or `ERROR`, with their fields.
    pub fn logged(&self, level: &str) -> Vec<String> {
        messages(&self.log(), level)
    }

    /// Says whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the process has ended and all of its log is here.
    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "the log's reader panicked");
        }
        Ok(status)
    }

    /// Returns how a node has ended that has by itself or is about to, and its log.
    ///
    /// One that still runs after a while is killed, and an error.
    pub fn ended(mut self) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        let patience = Instant::now() + PATIENCE;
        while self.is_running() {
            ensure!(Instant::now() < patience, "the node still runs");
            std::thread::yield_now();
        }
        let status = self.end()?;
        Ok((status, self.log()))
    }

    /// Kills the node as a power cut would (SIGKILL).
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.end()?;
        ensure!(!panicked(&self.log()), "PANIC: {}", self.log().join("\n"));
        Ok(())
    }

    /// Asks the node to stop (SIGTERM) and waits for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()
    }

    /// Stops the node, and returns all that it has logged to its end, however it ended.
    pub fn stop_and_tell(mut self) -> (Vec<String>, anyhow::Result<()>) {
        let stopped = self.terminate();
        (self.log(), stopped)
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        ensure!(Command::new("kill").arg(&pid).status()?.success(), "send SIGTERM");
        let status = self.end()?;
        ensure!(!panicked(&self.log()), "PANIC: {}", self.log().join("\n"));
        ensure!(status.success(), "the node stopped with {status}");
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a process's resident memory now and at its most, in bytes.
pub fn memory_of(pid: u32) -> anyhow::Result<(u64, u64)> {
    Ok((status_bytes(pid, "VmRSS:")?, status_bytes(pid, "VmHWM:")?))
}

/// Returns an amount of memory that the system tells of a process, in bytes.
fn status_bytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).with_context(|| format!("the system does not tell {name}"))
}

/// Returns the messages of a level in a log, with their fields.
pub(crate) fn messages(log: &[String], level: &str) -> Vec<String> {
    let documents = log.iter().filter_map(|line| serde_json::from_str(line).ok());
    let documents = documents.filter(|document: &serde_json::Value| document["level"] == level);
    documents.map(|document| document["fields"].to_string()).collect()
}

/// Says whether a log tells of a panic.
pub fn panicked(log: &[String]) -> bool {
    log.iter().any(|line| line.contains("panicked at"))
}

fn ready_address(line: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = &document["fields"];
    (fields["message"] == "sanso is ready")
        .then(|| fields["address"].as_str().unwrap_or_default().trim_end_matches('/').to_owned())
}

/// Runs `sanso ingest` to the end; returns its exit code and its JSON summary.
pub fn ingest(node: &Client, arguments: &[&str]) -> anyhow::Result<(i32, serde_json::Value)> {
    let output = Command::new(binary())
        .args(["ingest", "--to", node.base(), "--json"])
        .args(arguments)
        .output()
        .context("run sanso ingest")?;
    let code = output.status.code().context("sanso ingest was killed")?;
    let summary = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "sanso ingest ended with {code} and no summary: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok((code, summary))
}
