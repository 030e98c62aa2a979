//! `GET /v1/quarantine/{source}`: records that were refused after they were in the log.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use sanso_state::Offset;
use serde_json::json;

use crate::params::{Params, shown};
use crate::problem::Problem;
use crate::routes::sources::find;
use crate::service::Shared;

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let params = Params::read(&uri, &["after", "limit"])?;
    let limit = params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT) as usize;
    let after = params.one("after")?.map(position).transpose()?;
    let source = find(&shared, &name)?;
    let Some(store) = shared.context.board.quarantine() else {
        return Err(not_connected());
    };
    let read = tokio::task::spawn_blocking(move || {
        let records = store.list(&name, after, limit + 1)?;
        Ok::<_, String>((records, store.count(&name)?))
    });
    let read = read.await.map_err(|error| Problem::internal("read the quarantine", error))?;
    let (mut records, count) = read.map_err(|error| Problem::internal("read the quarantine", error))?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|last| format!("{}:{}", last.partition, last.offset));
    super::json(&json!({ "source": source.name, "count": count, "records": records, "next": next }))
}

fn position(text: &str) -> Result<(u32, Offset), Problem> {
    let parse = || {
        let (partition, offset) = text.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    parse().ok_or_else(|| {
        let detail = format!("'after={}' is not a position", shown(text));
        Problem::parameter("after", detail, "pass `next` of the page before, such as 0:17")
    })
}

fn not_connected() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready yet")
        .detail("the store of quarantined records is not open yet")
        .hint("try again shortly")
        .retry_after_s(1)
}
