//! `GET /v1/jobs`: what the batch layer works on, task by task, and what it worked on last.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use sanso_catalog::{BatchJob, EndedJob, JobOutcome};
use serde_json::{Value, json};

use crate::json::time_text;
use crate::params::Params;
use crate::problem::Problem;
use crate::service::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, &[])?;
    let whole = shared.nodes.whole().await;
    let driver = |node: u16| (!whole.is_alone).then_some(node);
    let running = whole.jobs().map(|(source, node, job)| describe(source, driver(node), job));
    let ended = whole.ended_jobs().into_iter().map(|(source, node, ended)| {
        let EndedJob { job, outcome, ended_us } = ended;
        let mut described = describe(source, driver(node), job);
        described["outcome"] = match outcome {
            JobOutcome::Done => "done",
            JobOutcome::Failed(_) => "failed",
            JobOutcome::Stopped => "stopped",
        }
        .into();
        described["error"] = match outcome {
            JobOutcome::Failed(error) => error.as_str().into(),
            JobOutcome::Done | JobOutcome::Stopped => Value::Null,
        };
        described["ended"] = time_text(*ended_us).into();
        described
    });
    super::json(&json!({
        "running": running.collect::<Vec<_>>(),
        "ended": ended.collect::<Vec<_>>(),
        "driver": whole.driver.and_then(driver),
        "unanswered": whole.describe_unanswered(),
    }))
}

fn describe(source: &str, driver: Option<u16>, job: &BatchJob) -> Value {
    let run = |run: &sanso_catalog::RunningTask| json!({ "task": run.task, "node": run.worker, "elapsed_ms": run.elapsed_ms });
    let nodes = job.nodes.iter().map(|(node, tasks)| {
        json!({ "node": node, "done": tasks.done, "running": tasks.running, "waiting": tasks.waiting })
    });
    json!({
        "source": source,
        "driver": driver,
        "kind": job.kind,
        "version": job.version,
        "views": job.views,
        "tasks": job.tasks,
        "done": job.done,
        "found": job.found,
        "running": job.tasks.saturating_sub(job.done + job.waiting),
        "waiting": job.waiting,
        "twins": job.twins,
        "lost": job.lost,
        "failed": job.failed,
        "refused": job.refused,
        "elapsed_ms": job.elapsed_ms,
        "remaining_ms": job.remaining_ms,
        "nodes": nodes.collect::<Vec<_>>(),
        "runs": job.running.iter().map(run).collect::<Vec<_>>(),
    })
}
