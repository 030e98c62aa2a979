//! `sanso drill`: what clients of a cluster see while a fault is inflicted on it.

use std::process::ExitCode;

use anyhow::Context;
use sanso_drill::command;

pub(crate) use sanso_drill::command::DrillArgs;

/// Drills clusters of this very binary.
pub(crate) async fn run(args: DrillArgs) -> anyhow::Result<ExitCode> {
    let binary = std::env::current_exe().context("find this program")?;
    command::run(&args, &binary).await
}
