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

mod engine;
mod hub;
mod life;
pub mod owners;
mod relay;
mod start;
mod store;
pub mod wire;

pub use hub::KindsOf;
pub use sanso_control::{ControlError, Timings};
pub use sanso_core::cluster::{
    Assignment, Change, ClusterMap, Holder, Instance, Member, NodeConfig, NodeId, Refused, Standing,
};
pub use sanso_peer::{Link, LinkFilter, Tls};
pub use start::{ClusterConfig, ClusterError, ClusterNode, MemberAddress, Replicas};
pub use wire::WireError;
