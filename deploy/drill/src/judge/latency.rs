//! Times from due to good answer, before, during and after the fault.

use serde::Serialize;

use crate::history::{Class, History};

/// A part of a drill, by when operations were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Until the fault began; all of a drill without a fault.
    Before,
    /// Until the last node was well again.
    During,
    /// The rest.
    After,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 3] = [Phase::Before, Phase::During, Phase::After];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Before => "before",
            Phase::During => "during",
            Phase::After => "after",
        }
    }
}

/// How long good answers of a class took in a phase, in milliseconds since they were due.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// What was asked.
    pub class: Class,
    /// When it was due.
    pub phase: Phase,
    /// How many good answers there were.
    pub answers: usize,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// All of them.
    pub max_ms: f64,
}

/// Returns the phase in which something was due.
pub(crate) fn phase(history: &History, due_us: u64) -> Phase {
    match history.fault_us() {
        Some((from, _)) if due_us < from => Phase::Before,
        Some((_, to)) if due_us <= to => Phase::During,
        Some(_) => Phase::After,
        None => Phase::Before,
    }
}

/// Sums up each class in each phase in which it has answers.
pub(super) fn latencies(history: &History) -> Vec<Latency> {
    let mut all = Vec::new();
    for class in Class::ALL {
        for wanted in Phase::ALL {
            let of_both = history.operations.iter().filter(|operation| {
                operation.request.class() == class && phase(history, operation.due_us) == wanted
            });
            let took = |end: u64, due: u64| {
                std::time::Duration::from_micros(end.saturating_sub(due)).as_secs_f64() * 1e3
            };
            let mut times: Vec<f64> = of_both
                .filter_map(|operation| Some(took(operation.good()?.ended_us, operation.due_us)))
                .collect();
            times.sort_by(f64::total_cmp);
            let Some(max_ms) = times.last().copied() else { continue };
            all.push(Latency {
                class,
                phase: wanted,
                answers: times.len(),
                p50_ms: quantile(&times, 500),
                p99_ms: quantile(&times, 990),
                p999_ms: quantile(&times, 999),
                max_ms,
            });
        }
    }
    all
}

/// Returns the smallest of the sorted times that this many of a thousand do not exceed.
fn quantile(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted[rank - 1]
}
