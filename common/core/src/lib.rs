//! The partition core: view partitions held in memory, written through one
//! ordered log each and read from any copy.
//!
//! Layers address a partition by [`PartitionId`] and speak to it only through
//! [`PartitionStore`]: entries in, outcomes out; read requests in, replies with
//! their own freshness out. Today every partition has its one replica in this
//! process; requests and replies are plain data, so that a partition may as
//! well be elsewhere.
//!
//! [`cluster`] is what will put it there: the replication core, decided purely.
//! A simulation drives it (`make simulate`); the store does not stand on it yet.

pub mod cluster;
mod hosted;
mod read;
mod slots;
mod store;

pub use hosted::{Encoded, Hosted, Readable, Write, Written, home_of};
pub use read::{Progress, ReadReply, ReadRequest};
pub use slots::Change;
pub use store::{PartitionId, PartitionStore, Partitions, StoreError};
