//! Progress on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::files::InputFile;
use crate::table::span;

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of files, by their bytes.
pub(crate) struct Progress {
    sizes: Vec<u64>,
    done: Done,
    started: Instant,
    shown: Shown,
}

/// Where it is shown.
enum Shown {
    Bar(ProgressBar),
    Lines { due: Instant },
    Nowhere,
}

/// What is done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    /// Files that were read to their ends.
    files: usize,
    /// Bytes of the files whose readings were acknowledged, or refused.
    bytes: u64,
    readings: u64,
    refused: u64,
}

impl Progress {
    /// Begins to show the progress of files, unless it is to be `quiet`.
    pub(crate) fn new(files: &[InputFile], quiet: bool) -> Self {
        let sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
        let started = Instant::now();
        let shown = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Shown::Nowhere,
            (false, true) => Shown::Bar(bar(sizes.iter().sum())),
            (false, false) => Shown::Lines { due: started + LINE_INTERVAL },
        };
        let mut progress = Self { sizes, done: Done::default(), started, shown };
        progress.show();
        progress
    }

    /// Notes that of the file being read so many bytes are done, and how many readings were acknowledged and refused
    /// in all.
    pub(crate) fn file_at(&mut self, position: u64, readings: u64, refused: u64) {
        let of_file = self.sizes.get(self.done.files).map_or(0, |size| position.min(*size));
        self.done.bytes = self.before(self.done.files) + of_file;
        (self.done.readings, self.done.refused) = (readings, refused);
        self.show();
    }

    /// Notes that a file was read to its end, also one that is damaged.
    pub(crate) fn file_done(&mut self) {
        self.done.files += 1;
        self.done.bytes = self.before(self.done.files);
        self.show();
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }

    /// Counts the bytes of the first files.
    fn before(&self, files: usize) -> u64 {
        self.sizes.iter().take(files).sum()
    }

    fn show(&mut self) {
        let text = self.done.text((self.sizes.len(), self.before(usize::MAX)), self.started.elapsed());
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(self.done.bytes);
                bar.set_message(text);
            }
            Shown::Lines { due } if Instant::now() >= *due => {
                *due = Instant::now() + LINE_INTERVAL;
                // Progress that can't be written is no reason to stop.
                let (done, all) = (HumanBytes(self.done.bytes), HumanBytes(self.before(usize::MAX)));
                let _ = writeln!(std::io::stderr().lock(), "ingest: {done} of {all}, {text}");
            }
            Shown::Lines { .. } | Shown::Nowhere => {}
        }
    }
}

impl Done {
    /// Says what is done of so many files and bytes, how fast, and how long the rest takes at that rate.
    fn text(&self, (files, bytes): (usize, u64), elapsed: Duration) -> String {
        let mut text = format!("{} of {files} files, {} readings", self.files, HumanCount(self.readings));
        if self.refused > 0 {
            text.push_str(&format!(", {} refused", HumanCount(self.refused)));
        }
        let elapsed_ms = elapsed.as_millis();
        if self.bytes == 0 || elapsed_ms == 0 {
            return text;
        }
        let a_second = u128::from(self.readings) * 1_000 / elapsed_ms;
        let left_ms = u128::from(bytes.saturating_sub(self.bytes)) * elapsed_ms / u128::from(self.bytes);
        let (a_second, left_ms) =
            (u64::try_from(a_second).unwrap_or(u64::MAX), u64::try_from(left_ms).unwrap_or(u64::MAX));
        text.push_str(&format!(", {}/s, about {} left", HumanCount(a_second), span(left_ms)));
        text
    }
}

fn bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {bytes:>10} of {total_bytes} [{bar:30}] {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ");
    let bar = ProgressBar::new(bytes).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(sizes: &[u64]) -> Progress {
        let file = |size: &u64| InputFile { path: "f".into(), size: *size };
        Progress::new(&sizes.iter().map(file).collect::<Vec<_>>(), true)
    }

    #[test]
    fn bytes_are_those_of_the_files_before_and_of_the_part_read_of_this_one() {
        let mut progress = progress(&[100, 50]);
        progress.file_at(40, 4, 0);
        assert_eq!(progress.done.bytes, 40);
        progress.file_at(900, 9, 1);
        assert_eq!(progress.done.bytes, 100, "a file that grows counts as it was");
        progress.file_done();
        progress.file_at(10, 11, 1);
        assert_eq!(progress.done, Done { files: 1, bytes: 110, readings: 11, refused: 1 });
        progress.file_done();
        assert_eq!((progress.done.files, progress.done.bytes), (2, 150));
    }

    #[test]
    fn the_rate_and_the_rest_are_told_once_something_is_done() {
        let at = |bytes, readings, refused, ms| {
            let done = Done { files: 1, bytes, readings, refused };
            done.text((3, 100), Duration::from_millis(ms))
        };
        assert_eq!(at(0, 0, 0, 500), "1 of 3 files, 0 readings");
        assert_eq!(at(25, 6_000, 0, 2_000), "1 of 3 files, 6,000 readings, 3,000/s, about 6.0 s left");
        assert_eq!(at(100, 9, 1_002, 2_000), "1 of 3 files, 9 readings, 1,002 refused, 4/s, about 0 ms left");
    }
}
