//! A client of Sanso's HTTP API with a session of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use serde_json::Value;

use super::application::{PRELOADED, SEGMENT, micro, reading, sequence, usage_point};
use super::token::Token;
use crate::history::{Key, Request, Seen};
use crate::oracle::Found;
use crate::target::Connection;

/// More rows than any meter has readings.
const ROWS_MAX: u32 = 100_000;

/// A session that chooses from some nodes.
#[derive(Debug)]
pub(super) struct Session {
    http: reqwest::Client,
    bases: Vec<String>,
    /// How long a node may take for an answer; it is told so.
    deadline: Duration,
    seen: Mutex<Token>,
    /// What was acknowledged to all sessions together.
    acknowledged: Acknowledged,
}

/// What was acknowledged to anybody: the audit must see all of it.
pub(super) type Acknowledged = Arc<Mutex<Token>>;

impl Session {
    /// Makes one with nodes at `http://HOST:PORT`, that waits `deadline` for an answer.
    pub(super) fn new(
        bases: Vec<String>,
        deadline: Duration,
        acknowledged: &Acknowledged,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(deadline).no_proxy().build();
        let http = http.context("set up the HTTP client")?;
        Ok(Self { http, bases, deadline, seen: Mutex::default(), acknowledged: Arc::clone(acknowledged) })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let response = request.send().await.map_err(|error| told(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| told(&error))?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{status}: {}", text.chars().take(200).collect::<String>()));
        }
        serde_json::from_slice(&body).map_err(|error| format!("the answer is not JSON: {error}"))
    }

    /// Returns the parameters of a question of this session.
    fn parameters(&self) -> String {
        let session = self.seen.lock().expect("nobody panics with it").text();
        let session = session.map_or(String::new(), |token| format!("&session={token}"));
        format!("limit={ROWS_MAX}&deadline={}{session}", self.deadline.as_millis())
    }

    fn remember(&self, token: &Value) -> Result<(), String> {
        let token = token.as_str().ok_or("the answer has no session token")?;
        self.seen.lock().expect("nobody panics with it").add(token)
    }

    async fn write(&self, base: &str, key: Key, sequence: u32) -> Result<(), String> {
        let request = self.http.post(format!("{base}/v1/ingest/readings"));
        let request = request.header("content-type", "application/x-ndjson").body(reading(key, sequence));
        let answer = self.send(request).await?;
        if answer["acknowledged"] != 1 {
            return Err(format!("not acknowledged: {answer}"));
        }
        if let Some(token) = answer["session"].as_str() {
            self.acknowledged.lock().expect("nobody panics with it").add(token)?;
        }
        self.remember(&answer["session"])
    }

    /// Asks a question and adds up what the answer's rows have in a column.
    async fn count(&self, request: reqwest::RequestBuilder) -> Result<Seen, String> {
        let answer = self.send(request).await?;
        let freshness = &answer["freshness"];
        if answer["complete"] != true || answer["truncated"] != false {
            return Err(format!("the answer is not complete: {freshness}"));
        }
        let rows = Rows::of(&answer)?;
        let readings = rows.column("readings")?.map(|value| match value {
            Value::Null => Some(0),
            value => value.as_u64(),
        });
        let readings = readings.sum::<Option<u64>>().ok_or("a count is no number")?;
        self.remember(&freshness["session"])?;
        Ok(Seen { readings, staleness_ms_max: freshness["staleness_ms_max"].as_u64() })
    }

    /// Returns all readings of a meter that a node has, with all that was acknowledged to anybody.
    pub(super) async fn readings(&self, node: usize, key: Key) -> Result<BTreeMap<u32, Found>, String> {
        let meter = usage_point(key);
        *self.seen.lock().expect("nobody panics with it") =
            self.acknowledged.lock().expect("nobody panics with it").clone();
        let url = format!("{}/v1/views/half_hour?key={meter}&{}", self.bases[node], self.parameters());
        let answer = self.send(self.http.get(url)).await?;
        let rows = Rows::of(&answer)?;
        let (starts, counts, kwh) =
            (rows.column("half_hour")?, rows.column("readings")?, rows.column("kwh")?);
        let found = starts.zip(counts).zip(kwh).map(|((start, count), kwh)| {
            let found = Found { count: count.as_u64()?, value_micro: micro(&kwh.to_string())? };
            Some((sequence(start.as_str()?)?, found))
        });
        found.collect::<Option<_>>().ok_or_else(|| format!("a row of {meter} can't be read: {answer}"))
    }

    /// Puts readings in, as lines; each of them is acknowledged.
    pub(super) async fn load(&self, node: usize, lines: Vec<String>) -> Result<(), String> {
        let (count, body) = (lines.len(), lines.concat());
        let request = self.http.post(format!("{}/v1/ingest/readings", self.bases[node]));
        let answer = self.send(request.header("content-type", "application/x-ndjson").body(body)).await?;
        if answer["acknowledged"] != count {
            return Err(format!("not all of {count} are acknowledged: {answer}"));
        }
        self.remember(&answer["session"])
    }

    /// Returns what a view has of the readings that nobody asks for: how many, and their millionths of a kWh.
    pub(super) async fn preloaded(&self, node: usize, view: &str) -> Result<(u64, u64), String> {
        self.totals(node, view, &format!("usage_point >= '{PRELOADED}'")).await
    }

    /// Returns how many readings a view has of such meters, and their sum.
    pub(super) async fn totals(&self, node: usize, view: &str, such: &str) -> Result<(u64, u64), String> {
        let sql = format!("SELECT SUM(readings) AS readings, SUM(kwh) AS kwh FROM {view} WHERE {such}");
        let query = self.http.post(format!("{}/v1/query?{}", self.bases[node], self.parameters()));
        let answer = self.send(query.json(&serde_json::json!({ "sql": sql }))).await?;
        if answer["complete"] != true {
            return Err(format!("the answer is not complete: {}", answer["freshness"]));
        }
        let rows = Rows::of(&answer)?;
        let (readings, kwh) = (rows.column("readings")?.next(), rows.column("kwh")?.next());
        let found = readings.and_then(Value::as_u64).zip(kwh.and_then(|kwh| micro(&kwh.to_string())));
        found.ok_or_else(|| format!("{view} has no totals: {answer}"))
    }

    /// Says whether a view stands on all segments of the log that are complete.
    pub(super) async fn is_archived(&self, node: usize, view: &str) -> Result<bool, String> {
        let answer =
            self.get(node, &format!("/v1/views/{view}?key={PRELOADED}&{}", self.parameters())).await?;
        let offsets = |name: &str| {
            let offsets =
                answer["freshness"][name]["readings"].as_array().map(|all| all.iter().map(Value::as_u64));
            offsets.and_then(|all| all.collect::<Option<Vec<u64>>>()).ok_or(format!("no {name} in {answer}"))
        };
        let (cut, applied) = (offsets("cut")?, offsets("applied")?);
        Ok(cut.iter().zip(&applied).all(|(cut, applied)| applied.saturating_sub(*cut) < SEGMENT))
    }

    /// Gets a document of a node.
    pub(super) async fn get(&self, node: usize, path: &str) -> Result<Value, String> {
        let request = self.http.get(format!("{}{path}", self.bases[node]));
        self.send(request.timeout(self.deadline)).await
    }

    /// Tells a node something.
    pub(super) async fn post(&self, node: usize, path: &str, body: &Value) -> Result<(), String> {
        let request = self.http.post(format!("{}{path}", self.bases[node])).json(body);
        self.send(request.timeout(self.deadline)).await.map(drop)
    }

    /// Says whether a node is ready, and if not, what it says.
    pub(super) async fn ready(&self, node: usize) -> Result<(), String> {
        self.get(node, "/readyz").await.map(drop)
    }
}

#[async_trait]
impl Connection for Session {
    async fn attempt(&self, node: Option<usize>, request: Request) -> Result<Option<Seen>, String> {
        let base = &self.bases[node.unwrap_or_default()];
        let view = |name: &str, key: Key| {
            let parameters = self.parameters();
            self.http.get(format!("{base}/v1/views/{name}?key={}&{parameters}", usage_point(key)))
        };
        match request {
            Request::Write { key, sequence } => return self.write(base, key, sequence).await.map(|()| None),
            Request::Point { key } | Request::Visible { key } => self.count(view("meter", key)).await,
            Request::Range { key } => self.count(view("half_hour", key)).await,
            Request::Total => {
                let query = self.http.post(format!("{base}/v1/query?{}", self.parameters()));
                let sql =
                    format!("SELECT SUM(readings) AS readings FROM meter WHERE usage_point < '{PRELOADED}'");
                self.count(query.json(&serde_json::json!({ "sql": sql }))).await
            }
        }
        .map(Some)
    }
}

/// A tabular answer.
struct Rows<'a> {
    columns: &'a [Value],
    rows: &'a [Value],
}

impl<'a> Rows<'a> {
    fn of(answer: &'a Value) -> Result<Self, String> {
        let list = |name: &str| answer[name].as_array().ok_or_else(|| format!("the answer has no {name}"));
        Ok(Self { columns: list("columns")?, rows: list("rows")? })
    }

    fn column(&self, name: &str) -> Result<impl Iterator<Item = &'a Value>, String> {
        let position = self.columns.iter().position(|column| column["name"] == name);
        let position = position.ok_or_else(|| format!("the answer has no column {name}"))?;
        Ok(self.rows.iter().map(move |row| &row[position]))
    }
}

/// An error with its causes, which the library leaves out.
fn told(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
