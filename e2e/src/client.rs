//! A plain HTTP client of the platform.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// A tabular answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The whole document.
    pub document: Value,
    columns: Vec<String>,
}

impl Answer {
    fn new(document: Value) -> anyhow::Result<Self> {
        let columns = document["columns"].as_array().context("an answer has columns")?;
        let columns =
            columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect();
        Ok(Self { document, columns })
    }

    /// Returns the rows.
    ///
    /// # Panics
    /// When the document has none.
    pub fn rows(&self) -> &[Value] {
        self.document["rows"].as_array().expect("an answer has rows")
    }

    /// Returns the position of a column.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, name: &str) -> usize {
        let position = self.columns.iter().position(|column| column == name);
        position.unwrap_or_else(|| panic!("no column {name} among {:?}", self.columns))
    }
}

/// Speaks to one node.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// Creates a client of the node at `http://HOST:PORT`.
    pub fn new(base: impl Into<String>) -> Self {
        Self { base: base.into(), http: reqwest::Client::new() }
    }

    /// Returns the node's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Gets a JSON document; an error status is an error with the document.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "GET {path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Gets a document as text, with its status.
    pub async fn get_text(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Posts a JSON document; an error status is an error with the document.
    pub async fn post(&self, path: &str, document: &Value) -> anyhow::Result<Value> {
        let response = self.http.post(format!("{}{path}", self.base)).json(document).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "POST {path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Reads a view.
    pub async fn view(&self, path: &str) -> anyhow::Result<Answer> {
        Answer::new(self.get(&format!("/v1/views/{path}")).await?)
    }

    /// Runs a query.
    pub async fn query(&self, sql: &str) -> anyhow::Result<Answer> {
        self.query_at(sql, "").await
    }

    /// Runs a query whose answer holds at least what a session has seen; a
    /// token comes with every answer and every acknowledgement.
    pub async fn query_at(&self, sql: &str, session: &str) -> anyhow::Result<Answer> {
        self.query_within(sql, session, 60_000).await
    }

    /// Runs such a query with a deadline in milliseconds, after which the node refuses.
    pub async fn query_within(&self, sql: &str, session: &str, deadline_ms: u32) -> anyhow::Result<Answer> {
        let parameters = if session.is_empty() { String::new() } else { format!("&session={session}") };
        let url = format!("{}/v1/query?deadline={deadline_ms}&limit=1000000{parameters}", self.base);
        let request = self.http.post(url).json(&json!({ "sql": sql }));
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "query: {status}: {text}");
        Answer::new(serde_json::from_str(&text)?)
    }

    /// Appends readings, one JSON object a line; returns the answer's status and document.
    pub async fn ingest(&self, source: &str, lines: String) -> anyhow::Result<(u16, Value)> {
        let (status, _, document) = self.ingest_or_retry(source, lines).await?;
        Ok((status, document))
    }

    /// Appends likewise; returns also after how many seconds to try again, where the answer says so.
    pub async fn ingest_or_retry(
        &self,
        source: &str,
        lines: String,
    ) -> anyhow::Result<(u16, Option<u64>, Value)> {
        let request = self.http.post(format!("{}/v1/ingest/{source}", self.base));
        let response = request.header("content-type", "application/x-ndjson").body(lines).send().await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
        Ok((status, retry_after, serde_json::from_str(&response.text().await?)?))
    }
}
