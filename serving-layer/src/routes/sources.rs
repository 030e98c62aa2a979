//! `GET /v1/sources` and `GET /v1/sources/{source}`: what is declared and how far its layers are.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use futures::future::join_all;
use sanso_catalog::{BatchProgress, PartitionProgress, RunningTask};
use sanso_view::Source;
use serde_json::{Value, json};

use crate::json::time_text;
use crate::nodes::Whole;
use crate::params::Params;
use crate::problem::Problem;
use crate::quarantine::live_views;
use crate::service::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let whole = shared.nodes.whole().await;
    let all = shared.context.catalog.current().sources.values().cloned().collect();
    let sources = describe(&shared, &whole, all).await;
    super::json(&json!({ "sources": sources, "unanswered": whole.describe_unanswered() }))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let source = find(&shared, &name)?;
    let whole = shared.nodes.whole().await;
    let mut described = describe(&shared, &whole, vec![source]).await.remove(0);
    described["unanswered"] = whole.describe_unanswered().into();
    super::json(&described)
}

/// Finds a declared source.
pub(crate) fn find(shared: &Shared, name: &str) -> Result<Arc<Source>, Problem> {
    let catalog = shared.context.catalog.current();
    catalog
        .sources
        .get(name)
        .cloned()
        .ok_or_else(|| Problem::unknown("source", name, catalog.sources.keys().cloned().collect()))
}

/// Describes sources, as all nodes together know them.
pub(crate) async fn describe(shared: &Shared, whole: &Whole, sources: Vec<Arc<Source>>) -> Vec<Value> {
    join_all(sources.iter().map(|source| describe_one(shared, whole, source))).await
}

async fn describe_one(shared: &Shared, whole: &Whole, source: &Source) -> Value {
    let views = live_views(&shared.context.catalog.current(), &source.name);
    let quarantine = shared.nodes.counts(source, whole, &views).await;
    let progress = whole.progress(&source.name);
    let lag = |progress: &PartitionProgress| progress.end.saturating_sub(progress.position);
    let in_cluster = shared.nodes.are_many();
    let partitions = progress.iter().map(|(l, node, feeds, progress)| {
        let mut described = partition(*l, progress);
        if in_cluster {
            described["node"] = (*node).into();
            described["feeds"] = (*feeds).into();
        }
        described
    });
    let job = whole.job(&source.name).map(|(node, job)| {
        let run = |run: &RunningTask| json!({ "task": run.task, "worker": run.worker });
        let mut described = json!({
            "version": job.version,
            "tasks": job.tasks,
            "done": job.done,
            "running": job.running.iter().map(run).collect::<Vec<_>>(),
        });
        if in_cluster {
            described["node"] = node.into();
        }
        described
    });
    let troubles = whole.troubles(&source.name);
    json!({
        "name": source.name,
        "topic": source.topic,
        "format": source.format.name(),
        "registry": source.format.registered().map(|r| &r.registry),
        "subject": source.format.registered().map(|r| &r.subject),
        "key": source.columns[source.key_column].name,
        "segment_size": source.segment_size,
        "log_partitions": source.partitions,
        "columns": columns(source),
        "counts": whole.counts(&source.name),
        "lag_records": progress.iter().map(|(.., progress)| lag(progress)).sum::<u64>(),
        "quarantined": quarantine.map(|counts| counts.total()),
        "quarantine": quarantine,
        "partitions": partitions.collect::<Vec<_>>(),
        "partitions_missing": whole.missing(source),
        "troubles": (!troubles.is_empty()).then_some(troubles),
        "batch": whole.batch(&source.name).as_ref().map(batch_progress),
        "job": job,
    })
}

fn columns(source: &Source) -> Vec<Value> {
    let column = |column: &sanso_view::Column| json!({ "name": column.name, "type": column.value_type.to_string(), "nullable": column.nullable });
    source.columns.iter().map(column).collect()
}

fn partition(id: u32, progress: &PartitionProgress) -> Value {
    json!({
        "partition": id,
        "end": progress.end,
        "position": progress.position,
        "lag": progress.end.saturating_sub(progress.position),
        "watermark": progress.watermark_us.and_then(time_text),
        "idle": progress.idle,
        "counts": progress.counts,
    })
}

fn batch_progress(progress: &BatchProgress) -> Value {
    json!({
        "version": progress.version,
        "cut": progress.cut,
        "published": time_text(progress.published_us),
        "run_ms": progress.run_ms,
        "newest_rows": progress.newest_rows,
        "audit": progress.audit,
        "error": progress.error,
    })
}
