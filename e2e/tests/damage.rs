//! A damaged file under `--data` is made again or refused by name; it is never used.
//!
//! `make torture` does this to every kind of file in every way, over and over.

use sanso_e2e::{Damage, FileKind, Random, damage_trial, golden, rot_trial};

#[tokio::test]
async fn damaged_files_are_made_again_or_refused_and_never_used() -> anyhow::Result<()> {
    let world = golden(3, None).await?;
    let mut random = Random::new(3);
    for (kind, damage, expected) in [
        (FileKind::LogTopic, Damage::Truncated, "refused at the start"),
        (FileKind::LogComplete, Damage::Deleted, ""),
        (FileKind::LogNewest, Damage::Emptied, "refused at the start"),
        (FileKind::ManifestPointer, Damage::Truncated, "exact, with a warning"),
        (FileKind::ManifestPointer, Damage::Deleted, "exact"),
        (FileKind::ManifestNewest, Damage::FlippedBit, "refused at the start"),
        (FileKind::ManifestNewest, Damage::Deleted, "exact"),
        (FileKind::Segment, Damage::FlippedBit, "exact"),
        (FileKind::NewestTable, Damage::Zeroed, "exact"),
        (FileKind::ViewBlock, Damage::Truncated, "exact"),
        (FileKind::ViewVersion, Damage::Zeroed, "exact"),
        (FileKind::Rocks("index", "MANIFEST"), Damage::FlippedBit, "exact"),
        (FileKind::Rocks("index", "table"), Damage::Deleted, "exact"),
        (FileKind::Rocks("index", "write-ahead log"), Damage::Deleted, "exact"),
        (FileKind::Rocks("emitted", "CURRENT"), Damage::Emptied, "exact, with a warning"),
        (FileKind::Rocks("quarantine", "MANIFEST"), Damage::Zeroed, "exact, with a warning"),
        (FileKind::Rocks("views", "table"), Damage::FlippedBit, "exact"),
        (FileKind::Rocks("views", "MANIFEST"), Damage::Truncated, "exact"),
    ] {
        let trial = damage_trial(&world, kind, damage, &mut random).await?;
        let Some(trial) = trial else { continue };
        assert!(!trial.broken && trial.outcome.starts_with(expected), "{kind:?} {damage:?}: {trial:#?}");
    }
    Ok(())
}

/// A disk rots under a node that runs, and the next one starts on what is left.
#[tokio::test]
async fn files_damaged_while_the_node_runs_are_made_again_or_refused_and_never_used() -> anyhow::Result<()> {
    let world = golden(5, None).await?;
    let mut random = Random::new(5);
    for (kind, damage) in [
        (FileKind::Segment, Damage::FlippedBit),
        (FileKind::ManifestNewest, Damage::Deleted),
        (FileKind::NewestTable, Damage::Truncated),
        (FileKind::LogComplete, Damage::Deleted),
        (FileKind::LogNewest, Damage::Truncated),
        (FileKind::Rocks("index", "table"), Damage::FlippedBit),
        (FileKind::Rocks("views", "table"), Damage::Zeroed),
    ] {
        let trial = rot_trial(&world, kind, damage, &mut random).await?;
        let Some(trial) = trial else { panic!("no file of kind {kind:?}") };
        assert!(!trial.broken, "{kind:?} {damage:?}: {trial:#?}");
    }
    Ok(())
}

/// The end of a log is lost behind what was read of it. Were the node to start, new readings would
/// take the places of lost ones, and be taken for read.
#[tokio::test]
async fn a_log_that_ends_before_what_was_read_of_it_is_refused_at_every_start() -> anyhow::Result<()> {
    let world = golden(4, None).await?;
    let files = sanso_e2e::files_of(&world.data())?;
    let newest = files
        .iter()
        .filter(|(kind, path)| *kind == FileKind::LogNewest && path.to_string_lossy().contains("/readings/"));
    for (_, path) in newest {
        std::fs::OpenOptions::new().write(true).open(path)?.set_len(32)?;
    }
    for _ in 0..2 {
        let error = world.start().err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("the log lost its end") && error.contains("restore"), "{error}");
        assert!(!error.contains("panicked"), "{error}");
    }
    Ok(())
}
