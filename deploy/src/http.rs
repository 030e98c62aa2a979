//! The client of the platform's HTTP API that the commands share.
//!
//! Plain HTTP. Errors keep apart what the caller can do: try again, mend the
//! request, or look at the address.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take, its answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// The first pause before a request is sent again; it doubles from there.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Speaks to one node.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: Url,
    http: reqwest::Client,
}

/// A refusal by the node: RFC 9457 problem details.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Problem {
    /// The kind of problem in a few words.
    #[serde(default)]
    pub(crate) title: String,
    /// What is wrong with this request.
    #[serde(default)]
    pub(crate) detail: Option<String>,
    /// What to do instead.
    #[serde(default)]
    pub(crate) hint: Option<String>,
    /// The line in a SQL text, from 1.
    #[serde(default)]
    pub(crate) line: Option<u64>,
    /// The column in a SQL text, from 1.
    #[serde(default)]
    pub(crate) column: Option<u64>,
    /// What else the node says, such as which lines it refused.
    #[serde(flatten)]
    pub(crate) more: serde_json::Map<String, Value>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The node could not be reached, or the connection broke.
    #[error("no answer from {url}")]
    Connection {
        /// The address asked.
        url: Url,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The node refused the request.
    #[error("{status}: {problem}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the node says about it.
        problem: Box<Problem>,
    },
    /// The answer is not what the API promises.
    #[error("the answer of {url} is not Sanso's: {message}")]
    Foreign {
        /// The address asked.
        url: Url,
        /// What is wrong with it.
        message: String,
    },
}

impl HttpError {
    /// Says whether the same request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            HttpError::Connection { source, .. } => !source.is_builder(),
            HttpError::Refused { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            HttpError::Foreign { .. } => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail.as_deref().unwrap_or(&self.title);
        f.write_str(detail)?;
        if let (Some(line), Some(column)) = (self.line, self.column)
            && !detail.starts_with("line ")
        {
            write!(f, " (line {line}, column {column})")?;
        }
        match &self.hint {
            Some(hint) if !hint.is_empty() => write!(f, "\n  hint: {hint}"),
            _ => Ok(()),
        }
    }
}

impl Client {
    /// Creates a client of the node at `http://HOST:PORT`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let text = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let base =
            Url::parse(&text).with_context(|| format!("{url:?} is no address, write http://HOST:PORT"))?;
        anyhow::ensure!(
            base.scheme() == "http" && base.has_host(),
            "{url:?} is not usable here: write http://HOST:PORT; for TLS put a proxy on this machine"
        );
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .context("set up the HTTP client")?;
        Ok(Self { base, http })
    }

    /// Returns the node's address.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Returns the address of a path, whose segments are escaped.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Gets a JSON document.
    pub(crate) async fn get(&self, segments: &[&str]) -> Result<Value, HttpError> {
        let url = self.url(segments);
        self.answer(url.clone(), self.http.get(url)).await
    }

    /// Gets a JSON document with parameters in the address.
    pub(crate) async fn get_with(
        &self,
        segments: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, HttpError> {
        let mut url = self.url(segments);
        url.query_pairs_mut().extend_pairs(parameters);
        self.answer(url.clone(), self.http.get(url)).await
    }

    /// Runs a SQL query.
    pub(crate) async fn query(&self, sql: &str) -> Result<Value, HttpError> {
        let url = self.url(&["v1", "query"]);
        let body = serde_json::json!({ "sql": sql });
        self.answer(url.clone(), self.http.post(url).json(&body)).await
    }

    /// Posts nothing but the address, for what is done by being asked for.
    pub(crate) async fn post(&self, segments: &[&str]) -> Result<Value, HttpError> {
        let url = self.url(segments);
        self.answer(url.clone(), self.http.post(url)).await
    }

    /// Makes these nodes the voters of their cluster. Asking again changes nothing more.
    pub(crate) async fn change_voters(&self, nodes: &[u16], force: bool) -> Result<Value, HttpError> {
        let url = self.url(&["v1", "cluster", "voters"]);
        let body = serde_json::json!({ "voters": nodes, "force": force });
        self.answer(url.clone(), self.http.post(url).json(&body)).await
    }

    /// Replays quarantined records of a source. Asking again appends nothing twice.
    pub(crate) async fn replay(&self, source: &str, body: &Value) -> Result<Value, HttpError> {
        let url = self.url(&["v1", "quarantine", source, "replay"]);
        self.answer(url.clone(), self.http.post(url).json(body)).await
    }

    /// Appends records to a source, one JSON object a line. Sending the same
    /// records again is harmless: they are judged duplicates.
    pub(crate) async fn ingest(&self, source: &str, lines: Vec<u8>) -> Result<Value, HttpError> {
        let url = self.url(&["v1", "ingest", source]);
        let request = self.http.post(url.clone()).header("content-type", "application/x-ndjson").body(lines);
        match self.answer(url, request).await {
            // Every record was refused: an answer like others, each with its reason.
            Err(HttpError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, problem })
                if problem.more.contains_key("refused_count") =>
            {
                Ok(Value::Object(problem.more))
            }
            answer => answer,
        }
    }

    async fn answer(&self, url: Url, request: reqwest::RequestBuilder) -> Result<Value, HttpError> {
        let lost = |source| HttpError::Connection { url: url.clone(), source };
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let body = response.bytes().await.map_err(lost)?;
        if !status.is_success() {
            return Err(HttpError::Refused { status, problem: Box::new(problem(status, &body)) });
        }
        serde_json::from_slice(&body).map_err(|error| HttpError::Foreign { url, message: error.to_string() })
    }
}

/// Reads problem details; another body is quoted in part.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let text: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        let reason = status.canonical_reason().unwrap_or("refused");
        Problem { title: if text.is_empty() { reason.to_owned() } else { text }, ..Problem::default() }
    })
}

/// Pauses between attempts: doubling, bounded, and over after `patience`.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    waited: Duration,
    patience: Duration,
}

impl Backoff {
    /// Creates a backoff that gives up once it has waited `patience` in all.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { pause: RETRY_PAUSE, waited: Duration::ZERO, patience }
    }

    /// Returns the next pause; `None` when patience is at its end.
    pub(crate) fn next_pause(&mut self) -> Option<Duration> {
        if self.waited >= self.patience {
            return None;
        }
        let pause = self.pause.min(self.patience - self.waited);
        self.waited += pause;
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_scheme() {
        for (given, expected) in [
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070/v1/ingest/readings"),
            ("127.0.0.1:7070", "http://127.0.0.1:7070/v1/ingest/readings"),
            ("http://host:1/base/", "http://host:1/base/v1/ingest/readings"),
        ] {
            let client = Client::new(given).expect("an address");
            assert_eq!(client.url(&["v1", "ingest", "readings"]).as_str(), expected);
        }
    }

    #[test]
    fn other_addresses_are_refused_with_what_to_write() {
        for given in ["https://host", "http://", "ftp://host/x"] {
            let error = format!("{:#}", Client::new(given).expect_err(given));
            assert!(error.contains("http://HOST:PORT"), "{error}");
        }
    }

    #[test]
    fn names_in_paths_are_escaped() {
        let client = Client::new("http://h").expect("an address");
        assert_eq!(client.url(&["v1", "views", "a/b?c"]).as_str(), "http://h/v1/views/a%2Fb%3Fc");
    }

    #[test]
    fn pauses_double_and_end_with_patience() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let pauses: Vec<u128> = std::iter::from_fn(|| backoff.next_pause()).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [200, 400, 400]);
    }

    #[test]
    fn problems_say_where_and_what_to_do() {
        let body = br#"{"title":"Bad SQL","detail":"no column kw","line":1,"column":8,"hint":"use kwh"}"#;
        let text = problem(StatusCode::BAD_REQUEST, body).to_string();
        assert_eq!(text, "no column kw (line 1, column 8)\n  hint: use kwh");
        assert_eq!(problem(StatusCode::BAD_GATEWAY, b"").to_string(), "Bad Gateway");
    }
}
