//! The verdict: what was found against what is promised. Pure.

use serde::Serialize;

use crate::history::Class;
use crate::judge::{Judgement, Rule};

/// How long a client may be made to wait under a fault, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// For an answer to a question.
    pub read_ms_max: f64,
    /// From a reading's due time to an answer that has it.
    pub visible_ms_max: f64,
}

impl Bounds {
    /// What is promised for any single fault.
    pub const SINGLE: Bounds = Bounds { read_ms_max: 300.0, visible_ms_max: 1_500.0 };
    /// What is promised where a link takes 200 ms longer, or loses packets, which TCP sends again after
    /// as long: an answer may need three things over it, one after the other.
    pub const SLOW_LINK: Bounds = Bounds { read_ms_max: 900.0, visible_ms_max: 2_100.0 };
    /// What is promised while the log gets over a loss of its own: until Kafka has found it out, what
    /// is written to it waits.
    pub const LOG: Bounds = Bounds { visible_ms_max: 5_000.0, ..Bounds::SINGLE };
    /// What is promised always, also where the processors are starved.
    pub const ALWAYS: Bounds = Bounds { read_ms_max: 5_000.0, visible_ms_max: 5_000.0 };
}

/// Returns the broken promises, for people; none when all are kept.
///
/// Content is promised whatever happens, waits only where there are bounds. A client that asked a node
/// in trouble may wait `client_timeout_ms` longer: so long it takes before it asks another.
pub fn broken(judgement: &Judgement, bounds: Option<Bounds>, client_timeout_ms: f64) -> Vec<String> {
    let mut broken = Vec::new();
    for rule in Rule::ALL {
        let found: Vec<&str> = judgement
            .findings
            .iter()
            .filter(|finding| finding.rule == rule)
            .map(|finding| finding.what.as_str())
            .collect();
        if let [first, ..] = found.as_slice() {
            broken.push(format!("{}: {}, the first: {first}", rule.name(), found.len()));
        }
    }
    let Some(bounds) = bounds else { return broken };
    let stalls = &judgement.stalls;
    for (class, bound) in [(Class::Read, bounds.read_ms_max), (Class::Visible, bounds.visible_ms_max)] {
        for (stalls, bound, whose) in [
            (&stalls.served, bound, ""),
            (&stalls.stranded, bound + client_timeout_ms, " of a client at a node in trouble"),
        ] {
            let Some(stall) = stalls.get(&class).filter(|stall| stall.ms >= bound || stall.unended) else {
                continue;
            };
            let end = if stall.unended { " and did not end" } else { "" };
            broken.push(format!(
                "a {} stall{whose} lasted {:.0} ms{end}, promised: under {bound:.0} (client {}, at {:.0} ms)",
                class.name(),
                stall.ms,
                stall.client,
                stall.due_ms
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judge::{Finding, Stall, Stalls};

    fn judgement(stalls: Stalls, findings: Vec<Finding>) -> Judgement {
        Judgement {
            stalls,
            latencies: Vec::new(),
            findings,
            errors: 0,
            given_up: 0,
            operations: 0,
            acknowledged: 0,
            staleness_ms: 0.0,
            instrument_late_ms: 0.0,
        }
    }

    fn waited(class: Class, ms: f64) -> BTreeMap<Class, Stall> {
        BTreeMap::from([(class, Stall { ms, ..Stall::default() })])
    }

    #[test]
    fn every_rule_of_content_breaks_the_verdict_with_or_without_bounds() {
        for rule in Rule::ALL {
            let finding = Finding { rule, what: "this one".into() };
            for bounds in [None, Some(Bounds::SINGLE)] {
                let found = broken(&judgement(Stalls::default(), vec![finding.clone(); 2]), bounds, 0.0);
                assert_eq!(found, [format!("{}: 2, the first: this one", rule.name())]);
            }
        }
    }

    #[test]
    fn waits_break_the_verdict_from_their_bound_on() {
        for (class, bound) in [(Class::Read, 300.0), (Class::Visible, 1_500.0)] {
            let served = |ms| judgement(Stalls { served: waited(class, ms), ..Stalls::default() }, vec![]);
            assert_eq!(broken(&served(bound - 0.1), Some(Bounds::SINGLE), 0.0), Vec::<String>::new());
            assert_eq!(broken(&served(bound), Some(Bounds::SINGLE), 1_000.0).len(), 1);
            assert_eq!(broken(&served(60_000.0), None, 0.0), Vec::<String>::new());
            let stranded =
                |ms| judgement(Stalls { stranded: waited(class, ms), ..Stalls::default() }, vec![]);
            assert_eq!(broken(&stranded(bound + 999.0), Some(Bounds::SINGLE), 1_000.0), Vec::<String>::new());
            assert_eq!(broken(&stranded(bound + 1_000.0), Some(Bounds::SINGLE), 1_000.0).len(), 1);
        }
        let writes = judgement(Stalls { served: waited(Class::Write, 9e9), ..Stalls::default() }, vec![]);
        assert_eq!(broken(&writes, Some(Bounds::ALWAYS), 0.0), Vec::<String>::new());
    }

    #[test]
    fn a_wait_without_an_end_breaks_the_verdict_however_short() {
        let mut served = waited(Class::Read, 1.0);
        served.values_mut().for_each(|stall| stall.unended = true);
        let found =
            broken(&judgement(Stalls { served, ..Stalls::default() }, vec![]), Some(Bounds::ALWAYS), 0.0);
        assert!(found[0].contains("did not end"), "{found:?}");
    }
}
