//! The batch layer: recomputes every view over all history up to a cut, exactly.
//!
//! ```text
//!   log ──segments──▶ archive ──▶ newest-version table k-1 → k ──▶ manifest k   (the cut)
//!                                        │ effects of each segment
//!                                        ▼
//!                     view k = view k-1 ⊕ contributions (view, segment) ──▶ blocks, published
//!                                        │                                      │
//!                                        ▼                                      ▼
//!                     audit: speed's segment = contribution?          each view partition adopts k
//! ```
//!
//! What is done for one log partition is a task: one node drives, and any worker computes, in the same
//! process or on another node ([`Executor`], [`TaskWorker`]). A view that is new is computed by two stages of
//! tasks: from each log partition a piece for each view partition, and of all its pieces the view partition.
//!
//! [`BatchLayer`] is the entry point: [`BatchLayer::run`] for ever, [`BatchLayer::run_once`] one step.
//!
//! Promised: a view at version k is exactly the fold of the log below cut k; the same whether it was
//! reached by contributions or by lifting the newest-version table; a crash between any two writes
//! loses and doubles nothing; a run computes only what new segments touch; contributions come from
//! the batch layer's own table, never from the speed layer's, so that the audit compares two
//! independent computations.
//!
//! Not promised: two batch layers on one dataset (the second is refused); an audit of a segment that
//! the speed layer does not reach in time (it is counted as skipped).

pub mod adoption;
pub mod advance;
mod archive;
mod audit;
mod call;
mod config;
pub mod contribution;
mod driver;
mod error;
mod exchange;
mod executor;
mod jobs;
mod lifting;
mod lineage;
mod metrics;
mod publish;
mod report;
mod service;
mod source_run;
mod task;
mod version;
mod worker;

pub use archive::archived_rows;
pub use call::{TaskAnswer, TaskCall, UnknownBytes};
pub use config::BatchConfig;
pub use error::{BatchError, Result};
pub use executor::Executor;
pub use report::{RunReport, SourceReport};
pub use sanso_lineage::{Failure, WorkerId};
pub use service::{BatchLayer, LiveViews};
pub use task::{Task, TaskResult, Work};
pub use worker::{TaskDone, TaskFailure, TaskWorker};
