//! `make torture`: kills at random moments, files of every kind damaged between two lives of a node
//! and while it runs, a million corrections of one reading, a million usage points; judged by a naive
//! fold, for as long as one likes.
//!
//! `torture kill|damage|rot|mass`, with `MINUTES` (10), `ROUNDS` (none: until the time is over), `SEED` (of the
//! clock when absent; printed) and, for damage, `ONLY` (a part of what a trial is called).

#![allow(clippy::print_stdout, reason = "people watch it")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use sanso_e2e::{Clock, Damage, Mass, Node, Random, World, damage_trial, files_of, golden, rot_trial, syncs};

/// How far a clock is off.
const DAYS_OFF_MAX: i64 = 5_000;

/// What bounds a run.
struct Bounds {
    until: Instant,
    rounds: u64,
    seed: u64,
}

impl Bounds {
    fn read() -> anyhow::Result<Bounds> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name} is a number")),
            _ => Ok(default),
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Bounds {
            until: Instant::now() + Duration::from_secs(60 * number("MINUTES", 10)?),
            rounds: number("ROUNDS", u64::MAX)?,
            seed: number("SEED", clock)?,
        })
    }

    fn allow(&self, round: u64) -> bool {
        round < self.rounds && Instant::now() < self.until
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bounds = Bounds::read()?;
    let mode = std::env::args().nth(1).unwrap_or_default();
    println!("torture {mode}: SEED={}", bounds.seed);
    match mode.as_str() {
        "kill" => kill(&bounds).await,
        "damage" => damage(&bounds, false).await,
        "rot" => damage(&bounds, true).await,
        "mass" => mass().await,
        _ => bail!("say what to do: torture kill, damage, rot or mass"),
    }
}

/// Kills the node at a random moment of its work, over and over; every start must be exact. In some
/// lives the clock is years off and jumps, in some the disk is slow.
async fn kill(bounds: &Bounds) -> anyhow::Result<()> {
    let mut random = Random::new(bounds.seed);
    let mut world = World::new(bounds.seed, Some(1))?;
    let folder = tempfile::tempdir()?;
    let clock = Clock::new(folder.path())?;
    let mut round = 0;
    while bounds.allow(round) {
        if random.once_in(8) {
            world.history.change_view();
            world.declare()?;
        }
        let command = match random.below(4) {
            0 => clock.as_ref().map(Clock::command),
            1 => syncs("fsync,fdatasync", "delay_enter=5ms"),
            _ => None,
        };
        let node = command.map_or_else(|| world.start(), |command| world.start_as(command))?;
        for _ in 0..random.below(4) {
            clock.as_ref().map_or(Ok(()), |clock| {
                clock.jump(&format!("{:+}d", DAYS_OFF_MAX - random.below(2 * DAYS_OFF_MAX as u64) as i64))
            })?;
            world.send(&node.client, 300).await?;
        }
        let under_way = world.begin(&node.client, 500);
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        node.kill()?;
        under_way.await?;
        let node = world.start()?;
        world.verdict(&node.client).await.with_context(|| format!("round {round}"))?;
        node.kill()?;
        round += 1;
    }
    println!("{round} rounds of two kills, every answer exact");
    Ok(())
}

/// Damages one file of each kind in each way, over and over: before a node starts, or while it runs.
async fn damage(bounds: &Bounds, running: bool) -> anyhow::Result<()> {
    let mut random = Random::new(bounds.seed);
    let world = golden(bounds.seed, None).await?;
    let kinds: BTreeSet<String> =
        files_of(&world.data())?.iter().map(|(kind, _)| format!("{kind:?}")).collect();
    let only = std::env::var("ONLY").unwrap_or_default();
    println!("{} kinds of files", kinds.len());
    let (mut round, mut trials, mut broken) = (0, 0, 0);
    while bounds.allow(round) {
        let mut met = BTreeSet::new();
        for (kind, _) in files_of(&world.data())? {
            for damage in Damage::ALL {
                let name = format!("{kind:?} {damage:?}");
                if !name.contains(&only) || !met.insert(name.clone()) || !bounds.allow(round) {
                    continue;
                }
                let trial = if running {
                    rot_trial(&world, kind, damage, &mut random).await
                } else {
                    damage_trial(&world, kind, damage, &mut random).await
                };
                let Some(trial) = trial.with_context(|| name.clone())? else { continue };
                trials += 1;
                broken += u64::from(trial.broken);
                println!(
                    "{} {name}: {} ({})",
                    if trial.broken { "BROKEN" } else { "ok" },
                    trial.outcome,
                    trial.place
                );
                if trial.broken {
                    trial.said.iter().for_each(|said| println!("    {said}"));
                }
            }
        }
        ensure!(!met.is_empty(), "no trial is called like ONLY='{only}'");
        round += 1;
    }
    ensure!(broken == 0, "{broken} of {trials} trials broke a promise");
    println!("{trials} trials, no promise broken");
    Ok(())
}

/// Sends a million corrections of one reading, and a million usage points; says what memory it took.
async fn mass() -> anyhow::Result<()> {
    const MILLION: u64 = 1_000_000;
    const PARTS: u64 = 10;
    let mut mass = Mass::new()?;
    let node = mass.start()?;
    mass.add_usage_points(&node.client, 1_000).await?;
    for part in 1..=PARTS {
        let started = Instant::now();
        mass.correct(&node.client, MILLION / PARTS).await?;
        mass.verdict(&node.client).await?;
        report(&node, &format!("{} corrections of one reading", part * MILLION / PARTS), started)?;
    }
    let node = reborn(&mass, node).await?;
    for part in 1..=PARTS {
        let started = Instant::now();
        mass.add_usage_points(&node.client, MILLION / PARTS).await?;
        mass.verdict(&node.client).await?;
        report(&node, &format!("{} usage points more", part * MILLION / PARTS), started)?;
    }
    for limit in node.client.get("/v1/limits").await?["limits"].as_array().into_iter().flatten() {
        println!("  {}: {} of {} {}", limit["name"], limit["used"], limit["max"], limit["unit"]);
    }
    reborn(&mass, node).await?.stop()
}

/// Kills a node and holds the next one's answers, too.
async fn reborn(mass: &Mass, node: Node) -> anyhow::Result<Node> {
    node.kill()?;
    let started = Instant::now();
    let node = mass.start()?;
    mass.verdict(&node.client).await?;
    report(&node, "after a kill", started)?;
    Ok(node)
}

fn report(node: &Node, what: &str, started: Instant) -> anyhow::Result<()> {
    let (now, peak) = node.memory()?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: exact; {seconds:.1} s, memory {} MiB, at most {} MiB", now >> 20, peak >> 20);
    Ok(())
}
