//! Batch before any cut ⊕ speed after it = a fold over everything.

use std::fs::read_to_string;
use std::path::Path;

use sanso_law::{environment, run};

#[test]
fn batch_and_speed_equal_a_fold_over_everything() {
    let start = environment("SANSO_LAW_START", 0);
    let seeds = environment("SANSO_LAW_SEEDS", 200);
    let happened = run(start..start + seeds);
    println!("{seeds} seeds from {start}: {happened:?}");
    if seeds >= 100 {
        // A world in which nothing goes wrong proves nothing.
        for what in [
            "accepted",
            "refused",
            "invalid",
            "adopted",
            "cut",
            "worker replaced",
            "replaced worker behind",
            "view partition lost",
            "unreplicated entries lost",
            "new view version",
            "view version retired",
            "segment audited",
            "quarantine lost",
            "quarantine discarded",
        ] {
            assert!(
                happened.get(what).is_some_and(|count| *count > 20),
                "'{what}' hardly happened: {happened:?}"
            );
        }
    }
}

/// Else `make mutants`, which takes long, tells it.
#[test]
fn what_a_mutant_changes_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mutants: toml::Table = read("deploy/law/mutants.toml").parse().expect("it is TOML");
    for mutant in mutants["mutant"].as_array().expect("a list") {
        for edit in mutant["edits"].as_array().expect("a list") {
            let [path, find, _] = [0, 1, 2].map(|at| edit[at].as_str().expect("text"));
            assert!(read(path).contains(find), "{}: {path} no longer holds: {find}", mutant["name"]);
        }
    }
}
