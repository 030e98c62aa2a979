//! Much of one kind: one reading corrected again and again, or readings of very many usage points.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::damage::cut_off_groups;
use crate::decimal::micro_of;
use crate::node::{Node, binary};
use crate::session::Session;

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '16384', partitions = '2');
CREATE VIEW meter_total AS
  SELECT usage_point, SUM(value) AS kwh, COUNT(*) AS readings, MAX(value) AS peak FROM readings GROUP BY usage_point;
CREATE VIEW fleet AS
  SELECT channel, SUM(value) AS kwh, COUNT(*) AS readings, MAX(value) AS peak FROM readings GROUP BY channel;
";
const LINES_PER_REQUEST: u64 = 5_000;
/// Usage points that are asked for one by one.
const SAMPLES: u64 = 100;

/// A folder for a node that is sent much of one kind, and what was acknowledged.
#[derive(Debug)]
pub struct Mass {
    folder: TempDir,
    session: Session,
    usage_points: u64,
    corrections: u64,
}

impl Mass {
    /// Makes an empty one.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("app.sql"), APP)?;
        Ok(Self { folder, session: Session::default(), usage_points: 0, corrections: 0 })
    }

    /// Declares where the groups of the view of usage points are kept; `memory` at first.
    pub fn keep(&self, storage: &str) -> anyhow::Result<()> {
        let view = "CREATE VIEW meter_total";
        let app = APP.replace(view, &format!("{view} WITH (storage = '{storage}')"));
        Ok(std::fs::write(self.folder.path().join("app.sql"), app)?)
    }

    /// Cuts off what every file of groups on disk holds. Returns how many there were.
    pub fn cut_off_groups(&self) -> anyhow::Result<usize> {
        cut_off_groups(&self.folder.path().join("data"))
    }

    /// Starts a node on it.
    pub fn start(&self) -> anyhow::Result<Node> {
        self.start_as(Command::new(binary()))
    }

    /// Starts a node on it by another command that ends with the binary's name.
    pub fn start_as(&self, command: Command) -> anyhow::Result<Node> {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        Node::start_as(command, &path("app.sql"), &path("data"), &[])
    }

    /// Sends one reading each of so many further usage points.
    pub async fn add_usage_points(&mut self, client: &Client, more: u64) -> anyhow::Result<()> {
        let end = self.usage_points + more;
        while self.usage_points < end {
            let to = end.min(self.usage_points + LINES_PER_REQUEST);
            let readings = (self.usage_points..to).map(|number| (number, 1, value_of(number, 1)));
            self.send(client, readings).await?;
            self.usage_points = to;
        }
        Ok(())
    }

    /// Sends so many further corrections of the one reading of usage point 0.
    pub async fn correct(&mut self, client: &Client, more: u64) -> anyhow::Result<()> {
        ensure!(self.usage_points > 0, "there is no reading to correct");
        let end = self.corrections + more;
        while self.corrections < end {
            let to = end.min(self.corrections + LINES_PER_REQUEST);
            let versions = self.corrections + 2..to + 2;
            self.send(client, versions.map(|version| (0, version, value_of(0, version)))).await?;
            self.corrections = to;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        client: &Client,
        readings: impl Iterator<Item = (u64, u64, i128)>,
    ) -> anyhow::Result<()> {
        let (mut lines, mut count) = (String::new(), 0);
        for (number, version, micro) in readings {
            count += 1;
            let (whole, part) = (micro / 1_000_000, micro % 1_000_000);
            writeln!(
                lines,
                r#"{{"usage_point":"U{number:07}","channel":"E1","start_utc":"2026-01-01T00:00:00Z","value":{whole}.{part:06},"source_version":{version}}}"#
            )?;
        }
        let (status, answer) = client.ingest("readings", lines).await?;
        ensure!(status == 200 && answer["acknowledged"].as_u64() == Some(count), "{status}: {answer}");
        self.session.add(answer["session"].as_str().unwrap_or_default())
    }

    /// Holds the totals of all, and some usage points one by one, against what was acknowledged.
    pub async fn verdict(&self, client: &Client) -> anyhow::Result<()> {
        let newest = |number: u64| value_of(number, if number == 0 { self.corrections + 1 } else { 1 });
        let values = || (0..self.usage_points).map(newest);
        let expected = (values().sum::<i128>(), self.usage_points as i64, values().max().unwrap_or_default());
        let total = "SELECT SUM(kwh), SUM(readings), MAX(peak) FROM meter_total";
        for sql in [total, "SELECT kwh, readings, peak FROM fleet"] {
            let found = self.ask(client, sql).await?;
            ensure!(found == [expected], "WRONG: {sql}: answered {found:?}, sent was {expected:?}");
        }
        for number in (0..self.usage_points).step_by((self.usage_points / SAMPLES).max(1) as usize) {
            let path = format!("meter_total?key=U{number:07}&session={}", self.session.token());
            let answer = client.view(&path).await?;
            let (kwh, readings) = (answer.column("kwh"), answer.column("readings"));
            let found: Vec<_> =
                answer.rows().iter().map(|row| (micro_of(&row[kwh]), row[readings].as_i64())).collect();
            let expected = [(newest(number), Some(1))];
            ensure!(found == expected, "WRONG: U{number:07}: answered {found:?}, sent was {expected:?}");
        }
        let status = client.get("/v1/status").await?;
        ensure!(status["audit"]["differing"] == 0, "WRONG: the audit found {}", status["audit"]);
        Ok(())
    }

    async fn ask(&self, client: &Client, sql: &str) -> anyhow::Result<Vec<(i128, i64, i128)>> {
        let answer = client.query_at(sql, &self.session.token()).await?;
        let row = |row: &Value| (micro_of(&row[0]), row[1].as_i64().unwrap_or_default(), micro_of(&row[2]));
        Ok(answer.rows().iter().map(row).collect())
    }
}

/// What a version of a usage point's reading says, in millionths.
fn value_of(number: u64, version: u64) -> i128 {
    i128::from((number * 7_919 + version * 104_729) % 9_999_991)
}
