//! `GET /v1/views/{view}/stream`: live updates as server-sent events.
//!
//! ```text
//!   changes of the partitions ──▶ changed groups (a set) ──100 ms──▶ read again ──▶ update
//!                          └ too many, lagged, other version ──────▶ read all   ──▶ snapshot
//!   partitions of which this node has no replica, looked at ──────────▶
//! ```
//!
//! Pulled by the client: nothing is read or kept while it does not read, but
//! for the store's bounded backlog. When that overflows, or changes come faster
//! than they can be sent one by one, the next event is a snapshot.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::select_all;
use futures::stream;
use sanso_catalog::Catalog;
use sanso_core::{Change, PartitionId, ReadReply, StoreError};
use sanso_state::{Fingerprint, GroupId, Value, ValueType, Windows};
use sanso_view::View;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Freshness, merge};
use crate::document::Document;
use crate::fetch::{Need, ends, evidence, fetch, serving, turn};
use crate::finish::{Asked, Finished, finish};
use crate::json::time_text;
use crate::metrics::STREAMS;
use crate::params::Params;
use crate::plan::{PartitionRead, Wanted, plan};
use crate::problem::Problem;
use crate::render::{Shape, columns, rows};
use crate::routes::afar::Afar;
use crate::routes::options::{Format, ReadOptions};
use crate::routes::reply::Reply;
use crate::routes::view::wanted;
use crate::service::Shared;

/// Changed groups that are sent one by one; more are sent as a snapshot.
const CHANGED_MAX: usize = 2_000;
/// How often a comment is sent so that nobody takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often the batch version is looked at: adopting one may cover offsets
/// that never came as changes.
const LOOK_AT_BATCH: Duration = Duration::from_secs(5);
/// How long to wait before trying again to read a view that is not live.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn open(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let params = Params::read(&uri, &["key", "from", "to", "limit", "format", "deadline"])?;
    let options = ReadOptions::read(&shared.config, &params, &headers)?;
    let view = serving(&shared, &name)?;
    let wanted = wanted(&shared.config, &view, &params)?;
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return Err(Problem::busy("streams"));
    };
    let shape = match options.format {
        Format::Json(shape) => shape,
        Format::Arrow => Shape::Arrays,
    };
    let catalog = shared.context.catalog.subscribe();
    let closing = shared.closing.subscribe();
    metrics::gauge!(STREAMS).increment(1.0);
    let mut watcher = Watcher {
        shared,
        name,
        wanted,
        rows_max: options.rows_max,
        shape,
        seen: Seen::nothing(view),
        catalog,
        closing,
        ended: false,
        _open: Open(permit),
    };
    // The first snapshot is read here, so that what is wrong is said as a problem and not as an event.
    let first = watcher.snapshot().await?;
    let rest = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    let events = futures::StreamExt::chain(stream::once(async move { Ok(first) }), rest);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("alive")).into_response())
}

/// Counts an open stream while it lives.
struct Open(#[expect(dead_code, reason = "held for its release")] OwnedSemaphorePermit);

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(STREAMS).decrement(1.0);
    }
}

/// What a stream has sent last, and its subscriptions from then on.
struct Seen {
    view: Arc<View>,
    changes: Vec<broadcast::Receiver<Arc<Change>>>,
    afar: Afar,
    batch_versions: Vec<Option<u64>>,
    sent: Instant,
}

impl Seen {
    fn nothing(view: Arc<View>) -> Self {
        let afar = Afar::of(Vec::new());
        Self { view, changes: Vec::new(), afar, batch_versions: Vec::new(), sent: Instant::now() }
    }
}

/// One open stream.
struct Watcher {
    shared: Arc<Shared>,
    name: String,
    wanted: Wanted,
    rows_max: usize,
    shape: Shape,
    seen: Seen,
    catalog: watch::Receiver<Arc<Catalog>>,
    closing: watch::Receiver<bool>,
    ended: bool,
    _open: Open,
}

/// What is to be sent next.
enum Next {
    Changed(BTreeSet<GroupId>),
    Everything,
    End(&'static str),
}

impl Watcher {
    /// Waits for something to send.
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        loop {
            let sent = match self.wait().await {
                Next::End(why) => {
                    self.ended = true;
                    return Some(Event::default().event("end").data(json!({ "reason": why }).to_string()));
                }
                Next::Everything => self.snapshot().await.map(Some),
                Next::Changed(groups) => self.update(groups).await,
            };
            match sent {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                // A partition may be away for a moment; the stream goes on when it is back.
                Err(problem) => {
                    self.seen = Seen::nothing(Arc::clone(&self.seen.view));
                    tracing::debug!(view = self.name, detail = problem.detail_text(), "read for a stream");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Collects changes for as long as the shortest time between two events asks.
    async fn wait(&mut self) -> Next {
        if self.seen.changes.is_empty() && self.seen.afar.is_empty() {
            return if *self.closing.borrow() {
                Next::End("the server is stopping")
            } else {
                Next::Everything
            };
        }
        let not_before = self.seen.sent + Duration::from_millis(self.shared.config.stream_interval_ms);
        let mut changed = BTreeSet::new();
        if self.seen.afar.moved(&self.shared.context.store).await {
            tokio::time::sleep_until(not_before).await;
            return Next::Everything;
        }
        loop {
            let look = Instant::now() + LOOK_AT_BATCH;
            let look = self.seen.afar.due().map_or(look, |due| due.min(look));
            let until = if changed.is_empty() { look } else { not_before };
            tokio::select! {
                biased;
                _ = self.closing.changed() => return Next::End("the server is stopping"),
                _ = self.catalog.changed() => {
                    match self.serving_version() {
                        None => return Next::End("the view is gone"),
                        Some(version) if version != self.seen.view.fingerprint => return Next::Everything,
                        Some(_) => {}
                    }
                }
                received = timeout_at(until, received(&mut self.seen.changes)) => match received {
                    Ok(Ok(change)) => {
                        changed.extend(change.groups.iter().flat_map(|id| windows_of(&self.seen.view, &self.wanted, id)));
                        if changed.len() > CHANGED_MAX {
                            tokio::time::sleep_until(not_before).await;
                            return Next::Everything;
                        }
                    }
                    // Lagged, or the partition was replaced.
                    Ok(Err(_)) => {
                        tokio::time::sleep_until(not_before).await;
                        return Next::Everything;
                    }
                    Err(_) if changed.is_empty() => {
                        if self.seen.afar.moved(&self.shared.context.store).await || self.adopted().await {
                            tokio::time::sleep_until(not_before).await;
                            return Next::Everything;
                        }
                    }
                    Err(_) => return Next::Changed(changed),
                },
            }
            if !changed.is_empty() && Instant::now() >= not_before {
                return Next::Changed(changed);
            }
        }
    }

    fn serving_version(&self) -> Option<Fingerprint> {
        self.shared.context.catalog.current().serving.get(&self.name).copied()
    }

    /// Says whether a partition stands on another batch version than when last read.
    async fn adopted(&self) -> bool {
        for (read, before) in plan(&self.seen.view, &self.wanted).iter().zip(&self.seen.batch_versions) {
            let progress = self.shared.context.store.read(read.id, &sanso_core::ReadRequest::Progress).await;
            if progress.ok().map(|reply| reply.progress.version) != *before {
                return true;
            }
        }
        false
    }

    /// Subscribes anew and reads everything wanted.
    async fn snapshot(&mut self) -> Result<Event, Problem> {
        let view = serving(&self.shared, &self.name)?;
        let reads = plan(&view, &self.wanted);
        self.seen = Seen::nothing(Arc::clone(&view));
        // Subscribed before reading: a change in between is sent again rather than lost.
        let mut changes = Vec::new();
        for read in &reads {
            changes.push(self.subscribe(read.id)?);
        }
        let shared = Arc::clone(&self.shared);
        let _turn = turn(&shared, &reads).await?;
        let (replies, freshness) = self.fetch(&view, &reads).await?;
        self.seen.batch_versions =
            replies.iter().map(|reply| reply.as_ref().map(|reply| reply.progress.version)).collect();
        let applied = reads.iter().zip(&replies).zip(&changes).filter(|(_, change)| change.is_none());
        let applied = applied
            .filter_map(|((read, reply), _)| Some((read.id, reply.as_ref()?.progress.applied.clone())));
        let afar = Afar::of(applied.collect());
        let asked = Asked {
            from: self.wanted.from,
            to: self.wanted.to,
            order: None,
            rows_max: self.rows_max,
            bytes_max: usize::MAX,
            format: Format::Json(self.shape),
        };
        let Finished { rows, truncated } = finish(&view, merge(replies), asked).await?;
        let reply = Reply {
            view: Some((view.name.clone(), view.fingerprint.to_string())),
            schema: view.output_schema(),
            rows,
            truncated,
            freshness,
        };
        let document = reply.write().map_err(|error| Problem::internal("write an event", error))?;
        self.seen.changes = changes.into_iter().flatten().collect();
        self.seen.afar = afar;
        self.seen.sent = Instant::now();
        Ok(Event::default().event("snapshot").data(String::from_utf8_lossy(&document)))
    }

    /// Reads the changed windows again; nothing when none of them is wanted.
    async fn update(&mut self, changed: BTreeSet<GroupId>) -> Result<Option<Event>, Problem> {
        let view = Arc::clone(&self.seen.view);
        let (Some(from), Some(last)) =
            (changed.iter().map(|id| id.window_start).min(), changed.iter().map(|id| id.window_start).max())
        else {
            return Ok(None);
        };
        let keys: BTreeSet<Box<[u8]>> = changed.iter().map(|id| id.key.clone()).collect();
        let wanted = Wanted { keys: Some(keys), from, to: last.saturating_add(1) };
        let (replies, freshness) = self.fetch(&view, &plan(&view, &wanted)).await?;
        let windows = windows(&view, replies, &changed);
        let present: BTreeSet<&GroupId> = windows.iter().map(|(id, _)| id).collect();
        let removed: Vec<_> =
            changed.iter().filter(|id| !present.contains(id)).map(|id| removed(&view, id)).collect();
        let batch =
            view.finish_windows(&windows).map_err(|error| Problem::internal("finish the windows", error))?;
        let rows = rows(&[batch], self.shape).map_err(|error| Problem::internal("write an event", error))?;
        let document = || {
            let mut document = Document::with_capacity(rows.len());
            document.member("view", &view.name)?;
            document.member("columns", &columns(&view.output_schema()))?;
            document.raw("rows").extend_from_slice(&rows);
            document.member("removed", &removed)?;
            document.member("freshness", &freshness)?;
            Ok(document.end())
        };
        let document =
            document().map_err(|error: serde_json::Error| Problem::internal("write an event", error))?;
        self.seen.sent = Instant::now();
        Ok(Some(Event::default().event("update").data(String::from_utf8_lossy(&document))))
    }

    async fn fetch(
        &self,
        view: &View,
        reads: &[PartitionRead],
    ) -> Result<(Vec<Option<ReadReply>>, Freshness), Problem> {
        let need = Need::default();
        let deadline = Instant::now() + self.shared.config.deadline();
        let replies = fetch(&self.shared, view, reads, &need, deadline).await?;
        let evidence = [evidence(view, &replies)];
        let freshness = Freshness::of(&evidence, &ends(&self.shared, &evidence), &need.session);
        Ok((replies, freshness))
    }

    /// Subscribes to the changes of a view partition; none where it is to be followed from afar.
    fn subscribe(&self, id: PartitionId) -> Result<Option<broadcast::Receiver<Arc<Change>>>, Problem> {
        match self.shared.context.store.changes(id) {
            Ok(changes) => Ok(Some(changes)),
            Err(StoreError::Unreachable { .. }) => Ok(None),
            Err(error) => Err(Problem::new(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                "partition-not-live",
                "Part of the view is not available",
            )
            .detail(error.to_string())
            .hint("try again shortly")
            .retry_after_s(1)),
        }
    }
}

/// Waits for a change of any partition. Cancellation loses nothing: a receiver
/// that is not polled to its end keeps its place.
async fn received(changes: &mut [broadcast::Receiver<Arc<Change>>]) -> Result<Arc<Change>, RecvError> {
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let waits = changes.iter_mut().map(|receiver| Box::pin(receiver.recv()));
    select_all(waits).await.0
}

/// Returns the wanted windows that a changed group (with windows: a pane) belongs to.
fn windows_of(view: &View, wanted: &Wanted, id: &GroupId) -> Vec<GroupId> {
    if wanted.keys.as_ref().is_some_and(|keys| !keys.contains(&id.key)) {
        return Vec::new();
    }
    if !view.window.is_some() {
        return vec![id.clone()];
    }
    let windows = view.window.windows_of(id.window_start).into_iter();
    let inside = windows.filter(|(start, _)| wanted.from <= *start && *start < wanted.to);
    inside.map(|(start, _)| GroupId { key: id.key.clone(), window_start: start }).collect()
}

/// Combines the panes read into those windows that changed.
fn windows(
    view: &View,
    replies: Vec<Option<ReadReply>>,
    changed: &BTreeSet<GroupId>,
) -> Vec<(GroupId, sanso_state::GroupState)> {
    let mut out: std::collections::BTreeMap<GroupId, sanso_state::GroupState> = Default::default();
    let everything = Wanted::all();
    for (id, state) in merge(replies) {
        for window in windows_of(view, &everything, &id) {
            if !changed.contains(&window) {
                continue;
            }
            match out.get_mut(&window) {
                Some(combined) => combined.combine(&state),
                None => {
                    out.insert(window, state.clone());
                }
            }
        }
    }
    out.into_iter().filter(|(_, state)| state.rows > 0).collect()
}

/// Names a window that has no rows any longer.
fn removed(view: &View, id: &GroupId) -> serde_json::Value {
    let values = Value::decode_key(&id.key).unwrap_or_default();
    let key: Vec<serde_json::Value> =
        values.iter().zip(&view.key_columns).map(|(value, (_, kind))| scalar(value, *kind)).collect();
    let start = if view.window.is_some() { time_text(id.window_start) } else { None };
    json!({ "key": key, "window_start": start })
}

/// Writes a part of a key as JSON.
fn scalar(value: &Value, kind: ValueType) -> serde_json::Value {
    match (value, kind) {
        (Value::Null, _) => serde_json::Value::Null,
        (Value::Bool(v), _) => json!(v),
        (Value::Timestamp(us), _) => json!(time_text(*us)),
        (Value::Date(days), _) => {
            let date = chrono::NaiveDate::from_epoch_days(*days);
            json!(date.map(|date| date.to_string()))
        }
        (Value::Decimal(mantissa), ValueType::Decimal { precision, scale }) => {
            let text = <arrow::datatypes::Decimal128Type as arrow::datatypes::DecimalType>::format_decimal(
                *mantissa, precision, scale,
            );
            serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
        }
        (Value::Text(text), _) => json!(text.as_ref()),
        (Value::Int(v), _) => json!(v),
        (other, _) => json!(other.to_string()),
    }
}
