//! What was sent, and what all answers must therefore be: a naive fold.
//!
//! The fold shares no code with the platform. Readings are versioned, so the
//! newest version of each counts, in whatever order and however often they came;
//! a batch that was sent and never acknowledged is sent again, which makes the
//! truth certain again.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::ensure;
use serde_json::Value;

use crate::client::Client;
use crate::decimal::micro_of;
use crate::random::Random;

/// Days that readings are of, half-hours of a day, and meters.
const DAYS: u64 = 6;
const HALF_HOURS: u64 = 48;
const METERS: u64 = 24;
/// Records of a segment.
pub(crate) const SEGMENT_SIZE: u64 = 64;
/// The longest that an answer may take, in milliseconds.
const DEADLINE_MS: u32 = 60_000;

/// The application that a history is sent to. `{factor}` and `{network}` make it another version.
const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, channel TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, channel, start_utc',
        version = 'source_version', segment = '{segment}', partitions = '3');
CREATE VIEW meter_daily WITH (output_topic = 'daily', partitions = '2') AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 day') AS day, SUM(value * {factor}) AS kwh, COUNT(*) AS readings, MAX(value) AS peak
  FROM readings GROUP BY usage_point, day;
CREATE VIEW fleet_hourly WITH (storage = 'disk', partitions = '1') AS
  SELECT channel, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY channel, hour;
CREATE VIEW meter_total WITH (partitions = '1') AS
  SELECT usage_point, SUM(value) AS kwh, COUNT(*) AS readings FROM readings GROUP BY usage_point;
";

/// One reading's identity: meter and half-hour since the first day began.
type Identity = (u64, u64);
/// Groups by key and window: sum in millionths, count, largest.
type Groups = BTreeMap<(String, String), (i128, i64, i128)>;

/// Everything sent so far.
#[derive(Clone, Debug)]
pub struct History {
    random: Random,
    newest: BTreeMap<Identity, (u64, i128)>,
    factor: i128,
}

impl History {
    /// Creates an empty history; the seed decides what it will send.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), newest: BTreeMap::new(), factor: 1 }
    }

    /// Returns the application in its present version.
    pub fn application(&self) -> String {
        let app = APP.replace("{segment}", &SEGMENT_SIZE.to_string());
        app.replace("{factor}", &self.factor.to_string())
    }

    /// Changes a view, so that all of it is computed anew.
    pub fn change_view(&mut self) {
        self.factor = self.factor % 5 + 1;
    }

    /// Makes the next readings, one JSON object a line: new ones, corrections, duplicates, stale
    /// versions, of all days in any order.
    pub fn batch(&mut self, readings: usize) -> String {
        let mut lines = String::new();
        for _ in 0..readings {
            let identity = (self.random.below(METERS), self.random.below(DAYS * HALF_HOURS));
            let value = i128::from(self.random.below(2_000_000)) - 100_000;
            let (version, value) = match self.newest.get(&identity) {
                None => (2, value),
                Some(&known) if self.random.once_in(3) => known,
                Some(_) if self.random.once_in(4) => {
                    write_reading(&mut lines, identity, 1, value);
                    continue;
                }
                Some(&(version, _)) => (version + 1, value),
            };
            self.newest.insert(identity, (version, value));
            write_reading(&mut lines, identity, version, value);
        }
        lines
    }

    /// Makes readings that contradict known ones: the same version with another value.
    pub fn conflicts(&self, readings: usize) -> String {
        let mut lines = String::new();
        for (&identity, &(version, value)) in self.newest.iter().take(readings) {
            write_reading(&mut lines, identity, version, value + 1);
        }
        lines
    }

    /// Sends readings until they are acknowledged as a whole; returns the token.
    pub async fn send(&self, client: &Client, lines: &str) -> anyhow::Result<String> {
        let (status, answer) = client.ingest("readings", lines.to_owned()).await?;
        let sent = lines.lines().count() as u64;
        ensure!(status == 200 && answer["acknowledged"].as_u64() == Some(sent), "{status}: {answer}");
        Ok(answer["session"].as_str().unwrap_or_default().to_owned())
    }

    /// Holds every view against the fold; an error says what differs.
    pub async fn verdict(&self, client: &Client, session: &str) -> anyhow::Result<()> {
        let day = |slot: u64| format!("2026-01-{:02}T00:00:00Z", slot / HALF_HOURS + 1);
        let hour =
            |slot: u64| format!("2026-01-{:02}T{:02}:00:00Z", slot / HALF_HOURS + 1, slot % HALF_HOURS / 2);
        let meter = |meter: u64| format!("M{meter:02}");
        let expected = self.fold(meter, day, self.factor);
        let sql = "SELECT usage_point, day, kwh, readings, peak FROM meter_daily";
        compare(client, session, sql, &expected).await?;
        let expected = self.fold(|_| "E1".to_owned(), hour, 1);
        compare(client, session, "SELECT channel, hour, kwh, readings FROM fleet_hourly", &expected).await?;
        let expected = self.fold(meter, |_| String::new(), 1);
        compare(client, session, "SELECT usage_point, '', kwh, readings FROM meter_total", &expected).await
    }

    fn fold(&self, key: impl Fn(u64) -> String, window: impl Fn(u64) -> String, factor: i128) -> Groups {
        let mut groups = Groups::new();
        for (&(meter, slot), &(_, value)) in &self.newest {
            let group = groups.entry((key(meter), window(slot))).or_insert((0, 0, i128::MIN));
            *group = (group.0 + value * factor, group.1 + 1, group.2.max(value));
        }
        groups
    }
}

async fn compare(client: &Client, session: &str, sql: &str, expected: &Groups) -> anyhow::Result<()> {
    let answer = client.query_within(sql, session, DEADLINE_MS).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Groups::new();
    for row in answer.rows() {
        let peak = row.get(4).map(micro_of);
        let key = (text(&row[0]), text(&row[1]));
        let peak = peak.unwrap_or_else(|| expected.get(&key).map_or(0, |group| group.2));
        found.insert(key, (micro_of(&row[2]), row[3].as_i64().unwrap_or_default(), peak));
    }
    let differs = |key: &&(String, String)| found.get(*key) != expected.get(*key);
    let keys: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<_> = keys.into_iter().filter(differs).collect();
    if let Some(key) = differing.first() {
        let (many, found, expected) = (differing.len(), found.get(*key), expected.get(*key));
        anyhow::bail!("WRONG: {sql}: {many} groups; {key:?}: answered {found:?}, the fold has {expected:?}");
    }
    Ok(())
}

fn write_reading(lines: &mut String, (meter, slot): Identity, version: u64, micro: i128) {
    let (day, half_hour) = (slot / HALF_HOURS + 1, slot % HALF_HOURS);
    let (sign, micro) = if micro < 0 { ("-", -micro) } else { ("", micro) };
    writeln!(
        lines,
        r#"{{"usage_point":"M{meter:02}","channel":"E1","start_utc":"2026-01-{day:02}T{:02}:{:02}:00Z","value":{sign}{}.{:06},"source_version":{version}}}"#,
        half_hour / 2,
        half_hour % 2 * 30,
        micro / 1_000_000,
        micro % 1_000_000
    )
    .expect("write to a string");
}
