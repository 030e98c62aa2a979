//! Starts and stops the built binary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

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

/// A running `sanso dev`. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Speaks to the node.
    pub client: Client,
}

impl Node {
    /// Starts `sanso dev` on a free port and waits until it is ready.
    ///
    /// Its log goes to `node.log` in the data folder; the ready line is how
    /// this learns the port, so nothing is polled.
    pub fn start(app: &Path, data: &Path, more: &[&str]) -> anyhow::Result<Node> {
        std::fs::create_dir_all(data)?;
        let mut child = Command::new(binary())
            .arg("dev")
            .arg(app)
            .arg("--data")
            .arg(data)
            .args(["--listen", "127.0.0.1:0", "--json"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start sanso dev")?;
        let stderr = child.stderr.take().context("read the node's log")?;
        let (address, ready) = mpsc::channel();
        let mut copy = std::fs::OpenOptions::new().create(true).append(true).open(data.join("node.log"))?;
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                use std::io::Write;
                // The log is for people; a full disk must not end the test's node.
                let _ = writeln!(copy, "{line}");
                if let Some(found) = ready_address(&line) {
                    let _ = address.send(found);
                }
            }
        });
        match ready.recv() {
            Ok(address) => Ok(Node { child, client: Client::new(address) }),
            Err(_) => {
                let status = child.wait()?;
                let log = std::fs::read_to_string(data.join("node.log")).unwrap_or_default();
                bail!("sanso dev ended before it was ready ({status}):\n{log}")
            }
        }
    }

    /// Returns the process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the node as a power cut would (SIGKILL).
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the node to stop (SIGTERM) and waits for it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        ensure!(Command::new("kill").arg(&pid).status()?.success(), "send SIGTERM");
        let status = self.child.wait()?;
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
