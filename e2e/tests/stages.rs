//! A view over the closed windows of a view is exact: late readings, corrections that move readings between
//! groups, kill -9 and batch versions in between.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sanso_e2e::{Client, Node, micro, micro_of};

const METERS: usize = 12;
const FEEDERS: usize = 3;
/// The days whose hours are all closed in the end.
const DAYS: u32 = 4;

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, feeder TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (key = 'usage_point', identity = 'usage_point, start_utc', version = 'source_version',
        segment = '128', partitions = '3');
CREATE VIEW feeder_hours WITH (output_topic = 'feeder_hours_closed') AS
  SELECT feeder, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh
  FROM readings GROUP BY feeder, hour;
CREATE SOURCE hours FROM VIEW feeder_hours WITH (segment = '32');
CREATE VIEW feeder_peaks AS
  SELECT feeder, TUMBLE(hour, INTERVAL '1 day') AS day, MAX(kwh) AS peak, COUNT(*) AS hours
  FROM hours GROUP BY feeder, day;
";

/// A reading: feeder, kilowatt-hours in quarters, version.
type Reading = (usize, u64, u64);

/// The newest of each reading, by meter, day and half hour.
#[derive(Default)]
struct Readings(BTreeMap<(usize, u32, u32), Reading>);

impl Readings {
    /// Adds a reading and writes its line.
    fn add(&mut self, lines: &mut String, at: (usize, u32, u32), reading: Reading) {
        let ((meter, day, half_hour), (feeder, quarters, version)) = (at, reading);
        self.0.insert(at, reading);
        writeln!(
            lines,
            r#"{{"usage_point":"M{meter:02}","feeder":"F{feeder}","start_utc":"2026-01-{day:02}T{:02}:{:02}:00Z","value":{}.{:02},"source_version":{version}}}"#,
            half_hour / 2,
            half_hour % 2 * 30,
            quarters / 4,
            quarters % 4 * 25,
        )
        .expect("write to a string");
    }

    /// A day of all meters, but for one that is late.
    fn day(&mut self, day: u32, late: Option<usize>) -> String {
        let mut lines = String::new();
        for meter in (0..METERS).filter(|meter| Some(*meter) != late) {
            for half_hour in 0..48 {
                let quarters = (meter as u64 * 7 + u64::from(day * half_hour)) % 23;
                self.add(&mut lines, (meter, day, half_hour), (meter % FEEDERS, quarters, 1));
            }
        }
        lines
    }

    /// Corrects some readings of a day; each moves to another feeder or has another value.
    fn correct(&mut self, day: u32, version: u64) -> String {
        let mut lines = String::new();
        for at in [(1, day, 5), (2, day, 17), (4, day, 17), (7, day, 40)] {
            let Some(&(feeder, quarters, _)) = self.0.get(&at) else { continue };
            self.add(&mut lines, at, ((feeder + at.0 % 2) % FEEDERS, quarters + 9 * version, version));
        }
        lines
    }

    /// All of one feeder's readings of an hour move to another, so that the window is gone.
    fn empty(&mut self, day: u32, hour: u32, feeder: usize) -> String {
        let mut lines = String::new();
        let of_hour = self
            .0
            .iter()
            .filter(|((_, d, half_hour), reading)| *d == day && half_hour / 2 == hour && reading.0 == feeder);
        let of_hour: Vec<_> = of_hour.map(|(at, reading)| (*at, *reading)).collect();
        for (at, (_, quarters, version)) in of_hour {
            self.add(&mut lines, at, ((feeder + 1) % FEEDERS, quarters, version + 10));
        }
        lines
    }

    /// The highest hourly sum of each feeder and day, and how many hours there are; by plain arithmetic.
    fn peaks(&self) -> BTreeMap<(String, String), (i128, i64)> {
        let mut hours: BTreeMap<(usize, u32, u32), i128> = BTreeMap::new();
        for ((_, day, half_hour), (feeder, quarters, _)) in &self.0 {
            *hours.entry((*feeder, *day, half_hour / 2)).or_default() +=
                i128::from(*quarters) * micro("0.25");
        }
        let mut peaks: BTreeMap<(String, String), (i128, i64)> = BTreeMap::new();
        for ((feeder, day, _), kwh) in hours.into_iter().filter(|((_, day, _), _)| *day <= DAYS) {
            let peak =
                peaks.entry((format!("F{feeder}"), format!("2026-01-{day:02}T00:00:00Z"))).or_default();
            *peak = (peak.0.max(kwh), peak.1 + 1);
        }
        peaks
    }
}

async fn send(client: &Client, lines: String) -> anyhow::Result<()> {
    let (status, answer) = client.ingest("readings", lines).await?;
    ensure!(status == 200, "{answer}");
    Ok(())
}

/// Asks until the answer is the one that is wanted.
async fn shows(client: &Client, wanted: &BTreeMap<(String, String), (i128, i64)>) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT feeder, day, peak, hours FROM feeder_peaks WHERE day <= TIMESTAMP '2026-01-{DAYS:02} 00:00:00' ORDER BY feeder, day"
    );
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.query(&sql).await?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let rows = answer.rows().iter().map(|row| {
            ((text(&row[0]), text(&row[1])), (micro_of(&row[2]), row[3].as_i64().unwrap_or_default()))
        });
        let found: BTreeMap<_, _> = rows.collect();
        if found == *wanted {
            return Ok(());
        }
        ensure!(Instant::now() < patience, "found {found:?}\nwanted {wanted:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn daily_peaks_of_hourly_sums_are_exact_whatever_is_late_corrected_or_killed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (app, settings) = (folder.path().join("app.sql"), folder.path().join("own.toml"));
    std::fs::write(&app, APP)?;
    std::fs::write(&settings, "[batch]\ninterval_ms = 200\n")?;
    let data = folder.path().join("data");
    let start = || Node::start(&app, &data, &["--config", settings.to_str().expect("UTF-8")]);
    let mut readings = Readings::default();
    let mut node = start()?;
    for day in 1..=DAYS {
        send(&node.client, readings.day(day, Some(3))).await?;
        send(&node.client, readings.correct(day, 2)).await?;
        // While the windows of the day before are written, and read again.
        node.kill()?;
        node = start()?;
    }
    // Everything is closed by a day after, then comes what is late.
    send(&node.client, readings.day(DAYS + 1, None)).await?;
    shows(&node.client, &readings.peaks()).await?;
    for day in 1..=DAYS {
        let mut late = Readings::default();
        let mut lines = String::new();
        for half_hour in 0..48 {
            let reading = (0, u64::from(half_hour), 1);
            late.add(&mut lines, (3, day, half_hour), reading);
        }
        readings.0.extend(late.0);
        send(&node.client, lines).await?;
        send(&node.client, readings.correct(day, 3)).await?;
        node.kill()?;
        node = start()?;
        send(&node.client, readings.empty(day, 9, 1)).await?;
    }
    let peaks = readings.peaks();
    assert_eq!(peaks[&("F1".to_owned(), "2026-01-01T00:00:00Z".to_owned())].1, 23, "an hour is gone");
    shows(&node.client, &peaks).await?;
    // The same once more from what batch has and the log after it.
    node.kill()?;
    node = start()?;
    shows(&node.client, &peaks).await?;
    let (status, answer) = node.client.ingest("hours", "{}\n".to_owned()).await?;
    assert_eq!(
        (status, answer["detail"].as_str()),
        (409, Some("source hours is the closed windows of view feeder_hours"))
    );
    let status = node.client.get("/v1/status").await?;
    assert_eq!(status["audit"]["differing"], 0, "{status}");
    let hours = node.client.get("/v1/sources/hours").await?;
    for refused in ["undecodable", "misplaced", "conflicts", "stale"] {
        assert_eq!(hours["counts"][refused], 0, "{hours}");
    }
    node.stop()
}
