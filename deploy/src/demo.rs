//! `sanso demo`: the platform with a simulated fleet, or with one's own files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use sanso_catalog::AuditCounts;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Member, NodeFile};
use crate::config::Settings;
use crate::dev::{StopSignals, start_alone};
use crate::fleet::{self, Check, Fleet, FleetConfig, Report};
use crate::{ingest, telemetry};

/// The application that the demo runs.
const APP: &str = include_str!("../apps/demo/app.sql");

/// Run the platform with a simulated fleet of meters, or with your own files.
///
/// Two weeks of half-hourly readings come first, then a half-hour every second:
/// with daily shape, solar export, late, resent, corrected and broken records.
/// With --ingest the files are read instead.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sanso demo\n  sanso demo --seconds 60\n  sanso demo --ingest ./meter-files"
)]
pub(crate) struct DemoArgs {
    /// Where HTTP is served.
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Stop after this many seconds; fail if the audit found anything or a total is wrong.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Ingest files instead of simulating a fleet.
    #[arg(long, value_name = "FILE|DIR")]
    ingest: Option<PathBuf>,
    /// The folder to keep everything in; a fresh one that is removed in the end when absent.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The number of simulated meters.
    #[arg(long, default_value_t = 300, value_name = "N")]
    meters: usize,
}

/// Runs the demo until it is told to stop, or its time is over.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    telemetry::start(false);
    let fresh = std::env::temp_dir().join(format!("sanso-demo-{}", std::process::id()));
    let folder = args.data.clone().unwrap_or_else(|| fresh.clone());
    let outcome = run_in(&args, &folder).await;
    if args.data.is_none() {
        std::fs::remove_dir_all(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
    }
    outcome
}

async fn run_in(args: &DemoArgs, folder: &Path) -> anyhow::Result<ExitCode> {
    let config = FleetConfig { meters: args.meters, ..FleetConfig::default() };
    let app = folder.join("app.sql");
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::write(&app, APP).context("write the demo's application")?;
    std::fs::write(folder.join("network.csv"), Fleet::new(config.clone()).network_csv())
        .context("write the demo's network")?;
    let mut settings = Settings::read(None)?;
    // The demo's segments are small, so that one can see them move.
    settings.batch.segments_per_version_max = 64;
    let file = NodeFile::alone(app, folder.join("data"), args.listen, None, settings);
    let node = start_alone(&file).await?;
    let url = format!("http://{}", node.address.context("it serves")?);
    say(&welcome(&url, folder, args.ingest.is_some()));
    let cancel = CancellationToken::new();
    let work = tokio::spawn(feed(args.ingest.clone(), config, url, cancel.clone()));
    let work_failed = wait(args.seconds, &work).await?;
    cancel.cancel();
    let fed = work.await.context("feed the demo")?;
    let audit = audit(&node);
    node.stop().await;
    say(&closing(&fed, audit));
    let sound = audit.differing == 0 && !work_failed && fed.is_ok_and(|fed| fed.is_sound());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was put into the platform.
enum Fed {
    Fleet(Box<Report>),
    Files(ExitCode),
}

impl Fed {
    fn is_sound(&self) -> bool {
        match self {
            Fed::Fleet(report) => matches!(report.check, Check::Equal(_)),
            // Refused records of one's own files are no fault of the platform.
            Fed::Files(code) => *code != ExitCode::from(2),
        }
    }
}

async fn feed(
    files: Option<PathBuf>,
    config: FleetConfig,
    url: String,
    cancel: CancellationToken,
) -> anyhow::Result<Fed> {
    match files {
        Some(files) => {
            let code = ingest::run(ingest::IngestArgs::of_folder(&url, files)).await?;
            cancel.cancelled().await;
            Ok(Fed::Files(code))
        }
        None => Ok(Fed::Fleet(Box::new(fleet::run(config, &url, cancel).await?))),
    }
}

/// Waits until told to stop; returns whether the feeding ended by itself, which only a failure does.
async fn wait<T>(seconds: Option<u64>, work: &tokio::task::JoinHandle<T>) -> anyhow::Result<bool> {
    let mut stop_signals = StopSignals::listen()?;
    let time_is_over = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let ended = async {
        while !work.is_finished() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = stop_signals.received() => Ok(false),
        () = time_is_over => Ok(false),
        () = ended => Ok(true),
    }
}

fn audit(node: &Member) -> AuditCounts {
    node.board.audited().values().fold(AuditCounts::default(), |mut sum, audit| {
        sum += *audit;
        sum
    })
}

/// Says what to look at. One's own meters are not in the demo's network, so with `own_files` the
/// view that needs none is shown, and what to edit to have the others.
fn welcome(url: &str, folder: &Path, own_files: bool) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "sanso".to_owned());
    let (sql, top, live) = if own_files {
        ("SELECT * FROM meter_daily ORDER BY day DESC LIMIT 6", "meter_daily?top=5&by=kwh", "meter_daily")
    } else {
        (
            "SELECT * FROM substation_load ORDER BY half_hour DESC LIMIT 6",
            "substation_load?top=5&by=kwh_net",
            "feeder_load",
        )
    };
    let network = if own_files {
        format!(
            "\n  Your meters      {}  (say there where they hang, and the load views fill)",
            folder.join("network.csv").display()
        )
    } else {
        String::new()
    };
    format!(
        "\n  Sanso is running.\n\n\
         \x20 Look at it       {url}/\n\
         \x20 Ask it           {program} query --to {url} '{sql}'\n\
         \x20 Over HTTP        curl -s '{url}/v1/views/{top}'\n\
         \x20 Live             curl -sN '{url}/v1/views/{live}/stream'\n\
         \x20 What was refused curl -s '{url}/v1/quarantine/readings?limit=3'\n\
         \x20 Change it        {}  (saved changes take effect while it runs){network}\n\n\
         \x20 Stop it with Ctrl-C.\n",
        folder.join("app.sql").display()
    )
}

fn closing(fed: &anyhow::Result<Fed>, audit: AuditCounts) -> String {
    let fed = match fed {
        Err(error) => format!("feeding failed: {error:#}"),
        Ok(Fed::Files(_)) => "files ingested".to_owned(),
        Ok(Fed::Fleet(report)) => format!(
            "{} records sent ({} late, {} resent, {} corrected, {} broken); {}",
            report.counts.records,
            report.counts.late,
            report.counts.duplicates,
            report.counts.corrections,
            report.counts.broken,
            match &report.check {
                Check::Equal(totals) => format!("totals of {} substations equal what was sent", totals.len()),
                Check::Different(differences) => format!("TOTALS DIFFER from what was sent: {differences:?}"),
                Check::Unknown(reason) => format!("totals were not compared: {reason}"),
            }
        ),
    };
    format!(
        "\n  {fed}\n  audit: {} segment states compared, {} differing, {} skipped\n",
        audit.compared, audit.differing, audit.skipped
    )
}

#[expect(clippy::print_stdout, reason = "the demo speaks to a person")]
fn say(text: &str) {
    println!("{text}");
}
