//! `GET /v1/quarantine/{source}`: records of the log that can't be used, and why.
//! `POST /v1/quarantine/{source}/replay`: appends them anew once the cause is mended.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use sanso_catalog::Catalog;
use sanso_state::{Offset, Quarantined, Refusal};
use sanso_view::Source;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::json::time_text;
use crate::params::{Params, parse_time, shown};
use crate::problem::Problem;
use crate::quarantine::{Ask, Asked, Mark, Wanted, read, replay};
use crate::routes::sources::find;
use crate::service::Shared;
use crate::session::Session;

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;
/// Bytes of a replay's body, mended payloads included.
const BODY_BYTES_MAX: usize = 16 << 20;
const PARAMETERS: [&str; 8] = ["after", "limit", "kind", "partition", "from", "to", "replayed", "order"];

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let params = Params::read(&uri, &PARAMETERS)?;
    let limit = params.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT) as usize;
    let after = params.one("after")?.map(|text| position("after", text)).transpose()?;
    let by_time = params.word("order", &[("log", false), ("newest", true)])?.unwrap_or(false);
    let wanted = Wanted {
        kinds: params.all("kind").map(kind).collect::<Result<_, _>>()?,
        partition: params.number("partition", 0, u64::from(u32::MAX))?.map(|partition| partition as u32),
        appended_us: (params.time("from")?, params.time("to")?),
        replayed: params.word("replayed", &[("yes", true), ("no", false)])?,
        positions: Vec::new(),
    };
    let source = find(&shared, &name)?;
    if by_time && after.is_some() {
        let hint = "follow `next` in the order of the log, or ask for a time range";
        return Err(Problem::parameter("after", "order=newest has no further pages", hint));
    }
    let ask = if by_time { Ask::Newest } else { Ask::After(after) };
    let read = read(&shared, &source, &wanted, ask, limit).await?;
    let last = read.records.last().filter(|_| read.more && !by_time);
    let next = last.map(|last| at(last.partition, last.offset));
    let catalog = shared.context.catalog.current();
    let entry =
        |record: &Quarantined| entry(record, read.marks.get(&(record.partition, record.offset)), &catalog);
    super::json(&json!({
        "source": source.name,
        "count": read.counts.total(),
        "counts": read.counts,
        "replayed": read.marks.len(),
        "records": read.records.iter().map(entry).collect::<Vec<_>>(),
        "next": next,
        "partial": !read.missing.is_empty() || !read.unanswered.is_empty(),
        "partitions_missing": read.missing,
        "unanswered": read.unanswered,
    }))
}

fn entry(record: &Quarantined, mark: Option<&Mark>, catalog: &Catalog) -> Value {
    let mut entry = json!({
        "partition": record.partition,
        "offset": record.offset,
        "appended": time_text(record.append_time_us),
        "kind": record.kind,
        "reason": record.reason,
        "payload": String::from_utf8_lossy(&record.payload),
        "replayed": mark.map(|mark| json!({
            "number": mark.number,
            "at": time_text(mark.planned_us),
            "source": mark.into,
            "partition": mark.partition,
            "offset": mark.offset,
        })),
    });
    if std::str::from_utf8(&record.payload).is_err() {
        entry["payload_hex"] = record.payload.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    if let Some(view) = record.view {
        entry["view"] = catalog.live.get(&view).map(|view| view.name.clone()).into();
    }
    entry
}

fn at(partition: u32, offset: Offset) -> String {
    format!("{partition}:{offset}")
}

fn position(name: &'static str, text: &str) -> Result<(u32, Offset), Problem> {
    let parse = || {
        let (partition, offset) = text.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    parse().ok_or_else(|| {
        let detail = format!("'{name}={}' is not a position", shown(text));
        Problem::parameter(name, detail, "write log partition and offset, such as 0:17")
    })
}

fn kind(text: &str) -> Result<Refusal, Problem> {
    Refusal::named(text).ok_or_else(|| {
        let kinds = Refusal::ALL.map(Refusal::name).join(", ");
        Problem::parameter(
            "kind",
            format!("'kind={}' is not usable", shown(text)),
            format!("use one of: {kinds}"),
        )
    })
}

/// The body of a replay.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplayBody {
    records: Vec<ReplayOne>,
    kind: Option<String>,
    partition: Option<u32>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    into: Option<String>,
    version: Option<i64>,
    as_newest: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayOne {
    at: String,
    payload: Option<Map<String, Value>>,
}

pub(crate) async fn append(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let source = find(&shared, &name)?;
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| bad_body(&error.to_string()))?;
    let body: ReplayBody = serde_json::from_slice(&bytes).map_err(|error| bad_body(&error.to_string()))?;
    let asked = asked(&shared, &name, body)?;
    // Once it is planned it goes on, also when the caller goes away.
    let (working, into) = (Arc::clone(&shared), Arc::clone(&asked.into));
    let done = tokio::spawn(async move { replay(&working, &source, &asked).await });
    let done = done.await.map_err(|error| Problem::internal("replay", error))??;
    let mut seen = vec![0; into.partitions as usize];
    for (record, offset) in &done.appended {
        let position = &mut seen[record.to as usize];
        *position = (*position).max(offset + 1);
    }
    let mut session = Session::default();
    session.see(&into.name, &seen);
    let replayed = done.appended.iter().map(|(record, offset)| {
        json!({
            "partition": record.partition,
            "offset": record.offset,
            "to": { "source": into.name, "partition": record.to, "offset": offset },
        })
    });
    let refused = done.refused.iter().map(|(record, reason)| {
        json!({ "partition": record.partition, "offset": record.offset, "kind": record.kind, "reason": reason })
    });
    super::json(&json!({
        "number": done.number,
        "replayed": replayed.collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "next": done.next.map(|(partition, offset)| at(partition, offset)),
        "session": session.token(),
        "partial": !done.missing.is_empty() || !done.unanswered.is_empty(),
        "partitions_missing": done.missing,
        "unanswered": done.unanswered,
    }))
}

fn asked(shared: &Shared, name: &str, body: ReplayBody) -> Result<Asked, Problem> {
    let selects = body.kind.is_some() || body.partition.is_some() || body.from.is_some() || body.to.is_some();
    if body.records.is_empty() != selects {
        return Err(bad_body(
            "it names records, or selects them by kind, partition, from and to; one of both",
        ));
    }
    if body.records.len() > LIMIT_MAX as usize {
        return Err(bad_body(&format!("it names more than {LIMIT_MAX} records")));
    }
    let time = |name: &'static str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_time(text).map(Some).ok_or_else(|| {
            let detail = format!("'{name}': '{}' is not a time", shown(text));
            Problem::parameter(name, detail, "write RFC 3339, such as 2024-07-01T00:00:00Z, or a date")
        }),
    };
    let mut positions = Vec::new();
    let mut payloads = BTreeMap::new();
    for one in body.records {
        let at = position("at", &one.at)?;
        positions.push(at);
        payloads.extend(one.payload.map(|payload| (at, payload)));
    }
    positions.sort_unstable();
    let into = find(shared, body.into.as_deref().unwrap_or(name))?;
    if into.format.registered().is_some() || into.format.view().is_some() {
        return Err(not_into(&into));
    }
    Ok(Asked {
        wanted: Wanted {
            kinds: body.kind.iter().map(|text| kind(text)).collect::<Result<_, _>>()?,
            partition: body.partition,
            appended_us: (time("from", &body.from)?, time("to", &body.to)?),
            replayed: None,
            positions,
        },
        after: body.after.as_deref().map(|text| position("after", text)).transpose()?,
        limit: body.limit.unwrap_or(LIMIT_MAX as usize).clamp(1, LIMIT_MAX as usize),
        into,
        version: body.version,
        payloads,
        as_newest: body.as_newest,
    })
}

/// Refuses a replay whose records would be written by a schema: they read back as other text, by which
/// a replay that broke off could not find them again.
fn not_into(into: &Source) -> Problem {
    let (name, format) = (&into.name, into.format.name());
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body is not usable")
        .detail(format!("records can't be replayed into source {name}, whose topic holds {format}"))
        .hint(format!("send mended records as JSON lines to POST /v1/ingest/{name}"))
}

fn bad_body(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body is not usable")
        .detail(detail)
        .hint(r#"send {"kind": "misplaced"} or {"records": [{"at": "0:17"}], "version": 2}"#)
}
