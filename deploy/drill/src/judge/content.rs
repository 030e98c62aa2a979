//! What answers and the final state hold, against what was sent and acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::history::{History, Key, Operation, Request};
use crate::oracle::{Audit, value_micro};

/// What was promised of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// What was acknowledged is there in the end.
    Lost,
    /// Nothing counts twice, and nothing counts that was not sent.
    Doubled,
    /// What is there has the value that was sent.
    Altered,
    /// In a session, no answer has less than an earlier one of the same question.
    WentBack,
    /// An answer lacks nothing that was acknowledged to its session, without saying so.
    SilentlyPartial,
}

impl Rule {
    /// All rules in the order of reports.
    pub const ALL: [Rule; 5] =
        [Rule::Lost, Rule::Doubled, Rule::Altered, Rule::WentBack, Rule::SilentlyPartial];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Lost => "acknowledged, lost",
            Rule::Doubled => "doubled",
            Rule::Altered => "altered",
            Rule::WentBack => "gone back in time",
            Rule::SilentlyPartial => "silently partial",
        }
    }
}

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, for people.
    pub what: String,
}

/// A question, which is about one key or about all.
type Scope = Option<Key>;

/// Returns the write that an operation is, with whether it was acknowledged.
fn write(operation: &Operation) -> Option<(Key, u32)> {
    match operation.request {
        Request::Write { key, sequence } => Some((key, sequence)),
        _ => None,
    }
}

/// Counts the readings that were acknowledged.
pub(super) fn acknowledged(history: &History) -> usize {
    history
        .operations
        .iter()
        .filter(|operation| write(operation).is_some() && operation.good().is_some())
        .count()
}

/// Finds all breaches.
pub(super) fn findings(history: &History, audit: Option<&Audit>) -> Vec<Finding> {
    let mut findings = audit.map_or(Vec::new(), |audit| of_audit(history, audit));
    let writes = Writes::of(history);
    findings.extend(of_answers(history, &writes));
    findings
}

/// Holds the final state against what was sent.
fn of_audit(history: &History, audit: &Audit) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sent = BTreeSet::new();
    for operation in &history.operations {
        let Some((key, sequence)) = write(operation) else { continue };
        sent.insert((key, sequence));
        if let (Some(good), None) = (operation.good(), audit.get(&(key, sequence))) {
            let what = format!(
                "reading {sequence} of key {key}, acknowledged at {} ms, is not there",
                good.ended_us / 1000
            );
            findings.push(Finding { rule: Rule::Lost, what });
        }
    }
    for (&(key, sequence), found) in audit {
        let expected = value_micro(key, sequence);
        if !sent.contains(&(key, sequence)) {
            let what = format!("reading {sequence} of key {key} was never sent");
            findings.push(Finding { rule: Rule::Doubled, what });
        } else if found.count != 1 {
            let what = format!("reading {sequence} of key {key} counts {} times", found.count);
            findings.push(Finding { rule: Rule::Doubled, what });
        } else if found.value_micro != expected {
            let what = format!(
                "reading {sequence} of key {key} is {} millionths, {expected} were sent",
                found.value_micro
            );
            findings.push(Finding { rule: Rule::Altered, what });
        }
    }
    findings
}

/// When what was written to a scope was sent and acknowledged. All lists are sorted.
#[derive(Debug, Default)]
struct Times {
    sent_us: Vec<u64>,
    acknowledged_us: Vec<u64>,
    acknowledged_to_us: BTreeMap<usize, Vec<u64>>,
}

/// The times of all writes by scope.
struct Writes(BTreeMap<Scope, Times>);

impl Writes {
    fn of(history: &History) -> Self {
        let mut scopes: BTreeMap<Scope, Times> = BTreeMap::new();
        for operation in &history.operations {
            let Some((key, _)) = write(operation) else { continue };
            for scope in [Some(key), None] {
                let times = scopes.entry(scope).or_default();
                times.sent_us.extend(operation.attempts.first().map(|attempt| attempt.began_us));
                if let Some(good) = operation.good() {
                    times.acknowledged_us.push(good.ended_us);
                    times.acknowledged_to_us.entry(operation.client).or_default().push(good.ended_us);
                }
            }
        }
        for times in scopes.values_mut() {
            times.sent_us.sort_unstable();
            times.acknowledged_us.sort_unstable();
            times.acknowledged_to_us.values_mut().for_each(|list| list.sort_unstable());
        }
        Self(scopes)
    }

    /// Counts what had been sent until a moment.
    fn sent(&self, scope: Scope, until_us: u64) -> u64 {
        self.0.get(&scope).map_or(0, |times| count(&times.sent_us, until_us))
    }

    /// Counts what had been acknowledged to a client until a moment.
    fn acknowledged_to(&self, scope: Scope, client: usize, until_us: u64) -> u64 {
        let times = self.0.get(&scope).and_then(|times| times.acknowledged_to_us.get(&client));
        times.map_or(0, |times| count(times, until_us))
    }

    /// Returns how long before `asked_us` something was acknowledged that an answer with so many
    /// readings can't hold: one of the first `readings + 1` is missing.
    fn staleness_us(&self, scope: Scope, readings: u64, asked_us: u64) -> u64 {
        let acknowledged =
            self.0.get(&scope).map(|times| times.acknowledged_us.as_slice()).unwrap_or_default();
        let next = usize::try_from(readings).ok().and_then(|readings| acknowledged.get(readings));
        next.map_or(0, |at| asked_us.saturating_sub(*at))
    }
}

fn count(sorted: &[u64], until_us: u64) -> u64 {
    sorted.partition_point(|at| *at <= until_us) as u64
}

/// An answer to a question: who asked what, when it was sent, when and with what it came.
struct Answer {
    client: usize,
    scope: Scope,
    asked_us: u64,
    answered_us: u64,
    readings: u64,
}

fn answers(history: &History) -> impl Iterator<Item = Answer> {
    history.operations.iter().filter_map(|operation| {
        let (attempt, seen) = (operation.good()?, operation.seen?);
        Some(Answer {
            client: operation.client,
            scope: operation.request.key(),
            asked_us: attempt.began_us,
            answered_us: attempt.ended_us,
            readings: seen.readings,
        })
    })
}

/// Holds each answer against what was sent, what its session was told, and what it saw before.
fn of_answers(history: &History, writes: &Writes) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sessions: BTreeMap<(usize, Scope), Vec<Answer>> = BTreeMap::new();
    for answer in answers(history) {
        let about = answer.scope.map_or("all keys".to_owned(), |key| format!("key {key}"));
        let said = format!(
            "client {} was told at {} ms of {} readings of {about}",
            answer.client,
            answer.answered_us / 1000,
            answer.readings
        );
        let sent = writes.sent(answer.scope, answer.answered_us);
        if answer.readings > sent {
            let what = format!("{said}, of which {sent} had been sent");
            findings.push(Finding { rule: Rule::Doubled, what });
        }
        let owed = writes.acknowledged_to(answer.scope, answer.client, answer.asked_us);
        if answer.readings < owed {
            let what = format!("{said}, though {owed} had been acknowledged to it");
            findings.push(Finding { rule: Rule::SilentlyPartial, what });
        }
        sessions.entry((answer.client, answer.scope)).or_default().push(answer);
    }
    for answers in sessions.values_mut() {
        findings.extend(went_back(answers));
    }
    findings
}

/// Finds the answers of one session to one question that have less than one that was there when they
/// were asked for.
fn went_back(answers: &mut [Answer]) -> Vec<Finding> {
    answers.sort_unstable_by_key(|answer| answer.answered_us);
    let mut most = 0;
    let seen: Vec<(u64, u64)> = answers
        .iter()
        .map(|answer| {
            most = most.max(answer.readings);
            (answer.answered_us, most)
        })
        .collect();
    let back = answers.iter().filter_map(|answer| {
        let before = seen.partition_point(|(answered, _)| *answered <= answer.asked_us);
        let (_, most) = *seen.get(before.checked_sub(1)?)?;
        (answer.readings < most).then(|| Finding {
            rule: Rule::WentBack,
            what: format!(
                "client {} had seen {most} readings of {} and was told at {} ms of {}",
                answer.client,
                answer.scope.map_or("all keys".to_owned(), |key| format!("key {key}")),
                answer.answered_us / 1000,
                answer.readings
            ),
        })
    });
    back.collect()
}

/// Returns the greatest age of an acknowledged reading that an answer lacked.
pub(super) fn staleness_us(history: &History) -> u64 {
    let writes = Writes::of(history);
    let age = |answer: Answer| writes.staleness_us(answer.scope, answer.readings, answer.asked_us);
    answers(history).map(age).max().unwrap_or_default()
}
