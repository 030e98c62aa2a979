//! A folder with an application, settings and data, and nodes started on it: where faults are
//! inflicted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::history::{History, SEGMENT_SIZE};
use crate::node::{Node, binary};
use crate::session::Session;

/// Everything happens often: small log files, frequent versions, few of them kept.
const SETTINGS: &str = "[batch]
interval_ms = 20
adoption_poll_ms = 20
segments_per_version_max = 6
versions_kept = 2
[speed]
flush_ms = 5
heartbeat_ms = 200
collapse_every_ms = 300
retry_ms = 50
[serving]
views_run_groups_min = 8
views_cache_bytes_max = 0
";

/// A place where a node lives and suffers.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    /// What was sent.
    pub history: History,
    /// Acknowledged so far.
    session: Session,
    /// Sent, but never acknowledged; to be sent again before anything is judged.
    pub pending: Option<String>,
    /// What SQL says of the archived readings, once all is archived: none while more may come.
    archive: Option<serde_json::Value>,
    quarantined: u64,
}

impl World {
    /// Makes an empty place. `retain_segments`: how much of the log is kept behind the cut; all when
    /// absent.
    pub fn new(seed: u64, retain_segments: Option<u64>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let retain = retain_segments.map_or_else(String::new, |kept| format!("retain_segments = {kept}\n"));
        let settings = SETTINGS.replace("versions_kept", &format!("{retain}versions_kept"));
        std::fs::write(folder.path().join("settings.toml"), settings)?;
        let world = Self {
            folder,
            history: History::new(seed),
            session: Session::default(),
            pending: None,
            archive: None,
            quarantined: 0,
        };
        world.declare()?;
        Ok(world)
    }

    /// Returns the data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Keeps the folder and returns it, for people to look at.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    /// Makes another world with a copy of this one's data; no node may run.
    pub fn copy(&self) -> anyhow::Result<World> {
        let folder = tempfile::tempdir()?;
        crate::damage::copy_folder(self.folder.path(), folder.path())?;
        let (history, session) = (self.history.clone(), self.session.clone());
        Ok(World {
            folder,
            history,
            session,
            pending: self.pending.clone(),
            archive: self.archive.clone(),
            quarantined: self.quarantined,
        })
    }

    /// Writes the application as the history has it.
    pub fn declare(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.path().join("app.sql"), self.history.application())?)
    }

    /// Adds to the settings of nodes started from now on.
    pub fn set(&self, settings: &str) -> anyhow::Result<()> {
        let file = self.folder.path().join("settings.toml");
        let before = std::fs::read_to_string(&file)?;
        Ok(std::fs::write(file, before + settings)?)
    }

    /// Starts a node here.
    pub fn start(&self) -> anyhow::Result<Node> {
        self.start_as(Command::new(binary()))
    }

    /// Starts a node here by another command that ends with the binary's name.
    pub fn start_as(&self, command: Command) -> anyhow::Result<Node> {
        let path = |name: &str| self.folder.path().join(name);
        let log = format!("embedded:{}?file_bytes=16384", path("data/log").display());
        let settings = path("settings.toml");
        let more = ["--log", &log, "--config", text(&settings)?];
        Node::start_as(command, &path("app.sql"), &self.data(), &more)
    }

    /// Sends readings, and before them what was never acknowledged.
    pub async fn send(&mut self, client: &Client, readings: usize) -> anyhow::Result<()> {
        self.settle(client).await?;
        if readings > 0 {
            self.pending = Some(self.history.batch(readings));
            self.archive = None;
            self.settle(client).await?;
        }
        Ok(())
    }

    /// Sends readings without waiting for them to be acknowledged: they stay pending.
    pub fn begin(&mut self, client: &Client, readings: usize) -> tokio::task::JoinHandle<()> {
        let lines = self.pending.take().unwrap_or_default() + &self.history.batch(readings);
        self.pending = Some(lines.clone());
        self.archive = None;
        let client = client.clone();
        // The node may die before it answers.
        tokio::spawn(async move { drop(client.ingest("readings", lines).await) })
    }

    /// Sends again what was never acknowledged.
    pub async fn settle(&mut self, client: &Client) -> anyhow::Result<()> {
        if let Some(lines) = self.pending.clone() {
            self.deliver(client, &lines).await?;
            self.pending = None;
        }
        Ok(())
    }

    /// Sends readings; once acknowledged, every later answer must have them.
    async fn deliver(&mut self, client: &Client, lines: &str) -> anyhow::Result<()> {
        let token = self.history.send(client, lines).await?;
        self.session.add(&token)
    }

    /// Holds all answers against the fold, and the node's own audit against zero.
    pub async fn verdict(&mut self, client: &Client) -> anyhow::Result<()> {
        self.settle(client).await?;
        self.history.verdict(client, &self.session.token()).await?;
        let status = client.get("/v1/status").await?;
        ensure!(status["audit"]["differing"] == 0, "WRONG: the audit found {}", status["audit"]);
        Ok(())
    }

    /// Sends readings that contradict others, which are quarantined.
    pub async fn refused(&mut self, client: &Client) -> anyhow::Result<()> {
        let lines = self.history.conflicts(8);
        self.quarantined += 8;
        self.deliver(client, &lines).await?;
        self.archive = None;
        Ok(())
    }

    /// Holds the number of quarantined readings against what was sent.
    pub async fn quarantine_verdict(&self, client: &Client) -> anyhow::Result<()> {
        let listed = client.get("/v1/quarantine/readings?limit=1000").await?;
        let (count, expected) = (listed["count"].as_u64(), self.quarantined);
        ensure!(count == Some(expected), "WRONG: the quarantine has {count:?}, {expected} were refused");
        Ok(())
    }

    /// Takes down what SQL says of the archive; a later [`World::archive_verdict`] must say the same.
    pub async fn take_down_archive(&mut self, client: &Client) -> anyhow::Result<()> {
        self.archive = Some(archive(client).await?.context("SQL over the archive is behind")?);
        Ok(())
    }

    /// Holds SQL over the archived readings against what was taken down, if nothing came since.
    pub async fn archive_verdict(&self, client: &Client) -> anyhow::Result<()> {
        let Some(expected) = &self.archive else { return Ok(()) };
        let Some(found) = archive(client).await? else { return Ok(()) };
        ensure!(found == *expected, "WRONG: SQL over the archive: {found}, it was {expected}");
        Ok(())
    }

    /// Says whether SQL over the archive is of all complete segments.
    pub async fn archive_is_whole(&self, client: &Client) -> anyhow::Result<bool> {
        Ok(archive(client).await?.is_some())
    }

    /// Waits until all complete segments of what was acknowledged are archived, and adopted by all view partitions.
    pub async fn archived(&self, client: &Client) -> anyhow::Result<()> {
        loop {
            let status = client.get("/v1/status").await?;
            let source = &status["sources"][0];
            let size = source["segment_size"].as_u64().context("a segment size")?;
            let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
            let (ends, cut) = (list(&source["partitions"]), list(&source["batch"]["cut"]));
            let whole = |end: &serde_json::Value| end["end"].as_u64().map(|end| end / size * size);
            // Ends are posted after what they are of was acknowledged.
            let mut posted = ends.iter().zip(self.session.ends());
            let are_posted = posted.all(|(end, acknowledged)| end["end"].as_u64() >= Some(*acknowledged));
            let done = are_posted
                && ends.len() == cut.len()
                && ends.iter().zip(&cut).all(|(end, cut)| whole(end) == cut.as_u64());
            let adopted = |view: &serde_json::Value| {
                let partitions = view["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
                partitions.iter().all(|partition| partition["batch_version"] == source["batch"]["version"])
            };
            let views = status["views"].as_array().context("views")?;
            if done && views.iter().all(adopted) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What SQL says of the archived readings, or none where it says that it is not of all complete
/// segments: so it is once the newest manifest was deleted, until the next one is written.
async fn archive(client: &Client) -> anyhow::Result<Option<serde_json::Value>> {
    let sums = "SUM(value), COUNT(*), MAX(value), SUM(source_version), COUNT(DISTINCT start_utc), COUNT(DISTINCT usage_point)";
    let newest = client.query(&format!("SELECT {sums} FROM readings")).await?;
    let history = client.query(&format!("SELECT {sums} FROM readings_history")).await?;
    let rows = serde_json::json!([newest.rows()[0], history.rows()[0]]);
    Ok((is_whole(&newest) && is_whole(&history)).then_some(rows))
}

fn is_whole(answer: &Answer) -> bool {
    let freshness = &answer.document["freshness"];
    let list = |name: &str| freshness[name]["readings"].as_array().cloned().unwrap_or_default();
    let whole = |end: &serde_json::Value| end.as_u64().map(|end| end / SEGMENT_SIZE * SEGMENT_SIZE);
    let (cut, ends) = (list("cut"), list("log_end"));
    cut.len() == ends.len() && cut.iter().zip(&ends).all(|(cut, end)| cut.as_u64() >= whole(end))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path of a test is text")
}
