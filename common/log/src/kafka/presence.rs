//! Whether a topic is gone, or its cluster is only coming back. Pure.
//!
//! A broker that has just started may deny for a moment that a topic exists which it holds; so may
//! a client that asked such a broker. A topic that was there is gone once the cluster has said so
//! for as long as `grace`, without a success in between. One that was never seen is believed missing
//! at once: whoever mistyped a name shall not wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The topics that were seen, each with the time since which the cluster denies it.
#[derive(Debug)]
pub(super) struct Presence {
    grace: Duration,
    denied_since: BTreeMap<String, Option<Instant>>,
}

impl Presence {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, denied_since: BTreeMap::new() }
    }

    /// Notes that the topic is there.
    pub(super) fn seen(&mut self, topic: &str) {
        match self.denied_since.get_mut(topic) {
            Some(since) => *since = None,
            None => drop(self.denied_since.insert(topic.to_owned(), None)),
        }
    }

    /// Notes that the cluster denies the topic; says whether to believe it.
    pub(super) fn is_gone(&mut self, topic: &str, now: Instant) -> bool {
        let Some(since) = self.denied_since.get_mut(topic) else { return true };
        now.duration_since(*since.get_or_insert(now)) >= self.grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn a_topic_never_seen_is_missing_at_once() {
        assert!(Presence::new(GRACE).is_gone("typo", Instant::now()));
    }

    #[test]
    fn a_topic_seen_is_gone_after_the_grace_without_a_success() {
        let (mut presence, start) = (Presence::new(GRACE), Instant::now());
        presence.seen("readings");
        assert!(!presence.is_gone("readings", start));
        assert!(!presence.is_gone("readings", start + GRACE / 2));
        presence.seen("readings");
        assert!(!presence.is_gone("readings", start + GRACE), "the success counts anew");
        assert!(!presence.is_gone("readings", start + GRACE * 2 - Duration::from_millis(1)));
        assert!(presence.is_gone("readings", start + GRACE * 2));
        assert!(presence.is_gone("readings", start + GRACE * 3), "and stays gone");
        presence.seen("readings");
        assert!(!presence.is_gone("readings", start + GRACE * 4), "until it is made again");
    }
}
