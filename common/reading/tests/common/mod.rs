//! What the tests on real files share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sanso_reading::{Event, FileError, FileSummary, ReadOptions, Reading, Refused};

/// Returns the folder of real data, or says that the test is skipped.
#[allow(clippy::print_stdout, reason = "who runs the tests must see that one was skipped")]
pub(crate) fn shared_data() -> Option<PathBuf> {
    // Asked for at run time: compiled in, it would be that of another checkout
    // whenever two share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let folder = Path::new(&package).join("../../../shared/data");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: no real data at {}", folder.display());
    None
}

/// Everything that a file gave.
pub(crate) struct Outcome {
    pub(crate) readings: Vec<Reading>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) summary: Result<FileSummary, FileError>,
}

pub(crate) fn read(path: &Path, options: &ReadOptions) -> Outcome {
    let (mut readings, mut refused) = (Vec::new(), Vec::new());
    let summary = sanso_reading::read_file(path, options, |event| {
        match event {
            Event::Reading(reading) => readings.push(reading.clone()),
            Event::Refused(record) => refused.push(record.clone()),
        }
        ControlFlow::Continue(())
    });
    Outcome { readings, refused, summary }
}

/// Reads a file that must be sound.
pub(crate) fn read_sound(path: &Path) -> Outcome {
    let outcome = read(path, &ReadOptions::default());
    let summary = outcome.summary.as_ref().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(summary.readings, outcome.readings.len() as u64);
    assert_eq!(summary.refused, outcome.refused.len() as u64);
    outcome
}

/// Returns a value in millionths; null counts as nothing.
pub(crate) fn micro(reading: &Reading) -> i128 {
    reading.value.map_or(0, |value| i128::from(value.micro().expect("canonical values fit")))
}

/// Parses a number of the expected totals into millionths, shifted by powers of ten.
pub(crate) fn expected_micro(text: &str, power: i32) -> i128 {
    let value: sanso_reading::Decimal = text.parse().expect("an expected total is a number");
    i128::from(value.shifted(power).micro().expect("an expected total fits"))
}

/// Splits a plain CSV file into rows of texts, header first.
pub(crate) fn csv_rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split(',').collect()).collect()
}
