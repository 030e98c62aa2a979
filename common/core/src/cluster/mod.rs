//! The replication core: who holds which partition of a cluster, and how its
//! replicas stay equal. Pure: no clock, no socket, no randomness.
//!
//! ```text
//!                    control's log: Change, Change, …
//!                                │ apply
//!   detector ─▶ supervisor ─▶ ClusterMap ─▶ replica ⇄ replica ⇄ replica
//!   who is alive  what follows   who holds what      append, acknowledge, commit
//!              └───────────── Node::step(event) -> outputs ─────────────┘
//!
//!   reader ─▶ Hedger: which replica, and when another ─▶ Node::read(partition, seen)
//! ```
//!
//! Promised: an acknowledged write is on every replica in sync, and survives as
//! long as one of them does; replicas at equal positions are equal; a reader
//! never goes back behind the position it has seen; one committed [`Change`]
//! moves everything that a node held. Nothing of this rests on a clock: times
//! decide only how soon something is tried.
//!
//! Not promised: that a write is kept when every replica in sync loses its
//! memory. The partition then begins its next life, empty, which every position
//! tells from the one before; what holds the source refills it.

mod detector;
mod entries;
mod hedge;
mod ids;
mod map;
mod mutant;
mod node;
mod placement;
mod protocol;
mod replica;
#[cfg(any(test, feature = "simulation"))]
pub mod sim;
mod supervisor;

pub use detector::{Detector, DetectorConfig, Heartbeat};
pub use hedge::{HedgeConfig, Hedger, Read};
pub use ids::{Epoch, Holder, Incarnation, Instance, NodeId, Partition, Position};
pub use map::{Assignment, Change, ClusterMap, Member, Refused, Standing};
pub use node::{Event, Message, Node, NodeConfig, Output};
pub use protocol::{
    Answer, Effect, Logged, ReadRefusal, ReplicaConfig, Replication, RequestId, Shown, State,
};
pub use replica::{Owed, Replica};
pub use supervisor::{Supervisor, SupervisorConfig};
