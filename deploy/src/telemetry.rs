//! Logs to standard error, and how a failed command is reported.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged by default: Raft's every step is not for operators.
const FILTER: &str = "info,openraft=error";

/// Starts logging to standard error: text for a person, JSON with `json`.
/// `SANSO_LOG` chooses what is logged.
pub(crate) fn start(json: bool) {
    let filter = EnvFilter::try_from_env("SANSO_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        logs.json().init();
    } else {
        logs.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
}

/// Prints why a command failed, with its causes.
pub(crate) fn report(error: &anyhow::Error) {
    say(&format!("{error:#}"));
}

/// Prints a line to whoever gave the command, beside its output.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
pub(crate) fn say(line: &str) {
    eprintln!("sanso: {line}");
}
