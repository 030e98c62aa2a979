//! Control: what a cluster agrees on, kept by one Raft group of three or five voters.
//!
//! ```text
//!   propose, put ─▶ any voter ─▶ leader ─▶ log on the disks of most voters ─▶ committed
//!                                                                               │ the same order everywhere
//!   maps(), table() ◀── watches ◀── Agreed::apply ◀────────────────────────────┘
//! ```
//!
//! Agreed on are the map of the cluster ([`ClusterMap`]: members, who holds which
//! partition) and a small [`Table`] with compare-and-set. Both change by
//! committed entries alone, so every voter sees the same changes in the same order.
//! A node that does not vote may have a [`Control`] all the same, which waits to be told; it learns
//! maps from the heartbeats and proposes through a [`Proposer`].
//!
//! Promised: what `propose` or `put` says is done is on the disks of most voters and
//! survives the loss of power on all of them; a change that was refused is refused on
//! every voter. A voter that was cut off and comes back disturbs nobody, and a leader that
//! hears no majority gives way, also when it is still heard.
//!
//! Not promised: that an unanswered proposal was not done ([`ControlError::Unknown`]), or
//! that a watch shows the newest: a voter that is behind shows an earlier state, never
//! another one. A voter that lost its folder must be taken out of the voters before it
//! comes back: it no longer knows for whom it has voted. [`Control::is_new`] says where that may be; who
//! is not handed messages does not vote.

mod agreed;
mod bodies;
mod config;
mod control;
mod error;
mod network;
mod runtime;
mod store;
mod table;
mod transport;

pub use agreed::Founding;
pub use config::{ControlConfig, Timings};
pub use control::{Control, Status};
pub use error::{ControlError, HandleError, StoreError};
pub use table::{Item, KEY_BYTES_MAX, PutRefused, TABLE_BYTES_MAX, Table, VALUE_BYTES_MAX};
pub use transport::{KINDS, Proposer, Transport, TransportError};

#[doc(no_inline)]
pub use sanso_core::cluster::{Change, ClusterMap, NodeId, Refused};
