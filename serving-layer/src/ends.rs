//! Remembers where the log ended at which time, so that an answer can say how old it is.
//!
//! An answer that has applied everything below the end seen at time `t` holds
//! whatever the log had acknowledged by `t`: it is at most `now - t` old.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use sanso_log::{Log, LogError};
use sanso_state::Offset;
use sanso_view::Source;
use tokio::time::Instant;

/// Ends of one source's log, oldest first.
#[derive(Debug, Default)]
struct Ends(VecDeque<(Instant, Vec<Offset>)>);

impl Ends {
    fn add(&mut self, at: Instant, ends: Vec<Offset>, memory: Duration) {
        match self.0.back_mut() {
            // Nothing came since: the same end, known later.
            Some((known_at, known)) if *known == ends => *known_at = (*known_at).max(at),
            Some((known_at, _)) if *known_at > at => {}
            _ => self.0.push_back((at, ends)),
        }
        while self.0.len() > 1 && self.0.front().is_some_and(|(first, _)| at.duration_since(*first) > memory)
        {
            self.0.pop_front();
        }
    }

    fn age(&self, applied: &[Offset], now: Instant) -> Option<Duration> {
        let covers =
            |ends: &[Offset]| ends.len() == applied.len() && ends.iter().zip(applied).all(|(e, a)| a >= e);
        let (at, _) = self.0.iter().rev().find(|(_, ends)| covers(ends))?;
        Some(now.duration_since(*at))
    }
}

/// The ends of all sources' logs.
#[derive(Debug)]
pub(crate) struct LogEnds {
    memory: Duration,
    sources: Mutex<BTreeMap<String, Ends>>,
}

impl LogEnds {
    /// Remembers ends for `memory`.
    pub(crate) fn new(memory: Duration) -> Self {
        Self { memory, sources: Mutex::default() }
    }

    /// Looks at the end of a source's log now.
    pub(crate) async fn look(&self, log: &dyn Log, source: &Source) -> Result<(), LogError> {
        let at = Instant::now();
        let mut ends = Vec::with_capacity(source.partitions as usize);
        for partition in 0..source.partitions {
            ends.push(log.end_offset(&source.topic, partition).await?);
        }
        self.sources.lock().entry(source.name.clone()).or_default().add(at, ends, self.memory);
        Ok(())
    }

    /// Returns the newest end seen.
    pub(crate) fn newest(&self, source: &str) -> Option<Vec<Offset>> {
        self.sources.lock().get(source)?.0.back().map(|(_, ends)| ends.clone())
    }

    /// Returns how old something is at most that has applied these offsets;
    /// None when that is longer than what is remembered.
    pub(crate) fn age(&self, source: &str, applied: &[Offset]) -> Option<Duration> {
        self.sources.lock().get(source)?.age(applied, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_counted_from_the_newest_end_that_is_covered() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut ends = Ends::default();
        for (time, end) in [(0, [5, 5]), (1, [6, 5]), (2, [6, 5]), (3, [9, 9])] {
            ends.add(at(time), end.to_vec(), Duration::from_secs(60));
        }
        let age = |applied: [Offset; 2]| ends.age(&applied, at(10)).map(|age| age.as_secs());
        assert_eq!(age([9, 9]), Some(7));
        assert_eq!(age([9, 8]), Some(8));
        assert_eq!(age([5, 5]), Some(10));
        assert_eq!(age([5, 4]), None);
    }

    #[test]
    fn what_is_older_than_the_memory_is_forgotten_but_for_the_newest() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut ends = Ends::default();
        ends.add(at(0), vec![1], Duration::from_secs(5));
        ends.add(at(10), vec![2], Duration::from_secs(5));
        assert_eq!(ends.age(&[1], at(10)), None);
        assert_eq!(ends.age(&[2], at(100)), Some(Duration::from_secs(90)));
    }
}
