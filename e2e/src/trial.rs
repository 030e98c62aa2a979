//! One trial: a node on damaged files. It may heal, or refuse and say so; all else is broken.

use std::time::Duration;

use crate::damage::{Damage, FileKind, files_of};
use crate::node::Node;
use crate::random::Random;
use crate::world::World;

/// The longest that archiving may take.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(10);

/// What came of damage.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The damaged file and where it was damaged.
    pub place: String,
    /// In a few words.
    pub outcome: String,
    /// Warnings and errors that the node logged, or how it refused.
    pub said: Vec<String>,
    /// Whether a promise was broken: a wrong answer, a panic, a hang, or no word about the cause.
    pub broken: bool,
}

/// Makes a world with every kind of file in it. Its node has ended, once by a kill.
pub async fn golden(seed: u64, retain_segments: Option<u64>) -> anyhow::Result<World> {
    let mut world = World::new(seed, retain_segments)?;
    for life in 0..3 {
        let node = world.start()?;
        for _ in 0..4 {
            world.send(&node.client, 400).await?;
        }
        world.refused(&node.client).await?;
        world.archived(&node.client).await?;
        world.verdict(&node.client).await?;
        world.take_down_archive(&node.client).await?;
        if life == 2 { node.kill()? } else { node.stop()? }
    }
    Ok(world)
}

/// Damages one file of a kind in a copy of a world and starts a node on it. None when there is no
/// such file, or it is as it was.
pub async fn damage_trial(
    world: &World,
    kind: FileKind,
    damage: Damage,
    random: &mut Random,
) -> anyhow::Result<Option<Trial>> {
    let mut world = world.copy()?;
    let mut files = files_of(&world.data())?;
    files.retain(|(found, _)| *found == kind);
    if files.is_empty() {
        return Ok(None);
    }
    let path = files.swap_remove(random.below(files.len() as u64) as usize).1;
    let bytes = path.metadata()?.len();
    let Some(at) = damage.inflict(&path, random)? else { return Ok(None) };
    let place = format!("{} at {at} of {bytes}", path.strip_prefix(world.data())?.display());
    let broken = |outcome: &str, said: Vec<String>| {
        let place = place.clone();
        Ok(Some(Trial { place, outcome: format!("BROKEN: {outcome}"), said, broken: true }))
    };
    let fine = |outcome: &str, said: Vec<String>| {
        Ok(Some(Trial { place: place.clone(), outcome: outcome.to_owned(), said, broken: false }))
    };
    let node = match world.start() {
        Ok(node) => node,
        Err(error) => {
            let text = format!("{error:#}");
            let said: Vec<String> =
                text.lines().filter(|line| !line.contains("\"INFO\"")).map(ToOwned::to_owned).collect();
            if text.contains("panicked at") {
                return broken("panic at the start", said);
            }
            if text.contains("HANG") {
                return broken("hangs at the start", said);
            }
            let names = names_file(&world, &path, &said);
            return if names {
                fine("refused at the start", said)
            } else {
                broken("refused without naming the file", said)
            };
        }
    };
    let judged = judge(&mut world, &node).await;
    let mut said = node.logged("WARN");
    said.extend(node.logged("ERROR"));
    let errors = !node.logged("ERROR").is_empty();
    if let Err(error) = node.stop() {
        said.push(format!("{error:#}"));
        return broken("a bad end", said);
    }
    match judged {
        Ok(()) if said.is_empty() => fine("exact, nothing to say", said),
        Ok(()) if errors => fine("exact, with an error logged", said),
        Ok(()) => fine("exact, with a warning", said),
        Err(error) => {
            let text = format!("{error:#}");
            let wrong = text.contains("WRONG");
            let named = names_file(&world, &path, &said);
            said.insert(0, text);
            match (wrong, named) {
                (true, _) => broken("wrong answer", said),
                (false, true) => fine("refused while it runs", said),
                (false, false) => broken("no answer, without naming the file", said),
            }
        }
    }
}

/// All answers as they are; then after more readings; then of a view made anew from the archive.
async fn judge(world: &mut World, node: &Node) -> anyhow::Result<()> {
    world.verdict(&node.client).await?;
    // A manifest that is gone takes the archive back a version, until it is archived again.
    if tokio::time::timeout(ARCHIVED_WITHIN, world.archived(&node.client)).await.is_ok() {
        let archive = world.archive_verdict(&node.client).await;
        if archive.as_ref().is_err_and(|error| format!("{error:#}").contains("WRONG")) {
            return archive;
        }
    }
    world.quarantine_verdict(&node.client).await?;
    world.send(&node.client, 600).await?;
    world.verdict(&node.client).await?;
    Ok(())
}

/// Says whether an operator learns which file, or at least which folder of a store, it is about.
fn names_file(world: &World, path: &std::path::Path, said: &[String]) -> bool {
    let folder = path.parent().unwrap_or(path);
    let relative = |path: &std::path::Path| {
        path.strip_prefix(world.data())
            .unwrap_or(path)
            .to_string_lossy()
            .trim_start_matches("dataset/")
            .trim_start_matches("log/")
            .to_owned()
    };
    said.iter().any(|line| line.contains(&relative(path)) || line.contains(&relative(folder)))
}
