//! Drills: a cluster under load loses, meets and survives a fault, and the instrument says what its
//! clients saw.
//!
//! ```text
//!   fault ─▶ steps ─┐                       ┌─▶ table, exit code
//!                   ├─▶ drill ─▶ history ─▶ judge ─▶ verdict ─▶ JSON
//!   load ─▶ clients ┘    │      (data)     (pure)   (pure)  └─▶ timeline, an SVG
//!                    target: a cluster of processes, and how to speak to it
//! ```
//!
//! The load is open: a request is due at its time whatever became of those before it, and its time is
//! counted from then. So a stall is seen by everything that was due in it, not by one request that
//! waited. [`drill`] runs one; a [`Target`] is what it runs on. The judge and the table of faults know
//! nothing of processes.
//!
//! Promises: what is reported happened to a client that behaves as ordinary ones do; a figure below
//! [`Judgement::instrument_late_ms`] is the instrument's own. Not promised: that a fault which the
//! system refuses to inflict (links without privileges) is replaced by another one; it is refused.

pub mod client;
pub mod command;
pub mod drill;
pub mod fault;
pub mod history;
pub mod judge;
pub mod load;
pub mod oracle;
pub mod picture;
pub mod process;
pub mod report;
pub mod sanso;
pub mod target;
pub mod verdict;

pub use drill::{Outcome, Settings, run};
pub use fault::Fault;
pub use history::{Class, History, Operation, Request};
pub use judge::{Judgement, judge};
pub use process::Process;
pub use sanso_broker::ports;
pub use target::Target;
