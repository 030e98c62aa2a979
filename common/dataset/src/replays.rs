//! Replays of quarantined records: what was appended for which of them, and where it went.
//!
//! ```text
//!   plan n (new, or refused) ──▶ append to the log ──▶ done n
//!          crash here: the log is searched from the plan's ends on for what is missing,
//!                      by whoever makes the next claim (new, or refused)
//! ```
//!
//! A quarantined record stays in the quarantine for ever; that it was replayed, when, and at which
//! new offset is said here. The numbers have no gaps, so two processes can't plan the same one.

use object_store::path::Path;
use sanso_state::Offset;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{DatasetError, RESTORE, Result};
use crate::manifest::{seal, seal_once, unseal};

/// One replay: written before anything of it is appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayPlan {
    /// Its number: 1, 2, …
    pub number: u64,
    /// When it was asked for, in microseconds since 1970 UTC.
    pub planned_us: i64,
    /// The source it appends to.
    pub into: String,
    /// For each log partition of that source where the log ended.
    pub ends: Vec<Offset>,
    /// The records, in the order they are appended in.
    pub records: Vec<ReplayRecord>,
}

/// One quarantined record and what is appended for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// The log partition that it is quarantined at.
    pub partition: u32,
    /// The offset that it is quarantined at.
    pub offset: Offset,
    /// The log partition to append to.
    pub to: u32,
    /// The partitioning key.
    pub key: String,
    /// The payload: JSON, since it could be decoded.
    pub payload: String,
}

/// Where a replay's records went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayDone {
    /// The replay's number.
    pub number: u64,
    /// For each record of the plan its new offset.
    pub offsets: Vec<Offset>,
}

/// Says that a node goes on with a replay that another one has not finished, or not in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayClaim {
    /// The replay's number.
    pub number: u64,
    /// The claim's number: 1, 2, … Whoever planned it has 0.
    pub claim: u64,
    /// Who goes on with it.
    pub node: u16,
    /// When, in microseconds since 1970 UTC, by its clock.
    pub claimed_us: i64,
}

impl Dataset {
    /// Writes down who goes on with a replay. False when the claim's number is taken.
    pub async fn claim_replay(&self, source: &str, claim: &ReplayClaim) -> Result<bool> {
        self.put_new(&self.layout().replay_claim(source, claim.number, claim.claim), seal_once(claim)?).await
    }

    /// Returns the last claim to a replay; asks for them one by one until there is none.
    pub async fn last_replay_claim(&self, source: &str, number: u64) -> Result<Option<ReplayClaim>> {
        let mut last = None;
        for claim in 1.. {
            match self.document(&self.layout().replay_claim(source, number, claim)).await? {
                Some(found) => last = Some(found),
                None => break,
            }
        }
        Ok(last)
    }

    /// Writes down a replay before it is done. False when its number is taken.
    pub async fn plan_replay(&self, source: &str, plan: &ReplayPlan) -> Result<bool> {
        self.put_new(&self.layout().replay(source, plan.number, false), seal_once(plan)?).await
    }

    /// Writes down that a replay is done. Idempotent.
    pub async fn finish_replay(&self, source: &str, done: &ReplayDone) -> Result<()> {
        self.put(&self.layout().replay(source, done.number, true), seal(done)).await
    }

    /// Reads the replays of a source whose number is above `after`, in order; with each whether it is
    /// done. Asks for them one by one until there is none.
    pub async fn replays(&self, source: &str, after: u64) -> Result<Vec<(ReplayPlan, Option<ReplayDone>)>> {
        let mut replays = Vec::new();
        for number in after + 1.. {
            let Some(plan) = self.document(&self.layout().replay(source, number, false)).await? else {
                break;
            };
            replays.push((plan, self.document(&self.layout().replay(source, number, true)).await?));
        }
        Ok(replays)
    }

    async fn document<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        match self.get(path).await {
            Ok(bytes) => unseal(path, &bytes, RESTORE).map(Some),
            Err(DatasetError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
