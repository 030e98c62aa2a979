//! Progress on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::files::InputFile;

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of files, by their bytes.
pub(crate) struct Progress {
    sizes: Vec<u64>,
    next: usize,
    bar: Option<ProgressBar>,
    line_due: Instant,
    readings: u64,
}

impl Progress {
    pub(crate) fn new(files: &[InputFile]) -> Self {
        let sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
        let bar = std::io::stderr().is_terminal().then(|| bar(sizes.iter().sum()));
        let this = Self { sizes, next: 0, bar, line_due: now() + LINE_INTERVAL, readings: 0 };
        this.show();
        this
    }

    /// Notes how many readings were acknowledged so far.
    pub(crate) fn readings(&mut self, readings: u64) {
        self.readings = readings;
        self.show();
        if self.bar.is_none() && now() >= self.line_due {
            self.line_due = now() + LINE_INTERVAL;
            self.line();
        }
    }

    /// Notes that a file was read to its end.
    pub(crate) fn file_done(&mut self) {
        if let (Some(bar), Some(size)) = (&self.bar, self.sizes.get(self.next)) {
            bar.inc(*size);
        }
        self.next += 1;
        self.show();
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.counts());
        }
    }

    fn counts(&self) -> String {
        let (done, all) = (self.next.min(self.sizes.len()), self.sizes.len());
        format!("{done} of {all} files, {} readings", HumanCount(self.readings))
    }

    fn line(&self) {
        let done: u64 = self.sizes.iter().take(self.next).sum();
        let all: u64 = self.sizes.iter().sum();
        // Progress that can't be written is no reason to stop.
        let _ = writeln!(
            std::io::stderr().lock(),
            "ingest: {} of {}, {}",
            HumanBytes(done),
            HumanBytes(all),
            self.counts()
        );
    }
}

fn now() -> Instant {
    Instant::now()
}

fn bar(bytes: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {bytes:>10} of {total_bytes} [{bar:30}] {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸ ");
    let bar = ProgressBar::new(bytes).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
