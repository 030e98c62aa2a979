//! A node's part in a cluster: the replication core, driven.
//!
//! ```text
//!   layers ─▶ PartitionStore ─▶ ClusterStore ─▶ primary's Engine ─▶ Node::step ─▶ replicas
//!                                   │ reads: this node's replica, else others, hedged
//!   Control (voters) ─ map ─▶ Engine ◀─ heartbeats, replication ─▶ Peers
//! ```
//!
//! Decisions are those of [`sanso_core::cluster`]; here are the thread that steps it, the messages'
//! encoding and the sockets. A view partition is created once and found from every node after that.
//! [`owners`] says which node does what for the log's partitions.

mod blocks;
#[cfg(test)]
mod compat_tests;
mod engine;
mod figures;
mod hub;
mod life;
pub mod owners;
mod pulse;
mod questions;
mod relay;
mod seat;
mod staging;
mod start;
mod store;
pub mod transfer;
mod voters;
pub mod wire;

#[cfg(test)]
#[path = "../tests/world/mod.rs"]
#[allow(dead_code, reason = "shared with the tests outside")]
mod world;

// The tests in here share files with those outside, which know the package by its name.
#[cfg(test)]
extern crate self as sanso_cluster;

pub use blocks::{BlockHost, ClusterBlocks};
pub use figures::Figure;
pub use hub::KindsOf;
pub use questions::Answers;
pub use sanso_control::{ControlError, Timings};
pub use sanso_core::cluster::{
    Assignment, Change, ClusterMap, Holder, Instance, Member, NodeConfig, NodeId, Refused, Standing,
};
pub use sanso_peer::{CallError, Link, LinkFilter, Tls, VERSIONS};
pub use start::{ClusterConfig, ClusterError, ClusterNode, MemberAddress, Replicas};
pub use voters::{ControlPart, Voters, VotersError, VotersPatience};
pub use wire::WireError;
