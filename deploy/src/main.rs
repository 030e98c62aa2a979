//! The `sanso` command: one binary for the platform and for speaking to it.

mod application;
mod background;
mod bounds;
mod cluster;
mod config;
mod datasets;
mod demo;
mod dev;
mod disks;
mod drill;
mod explain;
mod fleet;
mod http;
mod ingest;
mod jobs;
mod limits;
mod plan;
mod quarantine;
mod query;
mod source_log;
mod table;
mod telemetry;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Lambda-architecture platform for smart-meter data.
///
/// Readings go into a log, a batch and a speed layer keep the same SQL-declared
/// views, and HTTP answers merge both, exactly.
#[derive(Parser)]
#[command(name = "sanso", version, arg_required_else_help = true)]
#[command(after_help = "Start with:  sanso demo\nThen open    http://127.0.0.1:7070/")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(dev::DevArgs),
    Demo(demo::DemoArgs),
    Ingest(ingest::IngestArgs),
    Query(query::QueryArgs),
    Quarantine(quarantine::QuarantineArgs),
    Plan(plan::PlanArgs),
    Datasets(datasets::DatasetsArgs),
    Jobs(jobs::JobsArgs),
    Explain(explain::ExplainArgs),
    Limits(limits::LimitsArgs),
    Node(cluster::NodeArgs),
    Cluster(cluster::ClusterArgs),
    Drill(drill::DrillArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Dev(args) => dev::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Ingest(args) => ingest::run(args).await,
        Command::Query(args) => query::run(args).await,
        Command::Quarantine(args) => quarantine::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Datasets(args) => datasets::run(args).await,
        Command::Jobs(args) => jobs::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Limits(args) => limits::run(args).await,
        Command::Node(args) => cluster::run_node(args).await,
        Command::Cluster(args) => cluster::run(args).await,
        Command::Drill(args) => drill::run(args).await,
    };
    outcome.unwrap_or_else(|error| {
        telemetry::report(&error);
        ExitCode::from(2)
    })
}
