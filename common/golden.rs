//! Bytes of a version as it first wrote them, which no later one may write otherwise or fail to read.
//! Tests of several packages include this file.
//!
//! `BLESS=1` writes files that are not there. One that is there never changes: what is to be written
//! otherwise is of another version, in a folder of its own, and the old one stays readable.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Reads bytes, and writes what was read.
type Again = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// Something that is written: its name, its bytes, and what its bytes are once they were read.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Reads and writes it again.
    pub(crate) again: Again,
}

/// Holds all that a version writes against the files of a folder.
pub(crate) fn check(folder: &Path, all: &[Golden]) {
    let mut named = BTreeSet::new();
    for Golden { name, bytes, again } in all {
        let file = folder.join(name);
        assert!(named.insert(file.clone()), "{name} stands there twice");
        if !file.exists() && std::env::var_os("BLESS").is_some() {
            fs::write(&file, bytes).expect("the file can be written");
        }
        let kept = fs::read(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; BLESS=1 makes what is new", file.display()));
        assert!(
            kept == *bytes,
            "{name} is written otherwise than it was:\n{}\n{}",
            kept.escape_ascii(),
            bytes.escape_ascii()
        );
        let again = again(&kept);
        assert!(again == kept, "{name} is not the same once it was read: {}", again.escape_ascii());
    }
    for file in fs::read_dir(folder).expect("the folder is there") {
        let file = file.expect("it can be listed").path();
        assert!(named.contains(&file), "{} is read by no test", file.display());
    }
}
