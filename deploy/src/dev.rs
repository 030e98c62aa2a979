//! `sanso dev`: the whole platform in one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cluster::{Member, NodeFile};
use crate::config::{DEFAULT, Settings};
use crate::disks::Disks;
use crate::telemetry;

/// Run the whole platform in one process.
///
/// The embedded log, the master dataset and the speed layer's index lie in the
/// data folder; a restart carries on where the last run stopped. A changed
/// application or reference table takes effect while it runs.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sanso dev app.sql --data ./sanso-data --listen 127.0.0.1:7070")]
pub(crate) struct DevArgs {
    /// The application: sources, reference tables and views in SQL.
    #[arg(required_unless_present = "print_settings")]
    app: Option<PathBuf>,
    /// The folder that holds everything durable.
    #[arg(long, default_value = "sanso-data", value_name = "DIR")]
    data: PathBuf,
    /// Where HTTP is served. There is no authentication: keep it on a loopback
    /// address or behind a proxy that has one.
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// The log: `kafka://HOST:PORT[,…][?OPTION=…]`, `embedded:DIR`. The
    /// embedded log in the data folder when absent. Options of Kafka's client,
    /// logins among them, go into the settings, section `[kafka]`.
    #[arg(long, value_name = "URL")]
    log: Option<String>,
    /// The master dataset: `s3://BUCKET[/PREFIX]` or a folder. In the data folder
    /// when absent. The object store's endpoint and limits go into the settings,
    /// section `[dataset]`; credentials come from AWS_ACCESS_KEY_ID and its kin,
    /// or from the shared credentials file.
    #[arg(long, value_name = "URL")]
    dataset: Option<String>,
    /// Settings of one's own over the built-in ones.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the built-in settings, all keys explained, and stop.
    #[arg(long)]
    print_settings: bool,
    /// Log as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Runs the node until it is told to stop (Ctrl-C or SIGTERM).
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    if args.print_settings {
        use std::io::Write;
        std::io::stdout().write_all(DEFAULT.as_bytes()).context("print settings")?;
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start(args.json);
    let mut stop_signals = StopSignals::listen()?;
    let _refused = size_limit_is_an_error()?;
    let mut settings = Settings::read(args.config.as_deref())?;
    settings.dataset.url = args.dataset.or(settings.dataset.url);
    let app = args.app.context("an application file is needed: sanso dev app.sql")?;
    let file = NodeFile::alone(app, args.data, args.listen, args.log, settings);
    let node = tokio::select! {
        node = start_alone(&file) => node?,
        () = stop_signals.received() => {
            // What the start waits for may never come; a kill at any moment loses nothing.
            tracing::info!("stopped while it started");
            std::process::exit(0);
        }
    };
    if let Some(address) = node.address {
        tracing::info!(address = %format_args!("http://{address}/"), "sanso is ready");
    }
    stop_signals.received().await;
    tracing::info!("stopping");
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Starts a node that is alone; its views are there when this returns.
pub(crate) async fn start_alone(file: &NodeFile) -> anyhow::Result<Member> {
    let data = &file.own.data;
    std::fs::create_dir_all(data).with_context(|| format!("create data folder {}", data.display()))?;
    let metrics = sanso_serving::metrics::install().context("install the metrics recorder")?;
    let disks = Disks::open(&file.settings, data)?;
    Member::start(file, &metrics, &disks, None).await
}

/// Makes a write beyond the limit on file sizes (`ulimit -f`) an error like a full disk, where the
/// system would end the process without a word.
pub(crate) fn size_limit_is_an_error() -> anyhow::Result<Signal> {
    /// SIGXFSZ on every Linux but MIPS.
    const FILE_SIZE_EXCEEDED: i32 = 25;
    signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED)).context("listen for SIGXFSZ")
}

/// Ctrl-C and SIGTERM. They end the process until this listens, so it is to be made first of all.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens from now on.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        Ok(Self { terminate, interrupt })
    }

    /// Resolves once one has come.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
