//! The three layers keep their promises in a simulated cluster, whatever goes wrong, and each rule
//! that is broken on purpose is noticed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use sanso_law::cluster::{MUTANTS, Mutant, Ran, Simulation};
use sanso_law::environment;

/// Runs seeds on all cores until one breaks a promise; returns what each came to.
fn run(seeds: std::ops::Range<u64>, mutant: Option<Mutant>) -> Result<BTreeMap<u64, Ran>, String> {
    let simulation = Simulation::default();
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((BTreeMap::new(), None::<(u64, String)>));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let ran = simulation.run(seed, mutant);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match ran {
                        Ok(ran) => _ = found.0.insert(seed, ran),
                        Err(violation) => {
                            next.store(seeds.end, Ordering::Relaxed);
                            if found.1.as_ref().is_none_or(|(first, _)| seed < *first) {
                                found.1 = Some((seed, violation));
                            }
                        }
                    }
                }
            });
        }
    });
    match found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (ran, None) => Ok(ran),
        (_, Some((seed, violation))) => {
            Err(format!("{violation}\nrun it again: make simulate-layers FROM={seed} SEEDS=1"))
        }
    }
}

/// Prints the worst stalls of seeds with one fault, by its kind.
#[allow(clippy::print_stdout, reason = "figures for whoever runs many seeds")]
fn print_stalls(ran: &BTreeMap<u64, Ran>) {
    let mut stalls: BTreeMap<String, [Vec<u64>; 3]> = BTreeMap::new();
    for ran in ran.values() {
        let Some(fault) = ran.outcome.single else { continue };
        let kind = format!("{fault:?}").split('(').next().unwrap_or_default().to_owned();
        let worst = [ran.worst_read_us, ran.worst_seen_us, ran.worst_visible_us];
        stalls.entry(kind).or_default().iter_mut().zip(worst).for_each(|(all, us)| all.push(us));
    }
    println!(
        "worst stall of a seed with one fault, ms: a read p50 max | what was seen p50 max | what was appended p50 max"
    );
    for (kind, mut all) in stalls {
        let [read, seen, appended] = all.each_mut().map(|all| {
            all.sort_unstable();
            format!("{:>4} {:>4}", all[all.len() / 2] / 1_000, all[all.len() - 1] / 1_000)
        });
        println!("  {kind:<8} {read} | {seen} | {appended}");
    }
}

#[test]
fn the_layers_keep_every_promise_in_every_seed() {
    let (start, seeds) = (environment("SANSO_LAW_START", 0), environment("SANSO_LAYERS_SEEDS", 300));
    let ran = run(start..start + seeds, None).unwrap_or_else(|violation| panic!("{violation}"));
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for ran in ran.values() {
        ran.happened.iter().for_each(|(what, count)| *happened.entry(what).or_default() += count);
        *happened.entry("partition lost").or_default() += u64::from(ran.outcome.lives_lost);
        *happened.entry("answer").or_default() += ran.reads;
    }
    println!("{seeds} seeds from {start}: {happened:?}");
    print_stalls(&ran);
    if seeds >= 300 {
        // A world in which nothing goes wrong proves nothing.
        for what in [
            "adoption",
            "answer",
            "audited",
            "base moved",
            "extended",
            "fed",
            "handed over",
            "killed",
            "made",
            "partition lost",
            "resumed",
            "snapshot",
            "staged",
            "version",
        ] {
            let count = happened.get(what).copied().unwrap_or(0);
            assert!(count > 20, "'{what}' hardly happened: {happened:?}");
        }
    }
}

#[test]
fn a_seed_of_the_layers_decides_everything() {
    let (one, other) = (run(0..8, None), run(0..8, None));
    assert_eq!(one, other);
}

/// Where the search for a seed that notices begins, for rules that matter seldom; with
/// `SANSO_LAYERS_MUTANTS_FROM_ZERO=1` it begins with the first for all.
const LATE: [(Mutant, u64); 2] = [(Mutant::NoDetour, 58), (Mutant::VersionTwice, 100)];

#[test]
fn every_broken_rule_of_the_layers_is_noticed() {
    let most = environment("SANSO_LAYERS_MUTANT_SEEDS", 200);
    let from_zero = environment("SANSO_LAYERS_MUTANTS_FROM_ZERO", 0) == 1;
    let known =
        |mutant| LATE.iter().find(|(late, _)| *late == mutant && !from_zero).map_or(0, |(_, from)| *from);
    let survives = |mutant: &Mutant| survives(*mutant, known(*mutant), most);
    let survivors: Vec<Mutant> = MUTANTS.into_iter().filter(survives).collect();
    assert!(survivors.is_empty(), "no seed of {most} notices: {survivors:?}");
}

#[allow(clippy::print_stdout, reason = "how many seeds each took is a figure to look at")]
fn survives(mutant: Mutant, from: u64, most: u64) -> bool {
    let simulation = Simulation::default();
    for seed in from..from + most {
        if let Err(violation) = simulation.run(seed, Some(mutant)) {
            println!("{mutant:?}: noticed by seed {seed}: {:.120}", violation.replace('\n', " "));
            return false;
        }
    }
    true
}
