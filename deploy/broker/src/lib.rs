//! Apache Kafka, the real one, for tests and drills: one or three brokers in KRaft mode on free loopback ports.
//!
//! ```text
//!   jars (deploy/setup/install.sh kafka) ─▶ format ─▶ start ─▶ kill, stop, start again ─▶ dropped: gone
//! ```
//!
//! Every broker is controller too and listens four times: in plain text, with TLS and client
//! certificates, with SASL over TLS, and for the controllers. Data lies in a temporary folder and
//! is kept over kills and restarts. What is dropped is killed; should the test itself die, or keep
//! a cluster in a static, a guardian process ends the brokers and removes the folder.
//!
//! Where Kafka can't be had, [`available`] says so; with `CI` set that is a failure.

mod available;
mod cluster;
mod configuration;
mod credentials;
pub mod ports;
mod process;

pub use available::available;
pub use cluster::Cluster;
pub use credentials::{Credentials, PASSWORD, USER};
