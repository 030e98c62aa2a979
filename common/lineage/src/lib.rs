//! Who computes which part of a job. Pure: no clock, no sockets, no randomness.
//!
//! ```text
//!   workers come and go ──▶ ┌───────────┐ ──▶ start run 7 of task 3 at worker 2
//!   run 7 is done, failed ▶ │ Scheduler │ ──▶ stop run 5: its twin was faster
//!   time passes ──────────▶ └───────────┘ ──▶ task 3 is completed; the job is given up
//! ```
//!
//! A job is a number of tasks without an order. What a task is, and what it gives, is nothing to the
//! scheduler, but that doing it twice does no harm: a task that runs at two workers has one result.

mod progress;
mod scheduler;
#[cfg(test)]
mod simulation;

pub use progress::{Progress, WorkerProgress};
pub use scheduler::{Effect, Event, Failure, RunId, Scheduler, SchedulerConfig, TaskId, Why, WorkerId};
