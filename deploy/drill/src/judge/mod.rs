//! The judge: what a history and the final state say about what was promised. Pure.
//!
//! ```text
//!   History ─┬─▶ stalls     how long clients and keys went without a good answer
//!            ├─▶ latencies  before, during and after the fault
//!   Audit ───┴─▶ content    lost, doubled, altered; answers that went back, or lacked something
//! ```
//!
//! Two properties of the load make the content checkable while it runs: readings are only ever added,
//! and each is written by one operation. So any count of them lies between what was acknowledged
//! before it was asked for and what had been sent when it was answered.

mod content;
mod latency;
mod stall;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use content::{Finding, Rule};
pub use latency::{Latency, Phase};
pub(crate) use stall::of_operations as stalls_of_operations;
pub use stall::{Stall, Stalls};

use crate::history::{Class, History};
use crate::oracle::Audit;

/// What the judge found.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// The longest waits.
    pub stalls: Stalls,
    /// Times of good answers by class and phase.
    pub latencies: Vec<Latency>,
    /// Broken rules of content, each with what is wrong. Empty when all is well.
    pub findings: Vec<Finding>,
    /// Attempts that did not get a good answer.
    pub errors: u64,
    /// Operations that were given up.
    pub given_up: u64,
    /// Operations in all.
    pub operations: u64,
    /// Readings that were acknowledged.
    pub acknowledged: u64,
    /// How long before the question the oldest reading was acknowledged that an answer lacked, in
    /// milliseconds, at least; the greatest of all answers.
    pub staleness_ms: f64,
    /// How late the instrument itself sent a request at the most, in milliseconds: no stall below it
    /// means anything.
    pub instrument_late_ms: f64,
}

/// Judges a drill. `audit` is what was found when all was over; none when it could not be read, which
/// leaves only the answers to be judged.
pub fn judge(history: &History, audit: Option<&Audit>) -> Judgement {
    let operations = &history.operations;
    let attempts = operations.iter().flat_map(|operation| &operation.attempts);
    // What asks for visibility waits for its acknowledgement first.
    let timed = operations.iter().filter(|operation| operation.request.class() != Class::Visible);
    let late = timed.map(|operation| operation.taken_up_us.saturating_sub(operation.due_us));
    Judgement {
        stalls: stall::stalls(history),
        latencies: latency::latencies(history),
        findings: content::findings(history, audit),
        errors: attempts.filter(|attempt| attempt.error.is_some()).count() as u64,
        given_up: operations.iter().filter(|operation| operation.good().is_none()).count() as u64,
        operations: operations.len() as u64,
        acknowledged: content::acknowledged(history) as u64,
        staleness_ms: content::staleness_us(history) as f64 / 1e3,
        instrument_late_ms: late.max().unwrap_or_default() as f64 / 1e3,
    }
}
