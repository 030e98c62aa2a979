//! The quarantine as a reader sees it: the batch layer's below the cut, the speed layer's from it on.
//!
//! ```text
//!   dataset: manifest ─ division ─▶ files of refused records ─┐
//!   speed's stores, on all nodes ───▶ outside of batch's range ─┼─▶ one list, by (partition, offset)
//!   dataset: replays ──────────────▶ which of them, and where ─┘
//! ```
//!
//! Promised: a list is complete and exact for one version of the dataset: the speed layer drops its
//! part only after a version that holds it was committed, and a read during which the version
//! changed begins again. In a cluster, what a source refused is read from the node that feeds the log
//! partition, or follows it; where none of them answers, the list says which log partitions it lacks.

mod hold;
mod marks;
mod read;
mod replay;

pub(crate) use hold::Hold;
pub(crate) use marks::{Mark, ReplayMarks};
pub(crate) use read::{Ask, Wanted, live_views, read};
pub(crate) use replay::{Asked, replay};
