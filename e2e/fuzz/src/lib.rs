//! Fuzz targets: every one takes any bytes and panics when a promise is broken.
//!
//! ```text
//!   make fuzz ─► src/main.rs (libFuzzer) ─┐
//!   make test ─► tests/corpus.rs ─────────┴─► TARGETS ─► the parser, and what it promises
//!                corpus/TARGET/*: seeds, and what was found once
//! ```
//!
//! The targets are plain functions, so that what the fuzzer found stays a test
//! that needs no fuzzer.

mod log_files;
mod meter_files;
mod schemas;
mod state;

/// Takes any bytes; panics when the parser breaks a promise on them.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("nem", meter_files::nem),
    ("espi", meter_files::espi),
    ("mscons", meter_files::mscons),
    ("csv", meter_files::csv),
    ("mapping", meter_files::mapping),
    ("detect", meter_files::detect),
    ("decimal", meter_files::decimal),
    ("avro", schemas::avro),
    ("protobuf", schemas::protobuf),
    ("groups", state::groups),
    ("key", state::key),
    ("log_file", log_files::log_file),
];

/// Finds a target by its name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
