//! One `sanso dev`: the instrument's own test, and what a cluster is held against.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::time::Instant;

use super::application::{self, Storage};
use super::session::{Acknowledged, Session};
use crate::fault::Act;
use crate::history::{Key, Request};
use crate::oracle::Audit;
use crate::ports;
use crate::process::Process;
use crate::target::{Connection, Target};

/// How long the node may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take for one question of the audit.
const AUDIT: Duration = Duration::from_secs(20);

/// A running node. Killed when dropped.
#[derive(Debug)]
pub struct Dev {
    // Before the folder, so that nobody writes to it while it is removed.
    process: Process,
    base: String,
    patience: Duration,
    acknowledged: Acknowledged,
    _folder: TempDir,
}

impl Dev {
    /// Starts a node of this binary on a free port. Clients wait `patience` for an answer.
    pub fn start(binary: &Path, patience: Duration, storage: Storage) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sanso-drill-").tempdir()?;
        let app = folder.path().join("app.sql");
        std::fs::write(&app, application::sql(4, storage)).context("write the application")?;
        // A fixed address, which the node has again after a restart.
        let address = format!("127.0.0.1:{}", ports::free(1)?[0]);
        let base = format!("http://{address}");
        let (binary, data) = (binary.to_owned(), folder.path().join("data"));
        let log = folder.path().join("node.log");
        let mut process = Process::new("sanso dev", log, move || {
            let mut sanso = Command::new(&binary);
            sanso.arg("dev").arg(&app).arg("--data").arg(&data);
            sanso.args(["--listen", &address]);
            sanso
        });
        process.start()?;
        Ok(Self { process, base, patience, acknowledged: Acknowledged::default(), _folder: folder })
    }

    fn session(&self, patience: Duration) -> anyhow::Result<Session> {
        Session::new(vec![self.base.clone()], patience, &self.acknowledged)
    }
}

#[async_trait]
impl Target for Dev {
    fn name(&self) -> String {
        "sanso dev".to_owned()
    }

    fn nodes(&self) -> Vec<String> {
        vec![self.process.name().to_owned()]
    }

    fn said(&self) -> Vec<String> {
        vec![self.process.said()]
    }

    fn contacts(&self) -> Option<usize> {
        Some(1)
    }

    fn answers(&self) -> fn(Request) -> bool {
        |_| true
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Connection>> {
        Ok(Box::new(self.session(self.patience)?))
    }

    async fn act(&mut self, _node: usize, act: Act) -> anyhow::Result<()> {
        self.process.act(act)
    }

    async fn well(&mut self) -> anyhow::Result<()> {
        let session = self.session(self.patience)?;
        let until = Instant::now() + PATIENCE;
        while let Err(error) = session.ready(0).await {
            self.process.check()?;
            ensure!(Instant::now() < until, "not ready within {PATIENCE:?}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn audit(&mut self, keys: Key) -> anyhow::Result<Audit> {
        let session = self.session(AUDIT)?;
        let mut audit = Audit::new();
        for key in 0..keys {
            let readings = session.readings(0, key).await.map_err(anyhow::Error::msg)?;
            audit.extend(readings.into_iter().map(|(sequence, found)| ((key, sequence), found)));
        }
        Ok(audit)
    }
}
