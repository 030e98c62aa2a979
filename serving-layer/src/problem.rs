//! Refusals and failures as the caller sees them: RFC 9457 problem documents.
//!
//! Every problem has `type`, `title`, `status`, `detail` (what and where) and
//! `hint` (what to do).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sanso_dataset::DatasetError;
use serde_json::{Map, Value};

/// A problem document.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    hint: String,
    extra: Map<String, Value>,
    retry_after_s: Option<u32>,
}

impl Problem {
    /// Creates a problem. `kind` is the last part of its type URN.
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Self {
            status,
            kind,
            title,
            detail: String::new(),
            hint: String::new(),
            extra: Map::new(),
            retry_after_s: None,
        }
    }

    /// Says what happened and where.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Says after how many seconds to try again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns what happened.
    pub fn detail_text(&self) -> &str {
        &self.detail
    }

    /// A parameter is wrong.
    pub fn parameter(name: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", "A parameter is not usable")
            .detail(detail)
            .hint(hint)
            .with("parameter", name)
    }

    /// A view, source or path does not exist.
    pub fn unknown(what: &'static str, name: &str, existing: Vec<String>) -> Self {
        let kind = if what == "view" { "unknown-view" } else { "unknown-source" };
        let title = if what == "view" { "There is no such view" } else { "There is no such source" };
        let list = if existing.is_empty() { "none".to_owned() } else { existing.join(", ") };
        Self::new(StatusCode::NOT_FOUND, kind, title)
            .detail(format!("there is no {what} '{name}'"))
            .hint(format!("use one of: {list}"))
            .with("existing", existing)
    }

    /// The deadline passed.
    pub fn deadline(ms: u64) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "The deadline passed")
            .detail(format!("no answer within {ms} ms"))
            .hint("ask for less, or give a longer deadline=<milliseconds>")
            .with("deadline_ms", ms)
    }

    /// Too much is going on.
    pub fn busy(what: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many requests at once")
            .detail(format!("{what} at once are at their limit"))
            .hint("try again after the time in Retry-After")
            .retry_after_s(1)
    }

    /// Another node of the cluster does not answer.
    pub fn silent_node(node: u16, error: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "node-silent", "Another node does not answer")
            .detail(format!("node {node}: {error}"))
            .hint("try again after the time in Retry-After: others take over what it did")
            .with("node", node)
            .retry_after_s(1)
    }

    /// The master dataset failed: for a while, or until somebody mends it.
    pub fn dataset(action: &'static str, error: &DatasetError) -> Self {
        if !error.is_transient() {
            return Self::internal(action, error);
        }
        Self::unreachable_dataset(format!("{action}: {}", error.with_causes()))
    }

    /// The master dataset's store gives no answer.
    pub fn unreachable_dataset(detail: String) -> Self {
        tracing::warn!(detail, "the master dataset can't be reached");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "dataset-unreachable",
            "The master dataset can't be reached",
        )
        .detail(detail)
        .hint("views answer without it; try again after the time in Retry-After")
        .retry_after_s(5)
    }

    /// Something failed that the caller can't mend. The cause is logged, here and only here.
    pub fn internal(action: &'static str, cause: impl std::fmt::Display) -> Self {
        tracing::error!(action, %cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed")
            .detail(format!("{action}: {cause}"))
            .hint("the server's log has this error; try again, and report it if it stays")
    }

    /// Writes the document.
    pub fn to_json(&self) -> Value {
        let mut document = Map::new();
        document.insert("type".into(), format!("urn:sanso:problem:{}", self.kind).into());
        document.insert("title".into(), self.title.into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("detail".into(), self.detail.clone().into());
        document.insert("hint".into(), self.hint.clone().into());
        document.extend(self.extra.clone());
        Value::Object(document)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
