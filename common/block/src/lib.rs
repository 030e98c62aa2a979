//! Immutable blocks: the cached partitions of the lineage graph, on one node.
//!
//! ```text
//!   put ──▶ memory ──least recently used──▶ disk (several folders) ──▶ gone
//!             ▲                                │
//!             └──────────── get ◀──────────────┘        else: None, the caller reads or computes it
//! ```
//!
//! A block is named by a fingerprint of its content, or of all that it was made from, so equal names
//! mean equal rows, and a block never changes. [`BlockStore`] is the entry point; what goes where and who
//! leaves is decided by [`Ledger`], without I/O; [`recovery`] chooses the cheapest way to a block, [`replicas`] how
//! many nodes are to have it.
//!
//! Promised: never more in memory, and on disk, than the bounds; a file that is torn, flipped or of
//! another block is not there: it is removed and counted, never used; many who ask for one block on disk
//! share one read of it; a disk that is full or broken means a block that is not kept, never an error.
//!
//! Not promised: that a block which was put is found again; durability, as files are not synchronised:
//! a loss of power may cost some of them. Rows that a caller still holds count to the caller, not here.

mod error;
mod file;
mod folder;
mod ledger;
mod neighbours;
pub mod recovery;
pub mod replicas;
mod rows;
mod shared;
mod store;

pub use error::BlockError;
pub use ledger::{Admission, Bounds, Counts, FilePlace, Found, Ledger, Placed};
pub use neighbours::{BlockNode, HeldBlock, Neighbours, NodeBlocks, OfferedBlock, PartId};
pub use rows::Rows;
pub use sanso_state::StorageLevel;
pub use shared::{Keeping, Made, SharedBlocks};
pub use store::{BlockConfig, BlockStore, Reading, Usage};

use sanso_state::Fingerprint;
use serde::{Deserialize, Serialize};

/// Names a block by a fingerprint: of its content, or of all that its rows were made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId(pub Fingerprint);
