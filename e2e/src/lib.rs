//! End-to-end tests: the built binary, driven from outside.
//!
//! `SANSO_BIN` names the binary (`make test` sets it); `bin/sanso` at the
//! project's root otherwise. Real meter data lies beside the project; a test
//! that needs it says so and stops where it is absent.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod client;
mod damage;
mod data;
mod decimal;
mod faults;
mod history;
mod mass;
mod node;
mod random;
mod session;
mod trial;
mod world;

pub use client::{Answer, Client};
pub use damage::{Damage, FileKind, copy_folder, cut_off_groups, files_of};
pub use data::{package, python, schemathesis, shared_data};
pub use decimal::{micro, micro_of};
pub use faults::{Clock, limited, syncs};
pub use history::History;
pub use mass::Mass;
pub use node::{Node, binary, ingest, memory_of, panicked};
pub use random::Random;
pub use trial::{Trial, damage_trial, golden, rot_trial};
pub use world::World;
