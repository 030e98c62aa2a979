//! How control is set up.

use std::path::PathBuf;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use sanso_core::cluster::NodeId;

use crate::error::ControlError;

/// A voter's configuration.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster's name; a folder of another cluster is refused.
    pub cluster: String,
    /// Where the log, the vote and the snapshot are kept; created when absent, used by no other process.
    pub folder: PathBuf,
    /// Times.
    pub timings: Timings,
    /// Entries after which a snapshot is taken. As many again are kept for voters
    /// that are behind; those further behind get the snapshot.
    pub snapshot_entries: u64,
}

/// Control's times, in milliseconds. None of them is needed for safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// Least time without a heartbeat after which a voter asks for an election.
    pub election_ms_min: u64,
    /// Most time; also how long a leader goes on without hearing from a majority.
    pub election_ms_max: u64,
    /// For entries to reach the disk of another voter.
    pub append_ms_max: u64,
    /// For a snapshot to reach the disk of another voter.
    pub snapshot_ms_max: u64,
    /// For a proposal, from the call to its answer.
    pub proposal_ms_max: u64,
    /// For a new voter to catch up.
    pub catch_up_ms_max: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 20,
            election_ms_min: 50,
            election_ms_max: 100,
            append_ms_max: 500,
            snapshot_ms_max: 2_000,
            proposal_ms_max: 2_000,
            catch_up_ms_max: 10_000,
        }
    }
}

impl ControlConfig {
    /// Creates a configuration with default times.
    pub fn new(node: NodeId, cluster: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            node,
            cluster: cluster.into(),
            folder: folder.into(),
            timings: Timings::default(),
            snapshot_entries: 1_000,
        }
    }

    pub(crate) fn raft(&self) -> Result<Config, ControlError> {
        let Timings { heartbeat_ms, election_ms_min, election_ms_max, append_ms_max, .. } = self.timings;
        if heartbeat_ms == 0 || append_ms_max == 0 || self.snapshot_entries == 0 {
            return Err(ControlError::Config("times and the entries of a snapshot are at least 1".into()));
        }
        let config = Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: heartbeat_ms,
            election_timeout_min: election_ms_min,
            election_timeout_max: election_ms_max,
            install_snapshot_timeout: self.timings.snapshot_ms_max,
            // With values of at most 64 KiB, a message stays below 4 MiB.
            max_payload_entries: 32,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.snapshot_entries,
            enable_pre_vote: Some(true),
            // A leader that is heard but does not hear falls silent, so that another is elected.
            quorum_loss_probe_interval: Some(2 * election_ms_max),
            // What is known to be committed is not synced: a leader that lost power must not go on
            // from less than it has shown.
            enable_leader_restore: Some(false),
            backoff: format!("{heartbeat_ms}ms {}ms ...{election_ms_max}ms", 2 * heartbeat_ms),
            ..Config::default()
        };
        config.validate().map_err(|error| ControlError::Config(error.to_string()))
    }
}

impl Timings {
    pub(crate) fn append(&self) -> Duration {
        Duration::from_millis(self.append_ms_max)
    }

    pub(crate) fn snapshot(&self) -> Duration {
        Duration::from_millis(self.snapshot_ms_max)
    }

    pub(crate) fn proposal(&self) -> Duration {
        Duration::from_millis(self.proposal_ms_max)
    }

    pub(crate) fn catch_up(&self) -> Duration {
        Duration::from_millis(self.catch_up_ms_max)
    }

    /// Between two voters that come forward for one that is gone; an election is over by then.
    pub(crate) fn turn(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.election_ms_max)
    }
}
