//! `GET /v1/views/{view}`: rows of one view by keys and a range of time, ordered and bounded.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use sanso_view::{View, Window};
use tokio::time::timeout_at;

use crate::answer::{Freshness, merge};
use crate::config::ServingConfig;
use crate::fetch::{ends, evidence, fetch, serving, turn};
use crate::finish::{Asked, Finished, Order, finish};
use crate::params::{Params, split_key};
use crate::plan::{Wanted, plan};
use crate::problem::Problem;
use crate::routes::options::{READ_OPTIONS, ReadOptions};
use crate::routes::reply::Reply;
use crate::service::Shared;

/// What one request wants of a view.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) options: ReadOptions,
    pub(crate) wanted: Wanted,
    order: Option<Order>,
}

impl Request {
    /// Reads a request's parameters; its deadline counts from now.
    pub(crate) fn read(
        config: &ServingConfig,
        view: &View,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let known: Vec<&str> =
            ["key", "from", "to", "by", "order", "top"].into_iter().chain(READ_OPTIONS).collect();
        let params = Params::read(uri, &known)?;
        Ok(Self {
            options: ReadOptions::read(config, &params, headers)?,
            wanted: wanted(config, view, &params)?,
            order: order(config, view, &params)?,
        })
    }
}

pub(crate) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = serving(&shared, &name)?;
    let request = Request::read(&shared.config, &view, &uri, &headers)?;
    let options = &request.options;
    let work = async { answer(&shared, &view, &request).await?.respond().await };
    match timeout_at(options.until, work).await {
        Ok(response) => response,
        Err(_) => Err(options.passed()),
    }
}

async fn answer(shared: &Shared, view: &Arc<View>, request: &Request) -> Result<Reply, Problem> {
    let Request { options, wanted, order } = request;
    let reads = plan(view, wanted);
    let _turn = turn(shared, &reads).await?;
    let replies = fetch(shared, view, &reads, &options.need, options.until).await?;
    let evidence = [evidence(view, &replies)];
    let freshness = Freshness::of(&evidence, &ends(shared, &evidence), &options.need.session);
    let asked = Asked {
        from: wanted.from,
        to: wanted.to,
        order: order.clone(),
        rows_max: options.rows_max,
        bytes_max: shared.config.answer_bytes_max,
        format: options.format,
    };
    let Finished { rows, truncated } = finish(view, merge(replies), asked).await?;
    Ok(Reply {
        view: Some((view.name.clone(), view.fingerprint.to_string())),
        schema: view.output_schema(),
        rows,
        truncated,
        freshness,
    })
}

/// Reads what is wanted of a view: `key`, `from` and `to`.
pub(crate) fn wanted(config: &ServingConfig, view: &View, params: &Params<'_>) -> Result<Wanted, Problem> {
    let (from, to) = (params.time("from")?, params.time("to")?);
    if view.window == Window::None && (from.is_some() || to.is_some()) {
        let detail = format!("view {} has no windows of time", view.name);
        return Err(Problem::parameter("from", detail, "leave from and to out"));
    }
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Problem::parameter("to", "'to' is before 'from'", "the range is [from, to)"));
    }
    let texts: Vec<&str> = params.all("key").collect();
    if texts.len() > config.keys_max {
        let detail = format!("{} keys are given", texts.len());
        return Err(Problem::parameter("key", detail, format!("give at most {} at once", config.keys_max)));
    }
    let keys = texts.into_iter().map(|text| key(view, text)).collect::<Result<BTreeSet<_>, _>>()?;
    Ok(Wanted {
        keys: (!keys.is_empty()).then_some(keys),
        from: from.unwrap_or(i64::MIN),
        to: to.unwrap_or(i64::MAX),
    })
}

fn key(view: &View, text: &str) -> Result<Box<[u8]>, Problem> {
    let parts = split_key(text, view.key_columns.len())?;
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    view.encode_key(&parts).map_err(|error| {
        let columns: Vec<&str> = view.key_columns.iter().map(|(name, _)| name.as_str()).collect();
        Problem::parameter(
            "key",
            error.to_string(),
            format!("view {} is grouped by: {}; separate the parts by commas", view.name, columns.join(", ")),
        )
    })
}

fn order(config: &ServingConfig, view: &View, params: &Params<'_>) -> Result<Option<Order>, Problem> {
    let top = params.number("top", 1, config.rows_max as u64)?.map(|top| top as usize);
    let descending = params.word("order", &[("asc", false), ("desc", true)])?;
    let schema = view.output_schema();
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let list = || names().collect::<Vec<_>>().join(", ");
    let Some(by) = params.one("by")? else {
        if top.is_some() || descending.is_some() {
            let hint = format!("name the column with by=…: {}", list());
            return Err(Problem::parameter("by", "'top' and 'order' need a column to order by", hint));
        }
        return Ok(None);
    };
    let Some(column) = names().position(|name| name == by) else {
        let detail = format!("view {} has no column '{}'", view.name, crate::params::shown(by));
        return Err(Problem::parameter("by", detail, format!("use one of: {}", list())));
    };
    Ok(Some(Order { column, descending: descending.unwrap_or(top.is_some()), top }))
}
