//! `POST /v1/ingest/{source}`: JSON lines into the log.
//!
//! ```text
//!   body ──lines──▶ chunk ──decode──▶ good: by partition ──append──▶ log ──▶ acknowledged
//!                              └────▶ refused: line, reason
//! ```
//!
//! The body is read no faster than the log acknowledges: one chunk at a time,
//! each of bounded lines and bytes. When something fails half-way, the problem
//! document says exactly what was acknowledged before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use futures::{Stream, StreamExt};
use sanso_log::{Append, Log, LogError, Retry};
use sanso_state::Offset;
use sanso_view::Source;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};

use crate::config::ServingConfig;
use crate::metrics::{INGEST_ACKNOWLEDGED, INGEST_REFUSED};
use crate::params::Params;
use crate::problem::Problem;
use crate::routes::body::{self, Pace};
use crate::routes::ingest_lines::{Chunk, Prepared, prepare};
use crate::routes::sources::find;
use crate::service::Shared;
use crate::session::Session;

/// Refused lines that an answer lists; all are counted.
const REFUSED_LISTED_MAX: usize = 1_000;
/// Longest wait for the log to acknowledge one chunk.
const APPEND_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn append(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let source = find(&shared, &name)?;
    refuse_windows(&source)?;
    body::check_headers(&headers)?;
    check_length(&shared.config, &headers)?;
    let mut ingest = Ingest { shared: &shared, source: Arc::clone(&source), outcome: Outcome::default() };
    let ended = ingest.take(body.into_data_stream()).await;
    let outcome = ingest.outcome;
    metrics::counter!(INGEST_ACKNOWLEDGED, "source" => name.clone()).increment(outcome.acknowledged);
    metrics::counter!(INGEST_REFUSED, "source" => name).increment(outcome.refused_count);
    match ended {
        Err(problem) => {
            Err(outcome.fields(&source).into_iter().fold(problem, |p, (name, value)| p.with(&name, value)))
        }
        Ok(()) if outcome.acknowledged == 0 && outcome.refused_count > 0 => {
            Ok(all_refused(&outcome, &source))
        }
        Ok(()) => super::json(&Value::Object(outcome.fields(&source))),
    }
}

/// Refuses what would lie among the closed windows of a view.
fn refuse_windows(source: &Source) -> Result<(), Problem> {
    let Some(view) = source.format.view() else { return Ok(()) };
    let problem = Problem::new(StatusCode::CONFLICT, "not-ingested", "The source is made of a view")
        .detail(format!("source {} is the closed windows of view {view}", source.name))
        .hint(format!("send readings to the source of {view}"));
    Err(problem)
}

fn check_length(config: &ServingConfig, headers: &HeaderMap) -> Result<(), Problem> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > config.body_bytes_max as u64) {
        return Err(too_large(config));
    }
    Ok(())
}

/// What became of a body so far.
#[derive(Debug, Default)]
struct Outcome {
    acknowledged: u64,
    refused: Vec<Value>,
    refused_count: u64,
    positions: BTreeMap<u32, Offset>,
    lines: u64,
}

impl Outcome {
    fn refuse(&mut self, line: u64, reason: &str) {
        self.refused_count += 1;
        if self.refused.len() < REFUSED_LISTED_MAX {
            self.refused.push(json!({ "line": line, "reason": reason }));
        }
    }

    fn fields(&self, source: &Source) -> Map<String, Value> {
        let mut seen = vec![0; source.partitions as usize];
        for (&partition, &next) in &self.positions {
            seen[partition as usize] = next;
        }
        let mut session = Session::default();
        session.see(&source.name, &seen);
        let positions: BTreeMap<String, Offset> =
            self.positions.iter().map(|(p, next)| (p.to_string(), *next)).collect();
        let mut fields = Map::new();
        fields.insert("acknowledged".into(), self.acknowledged.into());
        fields.insert("refused".into(), self.refused.clone().into());
        fields.insert("refused_count".into(), self.refused_count.into());
        fields.insert("positions".into(), json!(positions));
        fields.insert("session".into(), session.token().into());
        fields
    }
}

struct Ingest<'a> {
    shared: &'a Shared,
    source: Arc<Source>,
    outcome: Outcome,
}

impl Ingest<'_> {
    /// Reads the body to its end, chunk by chunk.
    async fn take(&mut self, body: impl Stream<Item = Result<Bytes, axum::Error>>) -> Result<(), Problem> {
        let config = &self.shared.config;
        let mut body = std::pin::pin!(body);
        let mut lines = Lines::new(config.line_bytes_max);
        let mut total = 0;
        let mut pace = Pace::new(config);
        loop {
            let asked = Instant::now();
            let part = match timeout(pace.patience(), body.next()).await {
                Err(_) => return Err(stalled(config)),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Ok(Some(Ok(part))) => part,
            };
            pace.came(part.len(), asked.elapsed());
            total += part.len();
            if total > config.body_bytes_max {
                // Whole lines before the limit were taken; the rest was not read.
                self.flush(&mut lines).await?;
                return Err(too_large(config));
            }
            let mut rest = part;
            while !rest.is_empty() {
                lines.push(&mut rest, config.ingest_chunk_lines_max, config.ingest_chunk_bytes_max);
                if lines.is_full(config) {
                    self.flush(&mut lines).await?;
                }
            }
        }
        lines.finish();
        self.flush(&mut lines).await
    }

    /// Decodes the lines collected and appends the good ones.
    async fn flush(&mut self, lines: &mut Lines) -> Result<(), Problem> {
        let chunk = lines.take(self.outcome.lines);
        self.outcome.lines += chunk.count;
        if chunk.lines.is_empty() && chunk.refused.is_empty() {
            return Ok(());
        }
        check_room(self.shared)?;
        let source = Arc::clone(&self.source);
        let now_us = chrono::Utc::now().timestamp_micros();
        let prepared = tokio::task::spawn_blocking(move || prepare(&source, chunk, now_us)).await;
        let prepared = prepared.map_err(|error| Problem::internal("decode the lines", error))?;
        for (line, reason) in &prepared.refused {
            self.outcome.refuse(*line, reason);
        }
        self.append(prepared).await
    }

    /// Appends to all partitions at once, to each in the order of the lines.
    async fn append(&mut self, prepared: Prepared) -> Result<(), Problem> {
        let (log, topic) = (&self.shared.context.log, self.source.topic.as_str());
        let appends = prepared.by_partition.into_iter().map(|(partition, (lines, records))| async move {
            let all = lines.clone();
            let appended = timeout(APPEND_MAX, append_writable(log, topic, partition, (lines, records)));
            (partition, all, appended.await)
        });
        let mut failure: Option<Problem> = None;
        let mut unacknowledged: Vec<u64> = Vec::new();
        for (partition, lines, appended) in join_all(appends).await {
            match appended {
                Ok(Ok((offsets, refused))) => {
                    self.outcome.acknowledged += offsets.len() as u64;
                    refused.iter().for_each(|(line, reason)| self.outcome.refuse(*line, reason));
                    if let Some(last) = offsets.last() {
                        self.outcome.positions.insert(partition, last + 1);
                    }
                }
                Ok(Err(error)) => {
                    unacknowledged.extend(lines);
                    failure = Some(log_problem(&error));
                }
                Err(_) => {
                    unacknowledged.extend(lines);
                    failure = Some(log_silent());
                }
            }
        }
        let Some(problem) = failure else { return Ok(()) };
        unacknowledged.sort_unstable();
        let first = unacknowledged.first().copied().unwrap_or(0);
        unacknowledged.truncate(REFUSED_LISTED_MAX);
        Err(problem
            .with("unacknowledged", unacknowledged)
            .with("first_unacknowledged_line", first)
            .with("lines_read", self.outcome.lines))
    }
}

/// Appends the records that the topic's format can hold; gives their offsets, and the lines of the
/// others with the reason.
async fn append_writable(
    log: &Arc<dyn Log>,
    topic: &str,
    partition: u32,
    (lines, mut records): (Vec<u64>, Vec<Append>),
) -> Result<(Vec<Offset>, Vec<(u64, String)>), LogError> {
    let refused = match log.append(topic, partition, records.clone()).await {
        Err(LogError::Unwritable { refused }) => refused,
        appended => return appended.map(|offsets| (offsets, Vec::new())),
    };
    let refused_lines = refused.iter().map(|(at, reason)| (lines[*at], reason.clone())).collect();
    for (at, _) in refused.into_iter().rev() {
        records.remove(at);
    }
    if records.is_empty() {
        return Ok((Vec::new(), refused_lines));
    }
    Ok((log.append(topic, partition, records).await?, refused_lines))
}

/// Cuts a body into lines; holds at most one chunk.
struct Lines {
    line_bytes_max: usize,
    partial: BytesMut,
    overlong: bool,
    ready: Vec<(u64, Bytes)>,
    refused: Vec<(u64, String)>,
    count: u64,
    bytes: usize,
}

impl Lines {
    fn new(line_bytes_max: usize) -> Self {
        Self {
            line_bytes_max,
            partial: BytesMut::new(),
            overlong: false,
            ready: Vec::new(),
            refused: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Takes lines from the front of `part` until it is empty or the chunk is full.
    fn push(&mut self, part: &mut Bytes, lines_max: usize, bytes_max: usize) {
        while !part.is_empty() && self.ready.len() < lines_max && self.bytes < bytes_max {
            match part.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    self.extend(&part.split_to(at));
                    let _newline = part.split_to(1);
                    self.finish();
                }
                None => {
                    self.extend(part);
                    part.clear();
                }
            }
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.overlong || self.partial.len() + bytes.len() > self.line_bytes_max {
            self.overlong = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Ends the current line.
    fn finish(&mut self) {
        let line = self.partial.split().freeze();
        self.count += 1;
        if std::mem::take(&mut self.overlong) {
            let max = self.line_bytes_max;
            self.refused
                .push((self.count, format!("the line is longer than {max} bytes: send one record a line")));
        } else if !line.iter().all(u8::is_ascii_whitespace) {
            self.bytes += line.len();
            self.ready.push((self.count, line));
        }
    }

    fn is_full(&self, config: &ServingConfig) -> bool {
        self.ready.len() >= config.ingest_chunk_lines_max
            || self.bytes >= config.ingest_chunk_bytes_max
            || self.refused.len() >= config.ingest_chunk_lines_max
    }

    /// Takes the chunk; `before` lines of the body came before it.
    fn take(&mut self, before: u64) -> Chunk {
        let count = std::mem::take(&mut self.count);
        self.bytes = 0;
        let number = |lines: u64| before + lines;
        Chunk {
            count,
            lines: std::mem::take(&mut self.ready).into_iter().map(|(n, line)| (number(n), line)).collect(),
            refused: std::mem::take(&mut self.refused).into_iter().map(|(n, why)| (number(n), why)).collect(),
        }
    }
}

fn all_refused(outcome: &Outcome, source: &Source) -> Response {
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "all-refused", "Every line was refused")
        .detail(format!("none of {} lines is a record of source {}", outcome.refused_count, source.name))
        .hint(format!("send lines of JSON objects with the columns of GET /v1/sources/{}", source.name));
    outcome.fields(source).into_iter().fold(problem, |p, (name, value)| p.with(&name, value)).into_response()
}

fn too_large(config: &ServingConfig) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large")
        .detail(format!("a body has at most {} bytes", config.body_bytes_max))
        .hint("send the lines in several requests")
}

/// Refuses lines while the views hold as many groups as they may, here or on another node: what is in
/// the log must be lifted, so this is where growth is stopped.
fn check_room(shared: &Shared) -> Result<(), Problem> {
    let (groups, max) = (shared.context.store.groups(), shared.config.view_groups_max);
    let elsewhere = *shared.full_elsewhere.lock();
    let (of, groups, max) = match elsewhere {
        _ if groups >= max => (String::new(), groups, max),
        Some((node, groups, max)) => (format!(" of node {node}"), groups, max),
        None => return Ok(()),
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "views-full", "The views hold as much as they may")
        .detail(format!("the views{of} hold {groups} groups in memory, and {max} are allowed"))
        .hint("declare fewer or coarser views, keep large ones on disk (WITH (storage = 'disk')), or raise serving.view_groups_max where there is memory; sanso limits shows the use")
        .with("budget", "serving.view_groups_max")
        .retry_after_s(10))
}

fn stalled(config: &ServingConfig) -> Problem {
    let (stall, pace) = (config.body_stall_ms_max, config.body_bytes_per_s_min);
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body-stalled", "The body came too slowly")
        .detail(format!("nothing came for {stall} ms, or less than {pace} bytes a second over a longer time"))
        .hint("send again what was not acknowledged, in smaller requests")
}

fn broken(error: &axum::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body-broken", "The body broke off")
        .detail(error.to_string())
        .hint("send again what was not acknowledged")
}

fn log_silent() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "log-silent", "The log did not answer")
        .detail(format!("the log did not acknowledge within {} s", APPEND_MAX.as_secs()))
        .hint("the unacknowledged lines may or may not be in the log; send them again, duplicates change nothing")
        .with("outcome_unknown", true)
        .retry_after_s(1)
}

/// Says what an error of the log means for the caller.
pub(crate) fn log_problem(error: &LogError) -> Problem {
    if let LogError::TooLarge { .. } = error {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The log refused the size")
            .detail(error.to_string())
            .hint("send smaller records");
    }
    match error.retry() {
        Retry::Later => {
            tracing::warn!(%error, "append to the log");
            let unknown = matches!(error, LogError::Indeterminate { .. } | LogError::Unavailable { .. });
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "log-unavailable", "The log is not available")
                .detail(error.to_string())
                .hint("try again shortly; lines that are in the log already change nothing when they come again")
                .with("outcome_unknown", unknown)
                .retry_after_s(1)
        }
        Retry::Never => Problem::internal("use the log", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&str], line_bytes_max: usize) -> (Vec<(u64, String)>, Vec<u64>) {
        let mut lines = Lines::new(line_bytes_max);
        for part in parts {
            let mut part = Bytes::copy_from_slice(part.as_bytes());
            lines.push(&mut part, usize::MAX, usize::MAX);
        }
        lines.finish();
        let chunk = lines.take(100);
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        let good = chunk.lines.into_iter().map(|(number, line)| (number, text(line))).collect();
        (good, chunk.refused.into_iter().map(|(number, _)| number).collect())
    }

    #[test]
    fn lines_are_the_same_however_the_body_arrives() {
        let expected = vec![(101, "a".to_owned()), (103, "bc".to_owned()), (104, "d".to_owned())];
        assert_eq!(cut(&["a\n\nbc\nd"], 10).0, expected);
        assert_eq!(cut(&["a", "\n", "\nb", "c\n", "d"], 10).0, expected);
    }

    #[test]
    fn an_overlong_line_is_refused_and_the_next_is_taken() {
        let (good, refused) = cut(&["aaa", "aaa\nb\n"], 4);
        assert_eq!(good, [(102, "b".to_owned())]);
        assert_eq!(refused, [101]);
    }

    #[test]
    fn a_chunk_stops_at_its_bound_and_leaves_the_rest() {
        let mut lines = Lines::new(10);
        let mut part = Bytes::from_static(b"a\nb\nc\n");
        lines.push(&mut part, 2, usize::MAX);
        assert_eq!(&part[..], b"c\n");
        assert_eq!(lines.take(0).lines.len(), 2);
    }
}
