//! What all nodes of a cluster say of themselves, whichever of them is asked.
//!
//! ```text
//!   request ─▶ Nodes ─┬─▶ this node's NodeQuestions ─┐
//!                     └─▶ the others', over the wire ─┴─▶ Whole: each log partition once
//! ```
//!
//! Every node answers, whatever its layers are ([`NodeQuestions`]); one that does not answer within
//! [`ANSWER_MAX`] is named with the reason, and what it alone knows is named as missing.
//! A single node is the same with nobody to ask.

mod gather;
mod quarantine;
mod questions;
mod report;
mod whole;

pub(crate) use gather::Nodes;
pub(crate) use quarantine::{Holders, PageAsked};
pub use questions::NodeQuestions;
pub(crate) use whole::Whole;

use std::time::Duration;

/// How long other nodes may take to say how they are.
pub(crate) const ANSWER_MAX: Duration = Duration::from_millis(500);
/// How long another node may take over a page of its quarantine.
pub(crate) const PAGE_MAX: Duration = Duration::from_secs(3);
