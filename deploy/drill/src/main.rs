//! `sanso drill` for a binary of one's choice.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sanso_drill::command::{DrillArgs, run};

/// Run drills on clusters of a Sanso binary.
#[derive(Parser, Debug)]
struct Args {
    /// The binary to drill.
    #[arg(long, env = "SANSO_BIN", default_value = "bin/sanso", value_name = "FILE")]
    binary: PathBuf,
    #[command(flatten)]
    drill: DrillArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    run(&args.drill, &args.binary).await
}
