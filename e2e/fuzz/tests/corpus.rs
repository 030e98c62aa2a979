//! Every committed input, seeds and what the fuzzer found once, through its target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Returns the names within a folder, in order.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name());
    entries.map(|entry| name(entry).expect("list the corpus").into_string().expect("plain names")).collect()
}

fn corpus() -> PathBuf {
    // Asked for at run time: compiled in, it would be that of another checkout
    // whenever two share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    Path::new(&package).join("corpus")
}

#[test]
fn every_committed_input_keeps_the_promises_of_its_target() {
    for (name, target) in sanso_fuzz::TARGETS {
        let folder = corpus().join(name);
        for file in names(&folder) {
            let bytes = std::fs::read(folder.join(&file)).expect("read a corpus file");
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "corpus/{name}/{file} breaks a promise");
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_no_corpus_lacks_its_target() {
    let targets: BTreeSet<String> = sanso_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), targets);
    for target in targets {
        assert!(!names(&corpus().join(&target)).is_empty(), "corpus/{target} is empty");
    }
}
