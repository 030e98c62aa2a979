//! Batch before any cut ⊕ speed after it = a fold over everything.

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
