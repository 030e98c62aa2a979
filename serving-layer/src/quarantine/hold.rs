//! Who carries a replay out: one node of a cluster at a time.
//!
//! Whoever planned it holds it; whoever is to go on with it claims it first, by a numbered file that can be made once. A
//! claim is left alone for a minute, by the clocks of those who would make the next one; its holder appends for a third
//! of that, by its own clock, before it claims anew. So two that both find what is missing in the log don't both
//! append it, unless an append takes longer than the rest of that minute, or their clocks differ by so much.

use std::time::{Duration, Instant};

use sanso_dataset::{ReplayClaim, ReplayPlan};

use crate::problem::Problem;
use crate::quarantine::read::failed;
use crate::service::Shared;

/// How long others leave a claim, or a plan, alone.
const HELD: Duration = Duration::from_secs(60);
/// How long its holder appends on the strength of it.
const APPENDS: Duration = Duration::from_secs(20);

/// A replay that is this process's to carry out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    number: u64,
    claim: u64,
    since: Instant,
}

impl Hold {
    /// Holds a replay that is about to be planned.
    pub(crate) fn planning(number: u64) -> Self {
        Self { number, claim: 0, since: Instant::now() }
    }

    /// Takes a replay that is planned and not done, unless another node holds it. `before`: what this process
    /// held last of the source.
    pub(crate) async fn take(
        shared: &Shared,
        source: &str,
        plan: &ReplayPlan,
        before: Option<&Self>,
    ) -> Result<Self, Problem> {
        let mut hold = Self::planning(plan.number);
        if !shared.nodes.are_many() {
            return Ok(hold);
        }
        let last = shared.context.dataset.last_replay_claim(source, plan.number).await.map_err(failed)?;
        let (claim, at_us) = last.map_or((0, plan.planned_us), |last| (last.claim, last.claimed_us));
        let is_mine = before.is_some_and(|before| (before.number, before.claim) == (plan.number, claim));
        if !is_mine && is_recent(at_us) {
            return Err(Problem::busy("replays"));
        }
        hold.claim = claim;
        hold.claim_next(shared, source).await?;
        Ok(hold)
    }

    /// Sees to it that no other node appends for as long as an append takes; to be called before each.
    pub(crate) async fn keep(&mut self, shared: &Shared, source: &str) -> Result<(), Problem> {
        if !shared.nodes.are_many() || self.since.elapsed() < APPENDS {
            return Ok(());
        }
        self.claim_next(shared, source).await
    }

    async fn claim_next(&mut self, shared: &Shared, source: &str) -> Result<(), Problem> {
        let since = Instant::now();
        let claim = ReplayClaim {
            number: self.number,
            claim: self.claim + 1,
            node: shared.nodes.me(),
            claimed_us: chrono::Utc::now().timestamp_micros(),
        };
        if !shared.context.dataset.claim_replay(source, &claim).await.map_err(failed)? {
            return Err(Problem::busy("replays"));
        }
        (self.claim, self.since) = (claim.claim, since);
        Ok(())
    }
}

/// Says whether another node, by a clock of its own, may still be carrying it out.
fn is_recent(at_us: i64) -> bool {
    let age_us = chrono::Utc::now().timestamp_micros().saturating_sub(at_us);
    u128::from(age_us.unsigned_abs()) < HELD.as_micros()
}
