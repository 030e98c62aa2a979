//! The partition core: view partitions held in memory, written through one
//! ordered log each and read from any copy.
//!
//! Layers address a partition by [`PartitionId`] and speak to it only through
//! [`PartitionStore`]: entries in, outcomes out; read requests in, replies with
//! their own freshness out. The partitions are this process's alone, or those of
//! a cluster ([`Partitions`]), where each has several replicas.
//!
//! [`cluster`] decides who holds which replica and how they stay equal, purely;
//! a simulation drives it (`make simulate`). [`Hosted`] is what a replica holds.

mod background;
mod bury;
pub mod cluster;
mod hosted;
mod read;
mod slots;
mod staging;
mod store;

pub use background::run_in_background;
pub use hosted::{Encoded, GroupCounts, Hosted, Readable, Write, Written, finished, home_of};
pub use read::{Begun, Progress, ReadReply, ReadRequest};
pub use slots::{Change, Emitted};
pub use staging::{BlockPart, Staged, Staging};
pub use store::{PartitionId, PartitionStore, Partitions, StoreError};
