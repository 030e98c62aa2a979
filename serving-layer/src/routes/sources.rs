//! `GET /v1/sources` and `GET /v1/sources/{source}`: what is declared and how far its layers are.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use sanso_catalog::{BatchProgress, PartitionProgress, RecordCounts};
use sanso_view::Source;
use serde_json::{Value, json};

use crate::params::Params;
use crate::problem::Problem;
use crate::quarantine::posted_counts;
use crate::render::time_text;
use crate::service::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    super::json(&json!({ "sources": describe_all(&shared).await? }))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let source = find(&shared, &name)?;
    let mut described = describe(&shared, vec![source]).await?;
    super::json(&described.remove(0))
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

/// Describes all sources.
pub(crate) async fn describe_all(shared: &Shared) -> Result<Vec<Value>, Problem> {
    describe(shared, shared.context.catalog.current().sources.values().cloned().collect()).await
}

async fn describe(shared: &Shared, sources: Vec<Arc<Source>>) -> Result<Vec<Value>, Problem> {
    let (board, catalog) = (shared.context.board.clone(), shared.context.catalog.current());
    // Counting the quarantine may wait for the disk.
    let described = tokio::task::spawn_blocking(move || {
        let (speed, batch) = (board.speed(), board.batch());
        let (troubles, jobs) = (board.troubles(), board.jobs());
        let describe = |source: &Arc<Source>| {
            let empty = std::collections::BTreeMap::new();
            let progress = speed.get(&source.name).unwrap_or(&empty);
            let quarantine = posted_counts(&board, &catalog, &source.name);
            let partitions: Vec<Value> =
                progress.iter().map(|(id, progress)| partition(*id, progress)).collect();
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
                "counts": sum(progress.values()),
                "lag_records": progress.values().map(|p| p.end.saturating_sub(p.position)).sum::<u64>(),
                "quarantined": quarantine.map(|counts| counts.total()),
                "quarantine": quarantine,
                "partitions": partitions,
                "troubles": troubles.get(&source.name),
                "batch": batch.get(&source.name).map(batch_progress),
                "job": jobs.get(&source.name),
            })
        };
        sources.iter().map(describe).collect()
    });
    described.await.map_err(|error| Problem::internal("read the status board", error))
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

fn sum<'a>(partitions: impl Iterator<Item = &'a PartitionProgress>) -> RecordCounts {
    partitions.fold(RecordCounts::default(), |sum, progress| {
        let counts = progress.counts;
        RecordCounts {
            records: sum.records + counts.records,
            new: sum.new + counts.new,
            corrections: sum.corrections + counts.corrections,
            duplicates: sum.duplicates + counts.duplicates,
            conflicts: sum.conflicts + counts.conflicts,
            stale: sum.stale + counts.stale,
            undecodable: sum.undecodable + counts.undecodable,
            misplaced: sum.misplaced + counts.misplaced,
            late: sum.late + counts.late,
        }
    })
}
