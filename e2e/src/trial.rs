//! One trial: a node on a damaged file, damaged before it starts or while it runs. It may heal, or refuse and say so; all else is broken.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::damage::{Damage, FileKind, files_of};
use crate::node::{Node, messages};
use crate::random::Random;
use crate::world::World;

/// The longest that archiving may take.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(10);
/// The longest that a file is sought which a node leaves where it is.
const CHOSEN_WITHIN: Duration = Duration::from_secs(60);

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
    let Some(damaged) = Damaged::choose(&world, kind, damage, random)? else { return Ok(None) };
    Ok(Some(life(&mut world, &damaged).await))
}

/// Damages one file of a kind in a copy of a world while a node runs on it, and starts another one
/// afterwards, with another version of a view. None when there is no such file, or it is as it was.
pub async fn rot_trial(
    world: &World,
    kind: FileKind,
    damage: Damage,
    random: &mut Random,
) -> anyhow::Result<Option<Trial>> {
    let mut world = world.copy()?;
    let node = world.start()?;
    world.verdict(&node.client).await?;
    world.archived(&node.client).await?;
    let Some(damaged) = Damaged::choose(&world, kind, damage, random)? else {
        node.stop()?;
        return Ok(None);
    };
    let during = live(&mut world, node, &damaged).await;
    if during.broken {
        return Ok(Some(during));
    }
    world.history.change_view();
    world.declare()?;
    let mut after = life(&mut world, &damaged).await;
    after.outcome = format!("{}; then {}", during.outcome, after.outcome);
    after.said.splice(0..0, during.said);
    Ok(Some(after))
}

/// A damaged file.
struct Damaged {
    path: PathBuf,
    place: String,
}

impl Damaged {
    /// Damages a file of a kind. A node that runs may remove it between two looks: then another one is chosen.
    fn choose(
        world: &World,
        kind: FileKind,
        damage: Damage,
        random: &mut Random,
    ) -> anyhow::Result<Option<Damaged>> {
        let patience = Instant::now() + CHOSEN_WITHIN;
        loop {
            match Self::choose_listed(world, kind, damage, random) {
                Err(error) if is_gone(&error) && Instant::now() < patience => {}
                chosen => return chosen,
            }
        }
    }

    fn choose_listed(
        world: &World,
        kind: FileKind,
        damage: Damage,
        random: &mut Random,
    ) -> anyhow::Result<Option<Damaged>> {
        let mut files = files_of(&world.data())?;
        files.retain(|(found, _)| *found == kind);
        if files.is_empty() {
            return Ok(None);
        }
        let path = files.swap_remove(random.below(files.len() as u64) as usize).1;
        let bytes = path.metadata()?.len();
        let Some(at) = damage.inflict(&path, random)? else { return Ok(None) };
        let place = format!("{} at {at} of {bytes}", path.strip_prefix(world.data())?.display());
        Ok(Some(Damaged { path, place }))
    }

    fn broken(&self, outcome: &str, said: Vec<String>) -> Trial {
        Trial { place: self.place.clone(), outcome: format!("BROKEN: {outcome}"), said, broken: true }
    }

    fn fine(&self, outcome: &str, said: Vec<String>) -> Trial {
        Trial { place: self.place.clone(), outcome: outcome.to_owned(), said, broken: false }
    }
}

/// Says whether an error is that a file or folder is not there.
fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// A node's whole life in a world with a damaged file.
async fn life(world: &mut World, damaged: &Damaged) -> Trial {
    let node = match world.start() {
        Ok(node) => node,
        Err(error) => {
            let text = format!("{error:#}");
            let said: Vec<String> =
                text.lines().filter(|line| !line.contains("\"INFO\"")).map(ToOwned::to_owned).collect();
            return match () {
                () if text.contains("panicked at") => damaged.broken("panic at the start", said),
                () if text.contains("HANG") => damaged.broken("hangs at the start", said),
                () if names_file(world, &damaged.path, &said) => damaged.fine("refused at the start", said),
                () => damaged.broken("refused without naming the file", said),
            };
        }
    };
    live(world, node, damaged).await
}

/// What comes of a running node in a world with a damaged file.
async fn live(world: &mut World, node: Node, damaged: &Damaged) -> Trial {
    let judged = judge(world, &node).await;
    // Only of a node that has ended all of the log is here.
    let (log, stopped) = node.stop_and_tell();
    let mut said = messages(&log, "WARN");
    let logged = messages(&log, "ERROR");
    let errors = !logged.is_empty();
    said.extend(logged);
    if let Err(error) = stopped {
        said.push(format!("{error:#}"));
        return damaged.broken("a bad end", said);
    }
    match judged {
        Ok(()) if said.is_empty() => damaged.fine("exact, nothing to say", said),
        Ok(()) if errors => damaged.fine("exact, with an error logged", said),
        Ok(()) => damaged.fine("exact, with a warning", said),
        Err(error) => {
            let text = format!("{error:#}");
            let wrong = text.contains("WRONG");
            let named = names_file(world, &damaged.path, &said);
            said.insert(0, text);
            match (wrong, named) {
                (true, _) => damaged.broken("wrong answer", said),
                (false, true) => damaged.fine("refused while it runs", said),
                (false, false) => damaged.broken("no answer, without naming the file", said),
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
    if tokio::time::timeout(ARCHIVED_WITHIN, world.archived(&node.client)).await.is_ok() {
        let whole = world.archive_is_whole(&node.client).await;
        ensure!(whole.unwrap_or(true), "WRONG: SQL over the archive stays behind what is archived");
    }
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
