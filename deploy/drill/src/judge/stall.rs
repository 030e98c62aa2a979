//! How long requests, and so clients and keys, went without a good answer.
//!
//! The stall of an operation lasts from when it was due to its good answer, whatever was tried in
//! between. One that was given up is not over by that: it lasts until the same client got a good
//! answer of the same class to something that was due later.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Attempt, Class, History, Key, Mark, Operation};

/// One wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stall {
    /// How long it lasted, in milliseconds.
    pub ms: f64,
    /// Who waited.
    pub client: usize,
    /// For which key; none for a question about all of them.
    pub key: Option<Key>,
    /// Since when, in milliseconds since the load began.
    pub due_ms: f64,
    /// Nobody knows how long it would have lasted: no good answer came until the end.
    pub unended: bool,
}

/// The longest waits of a drill, by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stalls {
    /// Among operations of which no attempt went to a node that was then in trouble: what the cluster
    /// makes a client wait.
    pub served: BTreeMap<Class, Stall>,
    /// Among those with a failed attempt at such a node: in it is what the client itself waited before
    /// it turned to another.
    pub stranded: BTreeMap<Class, Stall>,
    /// Of each client, in milliseconds.
    pub clients: BTreeMap<Class, BTreeMap<usize, f64>>,
    /// Of each key, in milliseconds.
    pub keys: BTreeMap<Class, BTreeMap<Key, f64>>,
}

impl Stalls {
    /// Returns the longest of a class.
    pub fn worst(&self, class: Class) -> Option<Stall> {
        let both = [&self.served, &self.stranded].into_iter().filter_map(|stalls| stalls.get(&class));
        both.copied().max_by(|a, b| a.ms.total_cmp(&b.ms))
    }
}

/// Returns the stall of each operation, in microseconds, with whether it ever ended; in their order.
pub(crate) fn of_operations(history: &History) -> Vec<(u64, bool)> {
    // When good answers came to what was due at a time or later, by client and class.
    let mut good: BTreeMap<(usize, Class), Vec<(u64, u64)>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(attempt) = operation.good() {
            let key = (operation.client, operation.request.class());
            good.entry(key).or_default().push((operation.due_us, attempt.ended_us));
        }
    }
    for answers in good.values_mut() {
        answers.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, ended) in answers.iter_mut().rev() {
            earliest = earliest.min(*ended);
            *ended = earliest;
        }
    }
    let stall = |operation: &Operation| {
        if let Some(attempt) = operation.good() {
            return (attempt.ended_us.saturating_sub(operation.due_us), true);
        }
        let gave_up = operation.ended_us();
        let answers = good.get(&(operation.client, operation.request.class()));
        let next = answers.and_then(|answers| {
            let after = answers.partition_point(|(due, _)| *due < gave_up);
            answers.get(after).map(|(_, ended)| *ended)
        });
        (next.unwrap_or(history.ended_us.max(gave_up)) - operation.due_us, next.is_some())
    };
    history.operations.iter().map(stall).collect()
}

/// Says whether an operation lost time at a node that was in trouble.
fn is_stranded(operation: &Operation, marks: &[Mark]) -> bool {
    let met = |attempt: &Attempt, mark: &Mark| {
        attempt.node.is_some_and(|node| mark.nodes.contains(&node))
            && attempt.began_us <= mark.to_us
            && attempt.ended_us >= mark.from_us
    };
    let failed = operation.attempts.iter().filter(|attempt| attempt.error.is_some());
    failed.into_iter().any(|attempt| marks.iter().any(|mark| met(attempt, mark)))
}

/// Finds the longest waits.
pub(super) fn stalls(history: &History) -> Stalls {
    let mut stalls = Stalls::default();
    for (operation, (us, ended)) in history.operations.iter().zip(of_operations(history)) {
        let (class, key) = (operation.request.class(), operation.request.key());
        let stall = Stall {
            ms: us as f64 / 1e3,
            client: operation.client,
            key,
            due_ms: operation.due_us as f64 / 1e3,
            unended: !ended,
        };
        let stranded = is_stranded(operation, &history.marks);
        let worst = if stranded { &mut stalls.stranded } else { &mut stalls.served };
        let worst = worst.entry(class).or_insert(stall);
        if worst.ms < stall.ms {
            *worst = stall;
        }
        let client = stalls.clients.entry(class).or_default().entry(operation.client).or_default();
        *client = client.max(stall.ms);
        if let Some(key) = key {
            let longest = stalls.keys.entry(class).or_default().entry(key).or_default();
            *longest = longest.max(stall.ms);
        }
    }
    stalls
}
