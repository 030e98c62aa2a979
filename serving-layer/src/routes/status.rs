//! `GET /v1/status`: the state of all layers, on all nodes, in one document, for people and the console.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use sanso_core::{PartitionId, ReadRequest};
use sanso_view::View;
use serde_json::{Value, json};

use crate::json::time_text;
use crate::params::Params;
use crate::problem::Problem;
use crate::routes::sources;
use crate::service::Shared;

pub(crate) async fn read(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let missing = shared.readiness.check(&shared.context).await;
    let whole = shared.nodes.whole().await;
    let catalog = shared.context.catalog.current();
    let mut views = Vec::new();
    for view in catalog.live.values() {
        let serving = catalog.serving.get(&view.name) == Some(&view.fingerprint);
        views.push((view.name.clone(), !serving, describe(&shared, view, serving).await));
    }
    views.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let described = sources::describe(&shared, &whole, catalog.sources.values().cloned().collect()).await;
    super::json(&json!({
        "product": "sanso",
        "version": env!("CARGO_PKG_VERSION"),
        "time": time_text(chrono::Utc::now().timestamp_micros()),
        "ready": missing.is_empty(),
        "not_ready": missing,
        "node": whole.describe_nodes().map(|_| whole.me),
        "nodes": whole.describe_nodes(),
        "audit": whole.audit(),
        "sources": described,
        "views": views.into_iter().map(|(_, _, view)| view).collect::<Vec<_>>(),
    }))
}

async fn describe(shared: &Shared, view: &View, serving: bool) -> Value {
    let mut partitions = Vec::new();
    for index in 0..view.partitions {
        let id = PartitionId { view: view.fingerprint, index };
        partitions.push(match shared.context.store.read(id, &ReadRequest::Progress).await {
            Ok(reply) => json!({
                "partition": index,
                "live": true,
                "batch_version": reply.progress.version,
                "cut": reply.progress.cut,
                "applied": reply.progress.applied,
                "watermark": reply.progress.watermark_us.and_then(time_text),
                "base_groups": reply.progress.base_groups,
                "speed_groups": reply.progress.speed_groups,
                "late_groups": reply.progress.late_groups,
            }),
            Err(_) => json!({ "partition": index, "live": false }),
        });
    }
    json!({
        "name": view.name,
        "version": view.fingerprint.to_string(),
        "source": view.source.name,
        "serving": serving,
        "partitions": partitions,
    })
}
