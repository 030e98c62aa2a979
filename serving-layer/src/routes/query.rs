//! `POST /v1/query`: SQL over views and the master dataset.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;
use tokio::time::timeout_at;

use crate::answer::Freshness;
use crate::fetch::ends;
use crate::finish::Rows;
use crate::params::{Params, shown};
use crate::problem::Problem;
use crate::routes::body::check_headers;
use crate::routes::options::{READ_OPTIONS, ReadOptions};
use crate::routes::reply::Reply;
use crate::service::Shared;
use crate::sql;

/// Bytes of the body besides the SQL, and those of an escaped character.
const BODY_BYTES_MORE: usize = 1 << 10;
const ESCAPED_BYTES_MAX: usize = 6;

pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let params = Params::read(&uri, &READ_OPTIONS)?;
    let options = ReadOptions::read(&shared.config, &params, &headers)?;
    check_headers(&headers)?;
    let work = async {
        let sql = statement(body, shared.config.sql_bytes_max).await?;
        answer(&shared, sql, &options).await?.respond().await
    };
    match timeout_at(options.until, work).await {
        Ok(response) => response,
        Err(_) => Err(options.passed()),
    }
}

async fn answer(shared: &Arc<Shared>, sql: String, options: &ReadOptions) -> Result<Reply, Problem> {
    let _turn = match shared.queries.try_acquire() {
        Ok(turn) => turn,
        Err(_) => {
            let _waiting =
                shared.queries_waiting.try_acquire().map_err(|_| Problem::busy("waiting queries"))?;
            shared.queries.acquire().await.map_err(|_| Problem::busy("queries"))?
        }
    };
    let answer = sql::run(shared, sql, options.need.clone(), options.rows_max, options.until).await?;
    let freshness = Freshness::of(&answer.evidence, &ends(shared, &answer.evidence), &options.need.session);
    Ok(Reply {
        view: None,
        schema: answer.schema,
        rows: Rows::Columns(answer.batches, options.format),
        truncated: answer.truncated,
        freshness,
    })
}

/// Reads `{"sql": "…"}`.
async fn statement(body: Body, sql_bytes_max: usize) -> Result<String, Problem> {
    let bytes = to_bytes(body, sql_bytes_max * ESCAPED_BYTES_MAX + BODY_BYTES_MORE)
        .await
        .map_err(|_| too_long(sql_bytes_max))?;
    let refuse = |detail: String| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body is not a query")
            .detail(detail)
            .hint(r#"send {"sql": "SELECT …"}; options such as deadline go into the URL"#)
    };
    let document: Value =
        serde_json::from_slice(&bytes).map_err(|error| refuse(format!("the body is not JSON: {error}")))?;
    let Value::Object(mut members) = document else {
        return Err(refuse("the body is not a JSON object".to_owned()));
    };
    if let Some(name) = members.keys().find(|name| *name != "sql") {
        return Err(refuse(format!("there is no member '{}'; the only one is 'sql'", shown(name))));
    }
    match members.remove("sql") {
        Some(Value::String(sql)) if sql.len() > sql_bytes_max => Err(too_long(sql_bytes_max)),
        Some(Value::String(sql)) if !sql.trim().is_empty() => Ok(sql),
        Some(Value::String(_)) => Err(refuse("'sql' is empty".to_owned())),
        Some(_) => Err(refuse("'sql' is not text".to_owned())),
        None => Err(refuse("'sql' is missing".to_owned())),
    }
}

fn too_long(sql_bytes_max: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large")
        .detail(format!("a query has at most {sql_bytes_max} bytes of SQL, and its body must arrive whole"))
        .hint("shorten the SQL")
        .with("budget", "serving.sql_bytes_max")
        .with("budget_bytes", sql_bytes_max)
}
