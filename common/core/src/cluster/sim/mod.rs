//! The core in a simulated world: five nodes, a network that loses and delays,
//! clocks that differ, guests that retry, and faults, drawn and aimed. One seed
//! decides everything; promises are looked at after every step.
//!
//! [`World`] is the cluster, [`Guests`] are who uses it. Here they are writers and
//! readers of a ledger (`make simulate SEEDS=… FROM=…`; the default test runs
//! 2,000 seeds); in `sanso-law` they are the three layers.

#[cfg(test)]
mod clients;
mod control;
mod faults;
mod guests;
#[cfg(test)]
mod ledger;
mod network;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod truth;
mod world;

pub use faults::{FAULTS_FROM_US, FAULTS_TO_US, Fault, Kind, Moment, Plan, fault};
pub use guests::{Guests, Violation};
pub use network::Network;
pub use world::{END_US, GUESTS_TO_US, NODES, Outcome, Setting, World, mix};
