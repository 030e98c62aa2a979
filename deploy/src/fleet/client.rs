//! Sends a fleet's readings to a node, at the fleet's pace, and checks in the
//! end that the views say what was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::FleetConfig;
use super::model::INTERVAL_S;
use super::oracle::{Difference, Totals};
use super::schedule::{Counts, Fleet};
use crate::http::{Backoff, Client, HttpError};
use crate::ingest::exact;
use crate::ingest::settle::{self, Positions};

/// Records in one request while history is sent.
const HISTORY_REQUEST_RECORDS: usize = 4000;
/// How long a node may be out of reach before the fleet gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the speed layer may take for what was sent last.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// A fleet that starts again goes back this far, beyond every correction.
const RESUME_BACK: TimeDelta = TimeDelta::days(3);

/// What the views say compared with what was sent.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// Every substation's totals are equal.
    Equal(BTreeMap<String, Totals>),
    /// Some are not.
    Different(Vec<Difference>),
    /// Could not be checked.
    Unknown(String),
}

/// What a fleet did until it was stopped.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The records by kind, those of an earlier run included.
    pub(crate) counts: Counts,
    /// The views' totals against the fleet's own.
    pub(crate) check: Check,
}

/// Sends a fleet's readings until cancelled, then checks the views.
///
/// A fleet whose readings are already there (the same configuration, started
/// again) goes on where it stopped. Fails when the node can't be reached for
/// two minutes or refuses a whole request.
pub(crate) async fn run(config: FleetConfig, url: &str, cancel: CancellationToken) -> anyhow::Result<Report> {
    let mut sender = Sender {
        client: Client::new(url)?,
        source: config.source.clone(),
        cancel,
        positions: Positions::default(),
    };
    let half_hour = config.half_hour;
    let mut fleet = Fleet::new(config);
    let resumed_from = sender.resume(&mut fleet).await;
    let mut ticks =
        tokio::time::interval_at(Instant::now() + half_hour, half_hour.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut body = Vec::new();
    let mut records = 0;
    let mut all_sent = true;
    while !sender.cancel.is_cancelled() {
        let batch = fleet.next_batch();
        records += batch.lines.len();
        for line in &batch.lines {
            body.extend_from_slice(line.as_bytes());
            body.push(b'\n');
        }
        if batch.live {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.cancel.cancelled() => {}
            }
        }
        if batch.live || records >= HISTORY_REQUEST_RECORDS {
            all_sent = sender.send(&mut body).await?;
            records = 0;
        }
    }
    if all_sent && !body.is_empty() {
        all_sent = sender.send(&mut body).await?;
    }
    let caught_up = resumed_from.is_none_or(|newest| fleet.now() > newest);
    let check = match (all_sent, caught_up) {
        (true, true) => sender.check(&fleet).await,
        (false, _) => Check::Unknown("the last records were not acknowledged".into()),
        (true, false) => {
            Check::Unknown("the fleet was stopped before it caught up with its earlier run".into())
        }
    };
    Ok(Report { counts: fleet.counts(), check })
}

struct Sender {
    client: Client,
    source: String,
    cancel: CancellationToken,
    positions: Positions,
}

impl Sender {
    /// Sends what is in `body` and empties it. Says whether it was
    /// acknowledged; it is not when cancelled while the node is out of reach.
    async fn send(&mut self, body: &mut Vec<u8>) -> anyhow::Result<bool> {
        let mut backoff = Backoff::new(PATIENCE);
        let answer = loop {
            match self.client.ingest(&self.source, body.clone()).await {
                Ok(answer) => break answer,
                Err(error) if error.is_transient() => {
                    let Some(pause) = backoff.next_pause() else {
                        return Err(error).context("send the fleet's readings");
                    };
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.cancel.cancelled() => return Ok(false),
                    }
                }
                Err(error) => return Err(error).context("send the fleet's readings"),
            }
        };
        body.clear();
        self.positions.advance(&answer["positions"]);
        Ok(true)
    }

    /// Moves a fleet on to where an earlier run stopped, less the time in
    /// which a late reading or a correction could still be on its way. Returns
    /// the newest half-hour of that run, if there was one; up to it nothing waits.
    async fn resume(&self, fleet: &mut Fleet) -> Option<DateTime<Utc>> {
        let newest = match self.client.query("SELECT MAX(half_hour) AS newest FROM substation_load").await {
            Ok(answer) => answer["rows"][0][0].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok()),
            // Another application has no such view: then there is nothing to resume.
            Err(HttpError::Refused { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, "can't ask where the fleet stopped, it starts from the beginning");
                None
            }
        };
        let newest = newest?;
        fleet.hurry_beyond(newest);
        while fleet.now() + TimeDelta::seconds(INTERVAL_S) < newest - RESUME_BACK {
            fleet.next_batch();
        }
        Some(newest)
    }

    async fn check(&self, fleet: &Fleet) -> Check {
        match self.found().await {
            Ok(found) => {
                let differences = fleet.oracle().compare(&found);
                if differences.is_empty() { Check::Equal(found) } else { Check::Different(differences) }
            }
            Err(error) => Check::Unknown(format!("{error:#}")),
        }
    }

    /// Asks the views for each substation's totals once everything is in them.
    async fn found(&self) -> anyhow::Result<BTreeMap<String, Totals>> {
        let settled = settle::wait(&self.client, &self.source, &self.positions, SETTLE_TIMEOUT).await?;
        anyhow::ensure!(settled, "the speed layer has not processed everything within {SETTLE_TIMEOUT:?}");
        let sql = "SELECT substation, SUM(readings), SUM(kwh_import), SUM(kwh_export) \
                   FROM substation_load GROUP BY substation";
        let answer = self.client.query(sql).await?;
        let rows = answer["rows"].as_array().context("the answer has no rows")?;
        rows.iter().map(|row| Ok((text(&row[0])?, totals(row)?))).collect()
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"))
}

fn totals(row: &Value) -> anyhow::Result<Totals> {
    let milli = |value: &Value| match value {
        Value::Null => Ok(0),
        value => exact::scaled(&value.to_string(), 3)
            .and_then(|scaled| i64::try_from(scaled).ok())
            .with_context(|| format!("{value} is no energy in thousandths of a kWh")),
    };
    let readings = exact::scaled(&row[1].to_string(), 0).context("a count is no whole number")?;
    Ok(Totals {
        readings: i64::try_from(readings)?,
        import_milli: milli(&row[2])?,
        export_milli: milli(&row[3])?,
    })
}
