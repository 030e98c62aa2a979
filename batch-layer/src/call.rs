//! What a driver and its workers say to each other, where they are different processes.

use sanso_lineage::WorkerId;
use sanso_state::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::task::Work;

/// A task as it is told to another process. Fields may be added with a default, and kinds of work; what
/// a process does not know it refuses, and the task goes elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCall {
    /// The fingerprint that the task must have, made of what the other process knows.
    pub task: Fingerprint,
    /// The source.
    pub source: String,
    /// The version of the manifest that it stands on.
    pub stands_on: u64,
    /// What is to be done.
    pub work: Work,
    /// The views' versions, in order.
    pub views: Vec<Fingerprint>,
    /// Where the pieces are that it combines, in the order of their tasks: at this worker, or in the dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Option<WorkerId>>,
    /// Whether it is to be computed although it was done before, since what it gave is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// What another process answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskAnswer {
    /// The result is in the dataset.
    Done {
        /// Whether it was computed for this call, not found.
        computed: bool,
    },
    /// There is no result.
    Failed {
        /// Why, with its causes.
        reason: String,
        /// Whether another attempt may succeed, here or elsewhere.
        passing: bool,
        /// Whether it failed for what may pass by itself, as a store that is out of reach.
        transient: bool,
        /// The tasks whose pieces it could not get.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lacks: Vec<Fingerprint>,
        /// Whether this process can't do it as it stands, which says nothing of the task.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unable: bool,
    },
}

/// Bytes that are no task, or no answer, that this version knows.
#[derive(Debug, thiserror::Error)]
#[error("not what this version of the program knows")]
pub struct UnknownBytes(#[from] rmp_serde::decode::Error);

impl TaskCall {
    /// Encodes it: MessagePack with the names of fields, as all that nodes say to each other.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a call can be written")
    }

    /// Decodes it.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownBytes> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

impl TaskAnswer {
    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("an answer can be written")
    }

    /// Decodes it.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownBytes> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}
