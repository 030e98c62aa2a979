//! `GET /openapi.json`: the API, described as OpenAPI 3.1. A test holds it against the router.

use axum::response::Response;
use serde_json::{Value, json};

use crate::problem::Problem;

pub(crate) async fn document() -> Result<Response, Problem> {
    super::json(&openapi())
}

/// Builds the document.
pub(super) fn openapi() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sanso",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Views over meter readings, exact: batch and speed merged when asked. Times are RFC 3339 in UTC; ranges are [from, to); decimals are JSON numbers with every digit of their scale, so read them with a decimal parser. Every request has a deadline. Errors are application/problem+json.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "paths": paths(),
        "components": { "schemas": schemas(), "parameters": parameters(), "responses": responses() }
    })
}

fn paths() -> Value {
    let mut all = reads();
    for more in [queries(), sources(), quarantine(), cluster(), operations()] {
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
    }
    all
}

fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn read_options() -> Vec<Value> {
    ["limit", "format", "partial", "staleness", "session", "deadline"].map(parameter).to_vec()
}

/// An answer of 200 with a JSON document, and the problems every route may answer with.
fn answers(description: &str, name: &str) -> Value {
    json!({
        "200": { "description": description, "content": { "application/json": { "schema": schema(name) } } },
        "default": { "$ref": "#/components/responses/problem" }
    })
}

/// Answers with rows: JSON or Arrow.
fn rows_answers(description: &str) -> Value {
    json!({
        "200": {
            "description": description,
            "content": {
                "application/json": { "schema": schema("Answer") },
                "application/vnd.apache.arrow.stream": {
                    "schema": {
                        "type": "string", "format": "binary",
                        "description": "An Arrow IPC stream; sanso.freshness, sanso.complete and sanso.truncated are in the schema's metadata."
                    }
                }
            }
        },
        "400": { "$ref": "#/components/responses/problem" },
        "503": { "$ref": "#/components/responses/problem" },
        "504": { "$ref": "#/components/responses/problem" },
        "default": { "$ref": "#/components/responses/problem" }
    })
}

fn reads() -> Value {
    let mut view: Vec<Value> = ["view", "key", "from", "to", "by", "order", "top"].map(parameter).to_vec();
    view.extend(read_options());
    let stream = ["view", "key", "from", "to", "limit", "format", "deadline"].map(parameter);
    json!({
        "/v1/views": { "get": {
            "operationId": "listViews", "tags": ["views"], "summary": "Lists the views that serve",
            "responses": answers("The views", "Views")
        } },
        "/v1/views/{view}": { "get": {
            "operationId": "readView", "tags": ["views"],
            "summary": "Reads rows of a view by keys and a range of time",
            "description": "Rows come in order of key and window, or as by and order say. Without a key all groups are read; answers beyond the limit say truncated.",
            "parameters": view,
            "responses": rows_answers("The rows and how fresh they are")
        } },
        "/v1/views/{view}/stream": { "get": {
            "operationId": "streamView", "tags": ["views"], "summary": "Sends rows as they change",
            "description": "Server-sent events: `snapshot` (an Answer: replaces everything), `update` (an Update: whole rows that changed, and windows that have no rows any longer), `end` ({reason}). At most one event each 100 ms. A reader that is too slow gets a snapshot.",
            "parameters": stream,
            "responses": {
                "200": { "description": "The events", "content": { "text/event-stream": { "schema": { "type": "string" } } } },
                "default": { "$ref": "#/components/responses/problem" }
            }
        } }
    })
}

fn queries() -> Value {
    json!({
        "/v1/query": { "post": {
            "operationId": "query", "tags": ["query"],
            "summary": "Answers SQL over views and the master dataset; read-only",
            "description": "Tables: every view by its name; <source>: the newest versions of its readings up to the batch cut; <source>_history: all archived readings with _offset and _append_time.",
            "parameters": read_options(),
            "requestBody": { "required": true, "content": { "application/json": {
                "schema": schema("Query"),
                "example": { "sql": "SELECT * FROM feeder_load ORDER BY kwh DESC LIMIT 10" }
            } } },
            "responses": rows_answers("The rows and how fresh they are")
        } },
        "/v1/ingest/{source}": { "post": {
            "operationId": "ingest", "tags": ["ingest"], "summary": "Appends JSON lines to the log",
            "description": "One record a line. Acknowledged only when the log has it. When the request fails half-way, the problem has acknowledged, refused, positions and unacknowledged (line numbers) too; sending lines again is harmless.",
            "parameters": [parameter("source")],
            "requestBody": { "required": true, "content": { "application/x-ndjson": {
                "schema": { "type": "string" },
                "example": "{\"usage_point\":\"NMI1\",\"channel\":\"E1\",\"start_utc\":\"2024-07-01T00:00:00Z\",\"duration_s\":1800,\"value\":0.125,\"unit\":\"kWh\"}\n"
            } } },
            "responses": {
                "200": { "description": "What became of the lines", "content": { "application/json": { "schema": schema("Ingested") } } },
                "409": { "$ref": "#/components/responses/problem" },
                "413": { "$ref": "#/components/responses/problem" },
                "422": { "description": "Every line was refused", "content": { "application/problem+json": { "schema": schema("Problem") } } },
                "503": { "$ref": "#/components/responses/problem" },
                "default": { "$ref": "#/components/responses/problem" }
            }
        } }
    })
}

fn sources() -> Value {
    json!({
        "/v1/sources": { "get": {
            "operationId": "listSources", "tags": ["sources"], "summary": "Lists the sources and how far their layers are",
            "responses": answers("The sources", "Sources")
        } },
        "/v1/sources/{source}": { "get": {
            "operationId": "readSource", "tags": ["sources"], "summary": "Describes one source",
            "parameters": [parameter("source")],
            "responses": answers("The source", "Source")
        } }
    })
}

fn quarantine() -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let time = json!({ "type": "string", "format": "date-time" });
    let kinds = json!({ "enum": ["undecodable", "misplaced", "conflict", "expression"] });
    json!({
        "/v1/quarantine/{source}": { "get": {
            "operationId": "listQuarantine", "tags": ["quarantine"],
            "summary": "Lists records of the log that can't be used, in order of log partition and offset",
            "description": "Complete and exact: what was archived is the batch layer's own judgement, what came after it the speed layer's, of whichever node has it. Where a node does not answer, partial is true: partitions_missing are the log partitions of which refused records may be missing, and records of kind expression may be that only a node in unanswered has met. A record of kind expression is in the source, but left out of a view whose expression fails on it.",
            "parameters": [
                parameter("source"),
                query("kind", "Only these kinds; repeat it for several", array(kinds)),
                query("partition", "Only this log partition", json!({ "type": "integer", "minimum": 0 })),
                query("from", "Only records that the log took at or after this time", time.clone()),
                query("to", "Only records that the log took before this time", time),
                query("replayed", "Only records that were replayed, or were not", json!({ "enum": ["yes", "no"] })),
                query("order", "newest: what the log took last comes first, without further pages", json!({ "enum": ["log", "newest"], "default": "log" })),
                query("after", "`next` of the page before", json!({ "type": "string", "pattern": "^[0-9]+:[0-9]+$" })),
                query("limit", "Most records; a page with large records may have fewer", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }))
            ],
            "responses": answers("One page", "Quarantine")
        } },
        "/v1/quarantine/{source}/replay": { "post": {
            "operationId": "replayQuarantine", "tags": ["quarantine"],
            "summary": "Appends quarantined records to the log anew, once their cause is mended",
            "description": "A misplaced record goes where its key belongs; a conflict needs a higher version, or a mended payload; an undecodable record a mended payload, or another source (`into`) that can read it. Each record is replayed once, however often it is asked for, and stays in the list with its mark. At most 1000 records at once: go on with `next` as `after`.",
            "parameters": [parameter("source")],
            "requestBody": { "required": true, "content": { "application/json": {
                "schema": schema("Replay"), "example": { "kind": "misplaced" }
            } } },
            "responses": answers("What became of the records", "Replayed")
        } }
    })
}

fn cluster() -> Value {
    json!({
        "/v1/cluster": { "get": {
            "operationId": "cluster", "tags": ["operations"],
            "summary": "The members and partitions of the cluster that this node is in",
            "responses": answers("Members, partitions and what this node holds of them", "Cluster")
        } },
        "/v1/cluster/nodes/{node}/drain": { "post": {
            "operationId": "drainNode", "tags": ["operations"],
            "summary": "Empties a node for maintenance: others take over what it holds",
            "parameters": [parameter("node")],
            "responses": answers("It is being emptied", "Draining")
        } },
        "/v1/cluster/nodes/{node}/fill": { "post": {
            "operationId": "fillNode", "tags": ["operations"], "summary": "Uses a node again that was emptied",
            "parameters": [parameter("node")],
            "responses": answers("It is used again", "Draining")
        } },
        "/v1/cluster/voters": {
            "get": {
                "operationId": "voters", "tags": ["operations"],
                "summary": "Who votes on who holds what, and how each node takes part in that",
                "responses": answers("The voters", "Voters")
            },
            "post": {
                "operationId": "changeVoters", "tags": ["operations"],
                "summary": "Makes these nodes the voters; new ones catch up first",
                "requestBody": { "required": true, "content": { "application/json": { "schema": schema("VotersAsked") } } },
                "responses": answers("Who votes now", "Voters")
            }
        },
        "/v1/drill/links": { "post": {
            "operationId": "breakLinks", "tags": ["operations"],
            "summary": "Breaks this node's links to others on purpose; only on nodes that were started for drills",
            "requestBody": { "required": true, "content": { "application/json": { "schema": schema("Links") } } },
            "responses": answers("The links that are broken now", "BrokenLinks")
        } }
    })
}

fn operations() -> Value {
    let text = |kind: &str, description: &str| {
        json!({
            "200": { "description": description, "content": { kind: { "schema": { "type": "string" } } } },
            "default": { "$ref": "#/components/responses/problem" }
        })
    };
    json!({
        "/": { "get": {
            "operationId": "console", "tags": ["operations"], "summary": "The console page",
            "responses": text("text/html", "The page")
        } },
        "/v1/status": { "get": {
            "operationId": "status", "tags": ["operations"], "summary": "The state of all layers, on all nodes",
            "responses": answers("The state", "Status")
        } },
        "/v1/datasets": { "get": {
            "operationId": "datasets", "tags": ["operations"],
            "summary": "The lineage: what each dataset is made of, where its parts are, and what it costs to have them again",
            "description": "Each dataset comes after those that it is made of. Nodes that did not say what they have are listed as silent.",
            "parameters": [{
                "name": "parts", "in": "query", "description": "Also each part of the newest-version tables, with the nodes that have it at hand",
                "schema": { "type": "boolean", "default": false }
            }],
            "responses": answers("The datasets", "Datasets")
        } },
        "/v1/jobs": { "get": {
            "operationId": "jobs", "tags": ["operations"],
            "summary": "What the batch layer works on, task by task, and what it worked on last",
            "description": "A job makes a new version of a source (advance) or computes views that are new (views). The last three ended ones of a source and kind are listed for each node that drove them, the newest first.",
            "responses": answers("The jobs", "Jobs")
        } },
        "/v1/limits": { "get": {
            "operationId": "limits", "tags": ["operations"], "summary": "Every bound of this process with its current use, and of the cluster's other nodes",
            "responses": answers("The bounds, in order of name", "Limits")
        } },
        "/healthz": { "get": {
            "operationId": "alive", "tags": ["operations"], "summary": "Answers while the process lives",
            "responses": answers("Alive", "Health")
        } },
        "/readyz": { "get": {
            "operationId": "ready", "tags": ["operations"],
            "summary": "Ready once every serving view is live and every speed worker has caught up with the log",
            "responses": answers("Ready", "Health")
        } },
        "/metrics": { "get": {
            "operationId": "metrics", "tags": ["operations"], "summary": "Metrics in the Prometheus text format",
            "responses": text("text/plain", "The metrics")
        } },
        "/openapi.json": { "get": {
            "operationId": "openapi", "tags": ["operations"], "summary": "This document",
            "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": { "schema": { "type": "object" } } } } }
        } }
    })
}

fn parameters() -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let path =
        |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    let time = json!({ "type": "string", "format": "date-time" });
    let whole = |minimum: u64| json!({ "type": "integer", "minimum": minimum });
    json!({
        "view": path("view"),
        "node": path("node"),
        "source": path("source"),
        "key": {
            "name": "key", "in": "query", "explode": true,
            "description": "A grouping key; repeat it for several. The parts of a composite key are separated by commas; within a part `\\,` is a comma and `\\\\` a backslash. The key of a view that groups by one column is taken as it is.",
            "schema": { "type": "array", "items": { "type": "string" }, "maxItems": 1000 }
        },
        "from": query("from", "The first window start wanted; a date means its midnight in UTC", time.clone()),
        "to": query("to", "The first window start no longer wanted", time),
        "by": query("by", "The column to order by; nulls come last", json!({ "type": "string" })),
        "order": query("order", "asc, or with top desc, by default", json!({ "enum": ["asc", "desc"] })),
        "top": query("top", "How many rows are wanted of that order; needs by", whole(1)),
        "limit": query("limit", "Most rows in the answer; an answer that leaves some out says truncated", json!({ "type": "integer", "minimum": 1, "default": 10000 })),
        "format": query("format", "How rows are written; Accept: application/vnd.apache.arrow.stream is the same as arrow", json!({ "enum": ["arrays", "objects", "arrow"], "default": "arrays" })),
        "partial": query("partial", "allow: answer although partitions are missing, with complete false", json!({ "enum": ["allow", "deny"], "default": "deny" })),
        "staleness": query("staleness", "Everything that the log had acknowledged so many milliseconds ago must be in the answer; waits for it within the deadline. 0 waits for what is in the log now.", whole(0)),
        "session": query("session", "freshness.session of an earlier answer, or of an ingest: the answer is at or beyond it", json!({ "type": "string" })),
        "deadline": query("deadline", "Milliseconds after which the request fails", json!({ "type": "integer", "minimum": 1, "maximum": 60000, "default": 5000 }))
    })
}

fn responses() -> Value {
    json!({ "problem": {
        "description": "What went wrong and what to do (RFC 9457)",
        "content": { "application/problem+json": { "schema": schema("Problem") } }
    } })
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn schemas() -> Value {
    let mut all = answer_schemas();
    for more in [state_schemas(), cluster_schemas(), quarantine_schemas()] {
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
    }
    all
}

fn quarantine_schemas() -> Value {
    let text = json!({ "type": "string" });
    let whole = json!({ "type": "integer", "minimum": 0 });
    let next = json!({ "type": ["string", "null"], "description": "Where to go on: the next `after`; null at the end" });
    let mark = object(
        json!({
            "number": whole, "at": text, "source": text, "partition": whole,
            "offset": { "type": ["integer", "null"], "description": "null while it is under way" }
        }),
        &["number", "at", "source", "partition", "offset"],
    );
    let record = object(
        json!({
            "partition": whole, "offset": whole, "appended": { "type": ["string", "null"], "format": "date-time" },
            "kind": text, "reason": text, "view": { "type": ["string", "null"] }, "payload": text,
            "payload_hex": { "type": "string", "description": "Where the payload is no UTF-8 text" },
            "replayed": { "oneOf": [{ "type": "null" }, mark] }
        }),
        &["partition", "offset", "appended", "kind", "reason", "payload", "replayed"],
    );
    let place = object(
        json!({ "source": text, "partition": whole, "offset": whole }),
        &["source", "partition", "offset"],
    );
    json!({
        "Quarantine": object(json!({
            "source": text, "count": whole, "replayed": whole, "next": next,
            "counts": { "type": "object", "additionalProperties": whole }, "records": array(record),
            "partial": { "type": "boolean" }, "partitions_missing": array(whole.clone()), "unanswered": array(unanswered())
        }), &["source", "count", "counts", "replayed", "records", "next", "partial", "partitions_missing", "unanswered"]),
        "Replay": {
            "type": "object", "additionalProperties": false,
            "properties": {
                "records": array(object(json!({ "at": { "type": "string", "description": "log partition and offset, such as 0:17" }, "payload": { "type": "object", "description": "the mended record" } }), &["at"])),
                "kind": text, "partition": whole, "from": text, "to": text, "after": text, "limit": whole,
                "into": { "type": "string", "description": "the source to append to, by default the same" },
                "version": { "type": "integer", "description": "the version to give every record" },
                "as_newest": { "type": "boolean", "description": "for a source without versions: what is replayed becomes the newest" }
            }
        },
        "Replayed": object(json!({
            "number": { "type": ["integer", "null"] }, "next": next, "session": text,
            "partial": { "type": "boolean" }, "partitions_missing": array(whole.clone()), "unanswered": array(unanswered()),
            "replayed": array(object(json!({ "partition": whole, "offset": whole, "to": place }), &["partition", "offset", "to"])),
            "refused": array(object(json!({ "partition": whole, "offset": whole, "kind": text, "reason": text }), &["partition", "offset", "kind", "reason"]))
        }), &["number", "replayed", "refused", "next", "session", "partial", "partitions_missing", "unanswered"])
    })
}

fn unanswered() -> Value {
    object(json!({ "node": { "type": "integer" }, "error": { "type": "string" } }), &["node", "error"])
}

fn answer_schemas() -> Value {
    let text = json!({ "type": "string" });
    let whole = json!({ "type": "integer", "minimum": 0 });
    let maybe_time = json!({ "type": ["string", "null"], "format": "date-time" });
    let offsets = array(whole.clone());
    let by_source = json!({ "type": "object", "additionalProperties": offsets });
    let row = json!({ "oneOf": [{ "type": "array" }, { "type": "object" }] });
    let column = object(json!({ "name": text, "type": text }), &["name", "type"]);
    json!({
        "Column": column,
        "Answer": object(json!({
            "view": text, "version": text, "columns": array(schema("Column")), "rows": array(row.clone()),
            "truncated": { "type": "boolean" },
            "complete": { "type": "boolean", "description": "Whether every partition answered" },
            "freshness": schema("Freshness")
        }), &["columns", "rows", "truncated", "complete", "freshness"]),
        "Update": object(json!({
            "view": text, "columns": array(schema("Column")), "rows": array(row.clone()),
            "removed": array(object(json!({ "key": { "type": "array" }, "window_start": maybe_time }), &["key"])),
            "freshness": schema("Freshness")
        }), &["view", "columns", "rows", "removed", "freshness"]),
        "Freshness": object(json!({
            "batch_version": whole, "cut": by_source,
            "applied": { "description": "All records below these offsets are in the answer", "type": "object", "additionalProperties": offsets },
            "log_end": by_source,
            "lag_records": { "type": "integer", "description": "Records in the log and not in the answer" },
            "corrections_pending": { "type": "boolean" }, "watermark": maybe_time,
            "staleness_ms_max": { "type": ["integer", "null"] },
            "partitions_answered": whole, "partitions_total": whole, "session": text,
            "views": array(json!({ "type": "object" }))
        }), &["batch_version", "cut", "applied", "lag_records", "corrections_pending", "watermark", "partitions_answered", "partitions_total", "session", "views"]),
        "Query": { "type": "object", "properties": { "sql": text }, "required": ["sql"], "additionalProperties": false },
        "Ingested": object(json!({
            "acknowledged": whole, "refused_count": whole,
            "refused": array(object(json!({ "line": whole, "reason": text }), &["line", "reason"])),
            "positions": { "type": "object", "description": "Next offset by log partition", "additionalProperties": whole },
            "session": text
        }), &["acknowledged", "refused", "refused_count", "positions", "session"]),
        "Problem": object(json!({
            "type": { "type": "string", "format": "uri" }, "title": text, "status": whole, "detail": text,
            "hint": { "type": "string", "description": "What to do" }
        }), &["type", "title", "status", "detail", "hint"])
    })
}

fn cluster_schemas() -> Value {
    json!({
        "Draining": object(json!({ "node": { "type": "integer" }, "draining": { "type": "boolean" } }), &["node", "draining"]),
        "VotersAsked": json!({
            "type": "object", "additionalProperties": false, "required": ["voters"],
            "properties": {
                "voters": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 65_535 } },
                "force": { "type": "boolean", "description": "Also fewer than three where there were three" }
            }
        }),
        "Voters": object(json!({
            "leader": { "type": ["integer", "null"] }, "warning": { "type": ["string", "null"] },
            "voters": array(json!({ "type": "integer" })),
            "nodes": array(object(json!({
                "node": { "type": "integer" }, "applied": { "type": ["integer", "null"] },
                "part": { "enum": ["votes", "learns", "waits", "lost its folder", "does not answer"] }
            }), &["node", "part", "applied"]))
        }), &["leader", "voters", "nodes"]),
        "Links": json!({
            "type": "object", "description": "By the other node's number; others are healed.",
            "additionalProperties": {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "cut_in": { "type": "boolean" }, "cut_out": { "type": "boolean" },
                    "delay_ms": { "type": "integer", "minimum": 0, "maximum": 60_000 },
                    "loss": { "type": "number", "minimum": 0, "maximum": 1 }
                }
            }
        }),
        "BrokenLinks": object(json!({ "links": schema("Links") }), &["links"])
    })
}

fn job() -> Value {
    let whole = json!({ "type": "integer", "minimum": 0 });
    let text = json!({ "type": "string" });
    let told = |description: &str| json!({ "type": "integer", "minimum": 0, "description": description });
    let required = [
        "source",
        "driver",
        "kind",
        "version",
        "views",
        "tasks",
        "done",
        "found",
        "running",
        "waiting",
        "twins",
        "lost",
        "failed",
        "refused",
        "elapsed_ms",
        "remaining_ms",
        "nodes",
        "runs",
    ];
    object(
        json!({
            "source": text, "driver": { "type": ["integer", "null"] }, "kind": { "enum": ["advance", "views"] },
            "version": whole, "views": array(text.clone()), "tasks": whole, "done": whole,
            "found": told("Of those done, how many had been done before, for a driver that was lost"),
            "running": whole, "waiting": whole, "elapsed_ms": whole,
            "twins": told("Runs begun beside another one that took long"),
            "lost": told("Runs lost with their node"), "failed": told("Runs that failed"),
            "refused": told("Runs refused by nodes that don't know a view yet, or have another version of the program"),
            "remaining_ms": { "type": ["integer", "null"], "description": "An estimate; none before the first task has ended" },
            "nodes": array(object(
                json!({ "node": whole, "done": whole, "running": whole, "waiting": whole }),
                &["node", "done", "running", "waiting"]
            )),
            "runs": array(object(json!({ "task": text, "node": whole, "elapsed_ms": whole }), &["task", "node", "elapsed_ms"])),
            "outcome": { "enum": ["done", "failed", "stopped"], "description": "Of those that have ended" },
            "error": { "type": ["string", "null"] }, "ended": { "type": ["string", "null"], "format": "date-time" }
        }),
        &required,
    )
}

fn state_schemas() -> Value {
    let text = json!({ "type": "string" });
    let whole = json!({ "type": "integer", "minimum": 0 });
    let any = json!({ "type": "object" });
    json!({
        "Views": object(json!({ "views": array(schema("View")) }), &["views"]),
        "View": object(json!({
            "name": text, "version": text, "source": text, "output_topic": { "type": ["string", "null"] },
            "columns": array(schema("Column")), "key": array(schema("Column")),
            "window": object(json!({
                "kind": { "enum": ["none", "tumbling", "sliding", "calendar"] }, "text": text,
                "size_ms": { "type": ["integer", "null"] }, "slide_ms": { "type": ["integer", "null"] },
                "unit": { "type": ["string", "null"] }, "zone": { "type": ["string", "null"] },
                "column": { "type": ["string", "null"] }
            }), &["kind", "text"]),
            "partitions": whole
        }), &["name", "version", "source", "columns", "key", "window", "partitions"]),
        "Sources": object(json!({ "sources": array(schema("Source")), "unanswered": array(unanswered()) }), &["sources", "unanswered"]),
        "Source": object(json!({
            "name": text, "topic": text, "format": json!({ "enum": ["json", "avro", "protobuf"] }),
            "registry": json!({ "type": ["string", "null"] }), "subject": json!({ "type": ["string", "null"] }),
            "troubles": json!({ "type": ["object", "null"], "additionalProperties": { "type": "string" } }),
            "key": text, "segment_size": whole, "log_partitions": whole,
            "columns": array(any.clone()), "counts": any, "lag_records": whole, "quarantined": { "type": ["integer", "null"] },
            "quarantine": { "type": ["object", "null"], "description": "Records in quarantine by kind" },
            "partitions": array(any.clone()), "batch": { "type": ["object", "null"] },
            "partitions_missing": { "type": "array", "items": whole, "description": "Log partitions of which no node tells: they are not in the counts" },
            "unanswered": array(unanswered()),
            "job": { "type": ["object", "null"], "description": "The tasks of the batch version being made, and the node that drives it" }
        }), &["name", "topic", "format", "key", "columns", "counts", "partitions", "partitions_missing", "batch"]),
        "Status": object(json!({
            "product": text, "version": text, "time": text, "ready": { "type": "boolean" }, "not_ready": array(text.clone()),
            "node": { "type": ["integer", "null"], "description": "This node, in a cluster" },
            "nodes": { "type": ["array", "null"], "items": any, "description": "All nodes of the cluster; one that does not answer has answers false and an error" },
            "audit": any, "sources": array(schema("Source")), "views": array(any.clone())
        }), &["product", "version", "ready", "audit", "sources", "views"]),
        "Datasets": object(json!({
            "datasets": array(object(json!({
                "name": text, "kind": { "enum": ["log", "segments", "newest-version table", "view"] }, "source": text,
                "made_of": array(text.clone()), "by": text, "version": { "type": ["integer", "null"] }, "parts": whole,
                "rows": { "type": ["integer", "null"] }, "bytes": { "type": ["integer", "null"] },
                "storage": text, "replicas": text,
                "parts_at_hand": whole, "parts_copied": whole, "part_list": { "type": ["array", "null"], "items": any },
                "recovery": array(any.clone())
            }), &["name", "kind", "source", "made_of", "by", "version", "parts", "rows", "bytes", "storage", "replicas"])),
            "nodes": array(json!({ "type": "integer" })),
            "silent": array(object(json!({ "node": { "type": "integer" }, "error": text }), &["node", "error"]))
        }), &["datasets", "nodes", "silent"]),
        "Job": job(),
        "Jobs": object(json!({
            "running": array(schema("Job")), "ended": array(schema("Job")),
            "driver": { "type": ["integer", "null"], "description": "The node that drives the batch layer, in a cluster" },
            "unanswered": array(unanswered())
        }), &["running", "ended", "driver", "unanswered"]),
        "Cluster": json!({ "type": "object" }),
        "Limit": object(json!({
            "name": text, "unit": text, "used": whole, "max": whole, "parts": whole, "fullest_percent": whole,
            "setting": text, "then": { "type": "string", "description": "What happens when it is reached" }
        }), &["name", "unit", "used", "max", "parts", "fullest_percent", "setting", "then"]),
        "Limits": object(json!({
            "limits": array(schema("Limit")), "node": { "type": "integer", "description": "This node, in a cluster" },
            "nodes": { "description": "All nodes of the cluster", "type": "array", "items": object(json!({
                "node": { "type": "integer" }, "answers": { "type": "boolean" }, "error": text,
                "limits": array(schema("Limit"))
            }), &["node", "answers"]) }
        }), &["limits"]),
        "Health": object(json!({ "status": text }), &["status"])
    })
}
