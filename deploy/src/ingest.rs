//! `sanso ingest`: meter files to a running node.
//!
//! ```text
//!   files ──▶ reader thread ──batches──▶ POST /v1/ingest/{source} ──▶ acknowledged
//!             (two passes a file:        one at a time, in order:     positions
//!              whole? then readings)     the first of two contradicting
//!                                        records is the same every run
//!   in the end: wait until the speed layer is past those positions, then say
//!   what became of everything
//! ```
//!
//! Sending twice is harmless, so a request whose outcome is unknown is sent
//! again, and so is everything after an interruption. Memory does not grow with
//! the files, but for the set of usage points that is counted.

pub(crate) mod exact;
mod files;
mod found;
mod progress;
mod reader;
pub(crate) mod settle;
mod summary;
mod upload;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use chrono::{SubsecRound, Utc};
use clap::Args;
use sanso_reading::{Mapping, ReadOptions};

use crate::http::Client;
use crate::ingest::summary::Summary;
use crate::ingest::upload::{Ended, Upload};

/// Send meter files to a running node.
///
/// Detects NEM12 and NEM13, Green Button (ESPI), MSCONS and CSV, plain or
/// gzipped; folders are walked. A damaged file is reported and nothing of it is
/// sent; a bad record in a sound file is refused alone. Sending a file again
/// changes no total.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sanso ingest --to http://127.0.0.1:7070 meters.csv nem12/\n  \
                        sanso ingest --mapping mine.toml --source-version 2 --refused refused.jsonl export.csv\n\n\
                        Exit code: 0 all is in, 1 something was refused or broken and the rest is in, \
                        2 the node can't be reached or the command is wrong, 130 interrupted.")]
pub(crate) struct IngestArgs {
    /// The node to send to.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7070", env = "SANSO_URL")]
    to: String,
    /// The source the readings belong to.
    #[arg(long, value_name = "NAME", default_value = "readings")]
    source: String,
    /// How CSV files are read: a mapping file, or the name of a shipped mapping.
    /// Found from the header when absent.
    #[arg(long, value_name = "FILE|NAME")]
    mapping: Option<String>,
    /// The version of readings whose files state none; a higher one corrects.
    #[arg(long, value_name = "N")]
    source_version: Option<i64>,
    /// Write every refused record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// How long to wait in the end until everything is in the views.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    /// Show no progress, only the summary. Progress is a bar on a terminal, else a line each five seconds, on standard
    /// error.
    #[arg(long, short)]
    quiet: bool,
    /// The files and folders to send.
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
}

impl IngestArgs {
    /// The arguments that send one file or folder to a node, all else by default.
    pub(crate) fn of_folder(url: &str, files: PathBuf) -> Self {
        Self {
            to: url.to_owned(),
            source: "readings".into(),
            mapping: None,
            source_version: None,
            refused: None,
            wait: 60,
            json: false,
            quiet: false,
            files: vec![files],
        }
    }
}

/// Sends the files and prints what became of them.
pub(crate) async fn run(args: IngestArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.to)?;
    let files = files::list(&args.files)?;
    let options = ReadOptions {
        mapping: args.mapping.as_deref().map(Mapping::named_or_loaded).transpose()?,
        source_version: args.source_version,
        // One time for the whole run, so that a record can be found again.
        received_at: Some(Utc::now().trunc_subsecs(0)),
        ..ReadOptions::default()
    };
    let mut summary = Summary::new(&args.source, args.refused.as_deref())?;
    let before = client
        .get(&["v1", "sources", &args.source])
        .await
        .with_context(|| format!("ask {} for source {}", client.base(), args.source))?;
    let upload = Upload::new(&client, &args.source, args.quiet);
    let (ended, positions) = upload.run(&files, &options, &mut summary).await;
    if !matches!(ended, Ended::Failed(_)) {
        let patience =
            if matches!(ended, Ended::Interrupted) { Duration::ZERO } else { Duration::from_secs(args.wait) };
        found::conclude(&client, &mut summary, &before, &positions, patience).await;
        found::locate(&mut summary, &files, &options).await?;
    }
    summary.interrupted = matches!(ended, Ended::Interrupted);
    let text = if args.json { format!("{}\n", summary.json()) } else { summary.text() };
    io::stdout().lock().write_all(text.as_bytes()).context("print the summary")?;
    match ended {
        Ended::Failed(error) => {
            Err(error.context("stopped after what is said above; run it again, sending twice is harmless"))
        }
        Ended::Interrupted => Ok(ExitCode::from(130)),
        Ended::Complete => Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}
