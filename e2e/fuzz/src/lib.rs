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

#[cfg(feature = "node")]
mod applications;
#[cfg(feature = "node")]
mod documents;
mod log_files;
mod meter_files;
#[cfg(feature = "node")]
mod records;
#[cfg(feature = "node")]
mod requests;
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
    #[cfg(feature = "node")]
    ("record", records::records),
    #[cfg(feature = "node")]
    ("row", records::row),
    #[cfg(feature = "node")]
    ("application", applications::application),
    #[cfg(feature = "node")]
    ("query", requests::query),
    #[cfg(feature = "node")]
    ("url", requests::url),
    #[cfg(feature = "node")]
    ("document", documents::document),
];

/// Finds a target by its name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Reads what the fuzzer begins with, by name.
#[cfg(test)]
fn seeds(target: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    let files = std::fs::read_dir(format!("{package}/corpus/{target}")).expect("list the corpus");
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("list the corpus").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
        (name, std::fs::read(path).expect("read a seed"))
    };
    files.map(read).collect()
}
