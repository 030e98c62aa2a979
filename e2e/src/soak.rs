//! A day of readings at ten times the usual rate, in a fixed amount of memory.
//!
//! ```text
//!   METERS meters, one reading each 3 minutes instead of each 30, for 24 hours
//!     ──POST, as fast as back-pressure lets──▶ sanso dev, limited to MEMORY_MIB by the system
//!     ◀── memory sampled, and in the end the totals of every hour compared
//! ```
//!
//! `make soak MINUTES=10 METERS=10000`. Succeeds when all of the day was taken
//! within the time, the node never came over the limit, and no total differs.

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sanso_e2e::{Client, binary, memory_of};
use serde_json::Value;

const APP: &str = "
CREATE SOURCE readings (usage_point TEXT, start_utc TIMESTAMP, value DECIMAL(18,6), source_version BIGINT)
  WITH (topic = 'readings', key = 'usage_point', identity = 'usage_point, start_utc',
        version = 'source_version', segment = '65536', partitions = '4');
CREATE VIEW meter_hour AS
  SELECT usage_point, TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh, COUNT(*) AS readings
  FROM readings GROUP BY usage_point, hour;
CREATE VIEW hour AS
  SELECT TUMBLE(start_utc, INTERVAL '1 hour') AS hour, SUM(value) AS kwh, COUNT(*) AS readings, MAX(value) AS most
  FROM readings GROUP BY hour;
";
const HOURS: u64 = 24;
const INTERVALS_PER_HOUR: u64 = 20;
const LINES_PER_REQUEST: u64 = 5_000;
const MEBIBYTE: u64 = 1 << 20;

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name} is no number")),
        _ => Ok(default),
    }
}

/// The node under test, killed when dropped.
struct Limited {
    child: Child,
    client: Client,
}

impl Drop for Limited {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Limited {
    /// Starts a node whose data the system limits (RLIMIT_DATA: heap and all
    /// other private memory that can be written); beyond it allocation fails.
    async fn start(folder: &Path, memory_mib: u64) -> anyhow::Result<Self> {
        let app = folder.join("app.sql");
        std::fs::write(&app, APP)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = std::fs::File::create(folder.join("node.log"))?;
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -d {} && exec \"$@\"", memory_mib * 1024))
            .arg("sh")
            .arg(binary())
            .arg("dev")
            .arg(&app)
            .arg("--data")
            .arg(folder.join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start the node")?;
        let mut node = Self { child, client: Client::new(format!("http://127.0.0.1:{port}")) };
        while node.client.get("/readyz").await.is_err() {
            ensure!(node.child.try_wait()?.is_none(), "the node ended: {}", node.log(folder));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(node)
    }

    fn log(&self, folder: &Path) -> String {
        std::fs::read_to_string(folder.join("node.log")).unwrap_or_default()
    }
}

/// What a meter measures in an interval, in thousandths of a kWh.
fn measured(meter: u64, interval: u64) -> u64 {
    (meter * 7_919 + interval * 104_729) % 997
}

/// The readings of meters `[from, to)` in one interval.
fn lines(from: u64, to: u64, interval: u64) -> String {
    let (hour, minute) = (interval / INTERVALS_PER_HOUR, interval % INTERVALS_PER_HOUR * 3);
    let line = |meter| {
        let value = measured(meter, interval);
        format!(
            "{{\"usage_point\":\"M{meter:07}\",\"start_utc\":\"2026-02-01T{hour:02}:{minute:02}:00Z\",\"value\":{}.{:03},\"source_version\":1}}\n",
            value / 1000,
            value % 1000
        )
    };
    (from..to).map(line).collect()
}

/// Sends one request until it is acknowledged; returns the session and how often it had to wait.
async fn send(client: &Client, body: String, until: Instant) -> anyhow::Result<(String, u64)> {
    let mut waited = 0;
    loop {
        let (status, answer) = client.ingest("readings", body.clone()).await?;
        match status {
            200 => return Ok((answer["session"].as_str().unwrap_or_default().to_owned(), waited)),
            429 | 503 if Instant::now() < until => {
                waited += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            _ => bail!("ingest: {status}: {answer}"),
        }
    }
}

/// What was sent, hour by hour: readings and thousandths of a kWh.
async fn feed(
    node: &mut Limited,
    folder: &Path,
    meters: u64,
    until: Instant,
) -> anyhow::Result<(Vec<(u64, u64)>, String)> {
    let mut sent = Vec::new();
    let mut session = String::new();
    let mut waited = 0;
    for hour in 0..HOURS {
        let started = Instant::now();
        let (mut readings, mut milli) = (0, 0);
        for interval in hour * INTERVALS_PER_HOUR..(hour + 1) * INTERVALS_PER_HOUR {
            for from in (0..meters).step_by(LINES_PER_REQUEST as usize) {
                let to = meters.min(from + LINES_PER_REQUEST);
                let (token, waits) = send(&node.client, lines(from, to, interval), until)
                    .await
                    .with_context(|| format!("the node's log:\n{}", node.log(folder)))?;
                (session, waited) = (token, waited + waits);
                readings += to - from;
                milli += (from..to).map(|meter| measured(meter, interval)).sum::<u64>();
            }
            ensure!(Instant::now() < until, "the time is over in hour {hour}: more MINUTES or fewer METERS");
        }
        sent.push((readings, milli));
        let (now, peak) = memory_of(node.child.id())?;
        let rate = readings as f64 / started.elapsed().as_secs_f64();
        say(&format!(
            "hour {:2}: {readings} readings at {rate:.0}/s, memory {} MiB, peak {} MiB, told to wait {waited} times",
            hour + 1,
            now / MEBIBYTE,
            peak / MEBIBYTE
        ));
    }
    Ok((sent, session))
}

/// Compares the totals of every hour; returns how many differ.
async fn compare(
    client: &Client,
    sent: &[(u64, u64)],
    session: &str,
    until: Instant,
) -> anyhow::Result<usize> {
    let sql = "SELECT h.hour, h.readings, CAST(h.kwh * 1000 AS BIGINT), m.readings FROM hour h \
               JOIN (SELECT hour, SUM(readings) AS readings FROM meter_hour GROUP BY hour) m ON m.hour = h.hour \
               ORDER BY h.hour";
    let answer = loop {
        match client.query_at(sql, session).await {
            Ok(answer) => break answer,
            // The views may still be behind.
            Err(error) if Instant::now() < until => say(&format!("asked again: {error:#}")),
            Err(error) => return Err(error),
        }
    };
    let number = |value: &Value| value.as_u64();
    let differs = |(row, (readings, milli)): (&Value, &(u64, u64))| {
        number(&row[1]) != Some(*readings)
            || number(&row[2]) != Some(*milli)
            || number(&row[3]) != Some(*readings)
    };
    ensure!(
        answer.rows().len() == sent.len(),
        "{} hours are in the view, not {}",
        answer.rows().len(),
        sent.len()
    );
    Ok(answer.rows().iter().zip(sent).filter(|pair| differs(*pair)).count())
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (minutes, meters) = (setting("MINUTES", 60)?, setting("METERS", 20_000)?);
    let memory_mib = setting("MEMORY_MIB", 2048)?;
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let folder = tempfile::tempdir()?;
    let mut node = Limited::start(folder.path(), memory_mib).await?;
    say(&format!(
        "{meters} meters, 24 hours at ten times the usual rate: {} readings; {memory_mib} MiB",
        meters * HOURS * INTERVALS_PER_HOUR
    ));
    let (sent, session) = feed(&mut node, folder.path(), meters, until).await?;
    let differing = compare(&node.client, &sent, &session, until).await?;
    let (_, peak) = memory_of(node.child.id())?;
    let limits = node.client.get("/v1/limits").await?;
    for limit in limits["limits"].as_array().into_iter().flatten() {
        say(&format!("  {}: {} of {} {}", limit["name"], limit["used"], limit["max"], limit["unit"]));
    }
    let sound = differing == 0 && peak <= memory_mib * MEBIBYTE;
    say(&format!(
        "{}: peak {} MiB of {memory_mib}, {differing} of {} hours differ",
        if sound { "SOUND" } else { "NOT SOUND" },
        peak / MEBIBYTE,
        sent.len()
    ));
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "it speaks to a person")]
fn say(text: &str) {
    println!("{text}");
}
