//! Who computes which part of a job. Pure: no clock, no sockets, no randomness.
//!
//! ```text
//!   workers come and go ──▶ ┌───────────┐ ──▶ start run 7 of task 3 at worker 2
//!   run 7 is done, failed ▶ │ Scheduler │ ──▶ stop run 5: its twin was faster
//!   run 8 lacks task 3 ───▶ │           │ ──▶ task 3 is lost, and done again
//!   time passes ──────────▶ └───────────┘ ──▶ task 3 is completed; the job is given up
//! ```
//!
//! A job is a number of tasks, of which some need the results of others. What a task is, and what it gives, is
//! nothing to the scheduler, but that doing it twice does no harm: a task that runs at two workers has one
//! result.

mod job;
mod progress;
mod scheduler;
#[cfg(test)]
mod scheduler_tests;
#[cfg(test)]
mod simulation;

pub use job::{Effect, Event, Failure, Held, RunId, SchedulerConfig, TaskId, TaskPlan, Why, WorkerId};
pub use progress::{Progress, WorkerProgress};
pub use scheduler::Scheduler;
