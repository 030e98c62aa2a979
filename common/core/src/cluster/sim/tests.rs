//! The core's promises in any seed, and that each broken rule is noticed.

use std::collections::BTreeMap;

use super::clients::{Clients, PARTITIONS, REPLICAS};
use super::{NODES, Outcome, Plan, Setting, World};
use crate::cluster::mutant::{Mutant, Mutants};

/// Bounds for a run with one fault, in microseconds.
const READ_STALL_US: u64 = 100_000;
const WRITE_STALL_US: u64 = 500_000;

/// What a run has come to, with what its clients have seen.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    outcome: Outcome,
    worst_write_us: u64,
    worst_read_us: u64,
    writes: u64,
    reads: u64,
}

/// Runs one seed; a stall beyond its bound is a broken promise like any other.
fn run(seed: u64, mutant: Option<Mutant>) -> Result<Ran, String> {
    let setting = Setting { mutants: Mutants(mutant), ..Setting::new(PARTITIONS, REPLICAS) };
    let mut world = World::new(seed, setting, |rng| Plan::draw(rng, NODES), |_, map| Clients::new(map));
    let outcome = world.run().map_err(|violation| format!("seed {seed}, {violation}"))?;
    let (writers, readers) = (&world.guests.writers, &world.guests.readers);
    let ran = Ran {
        worst_write_us: writers.iter().map(|writer| writer.worst_us).max().unwrap_or(0),
        worst_read_us: readers.iter().map(|reader| reader.worst_us).max().unwrap_or(0),
        writes: writers.iter().map(|writer| writer.done).sum(),
        reads: readers.iter().map(|reader| reader.done).sum(),
        outcome,
    };
    let Some(fault) = ran.outcome.single else { return Ok(ran) };
    let check = |what: &str, worst_us: u64, bound_us: u64| {
        if worst_us <= bound_us {
            return Ok(());
        }
        Err(format!("seed {seed}, {fault:?}: a {what} took {worst_us} us, the bound is {bound_us}"))
    };
    check("read", ran.worst_read_us, READ_STALL_US)?;
    check("write", ran.worst_write_us, WRITE_STALL_US)?;
    let lost = ran.outcome.lives_lost;
    if lost > 0 {
        return Err(format!("seed {seed}, {fault:?}: one fault lost {lost} partitions"));
    }
    Ok(ran)
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|given| !given.is_empty());
    given.map_or(default, |given| given.parse().unwrap_or_else(|_| panic!("{name} is no number: {given}")))
}

#[test]
#[allow(clippy::print_stderr, reason = "figures for whoever runs many seeds")]
fn every_promise_holds_in_every_seed() {
    let (from, seeds) = (number("FROM", 0), number("SEEDS", 2_000));
    let mut stalls: BTreeMap<String, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    let (mut writes, mut reads, mut faults, mut lost) = (0, 0, 0, 0);
    for seed in from..from + seeds {
        let ran = run(seed, None).unwrap_or_else(|violation| {
            panic!("{violation}\nrun it again: make simulate FROM={seed} SEEDS=1")
        });
        writes += ran.writes;
        reads += ran.reads;
        faults += u64::from(ran.outcome.faults);
        lost += u64::from(ran.outcome.lives_lost);
        if let Some(fault) = ran.outcome.single {
            let kind = format!("{fault:?}").split('(').next().unwrap_or_default().to_owned();
            let of_kind = stalls.entry(kind).or_default();
            of_kind.0.push(ran.worst_write_us);
            of_kind.1.push(ran.worst_read_us);
        }
        if (seed + 1 - from).is_multiple_of(10_000) {
            eprintln!("{} seeds, no promise broken", seed + 1 - from);
        }
    }
    eprintln!("{seeds} seeds: {writes} writes, {reads} reads, {faults} faults, {lost} declared losses");
    eprintln!("worst stall of a seed with one fault, ms: write p50 p99 max | read p50 p99 max");
    for (kind, (mut writes, mut reads)) in stalls {
        let [w, r] = [&mut writes, &mut reads].map(|all| {
            all.sort_unstable();
            let at = |percent: usize| all[(all.len() - 1) * percent / 100] / 1_000;
            format!("{:>4} {:>4} {:>4}", at(50), at(99), at(100))
        });
        eprintln!("  {kind:<8} {:>6} seeds   {w} | {r}", writes.len());
    }
}

/// The rules that are broken, one by one, and where the search for a seed that
/// notices begins: some matter seldom, and `make simulate-mutants` searches from 0.
const MUTANTS: [(Mutant, u64); 15] = [
    (Mutant::NoFence, 0),
    (Mutant::MajorityAck, 0),
    (Mutant::GrowLate, 0),
    (Mutant::PendingCounts, 0),
    (Mutant::EarlyAdmission, 0),
    (Mutant::ShrinkEarly, 0),
    (Mutant::DirtyRead, 0),
    (Mutant::RestartInSync, 0),
    (Mutant::AnyIncarnation, 0),
    (Mutant::NoFloor, 0),
    (Mutant::UncleanPromotion, 0),
    (Mutant::AnyVersion, 0),
    (Mutant::AnyTenure, 9_900),
    (Mutant::OlderMap, 0),
    (Mutant::OneWay, 0),
];

#[test]
#[allow(clippy::print_stderr, reason = "how many seeds each took is a figure to look at")]
fn every_broken_rule_is_noticed() {
    let (most, from_zero) = (number("MUTANT_SEEDS", 3_000), number("MUTANTS_FROM_ZERO", 0) == 1);
    let mut survivors = Vec::new();
    for (mutant, known) in MUTANTS {
        let from = if from_zero { 0 } else { known };
        let broken = (from..from + most).find_map(|seed| Some((seed + 1 - from, broken_by(seed, mutant)?)));
        match broken {
            Some((seeds, how)) => eprintln!("{mutant:?}: noticed after {seeds} seeds: {how}"),
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "no seed of {most} notices: {survivors:?}");
}

/// Runs a seed with a broken rule; an assertion in the code itself notices as well.
fn broken_by(seed: u64, mutant: Mutant) -> Option<String> {
    let ran = std::panic::catch_unwind(|| run(seed, Some(mutant)));
    ran.map_or_else(|_| Some("an assertion failed".to_owned()), Result::err)
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}
