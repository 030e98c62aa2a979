//! An S3 server for tests, and a network in front of it that fails when it is told to.
//!
//! ```text
//!   test ──▶ proxy on a free loopback port ──▶ moto (deploy/setup/install.sh test)
//!              decides the fate of each request: forwarded, refused, its answer lost, …
//! ```
//!
//! What is stored lives in the server's memory and is gone with the [`Bucket`], or with the test.
//! moto honours conditional writes, and asks for no particular credentials.
//!
//! Where moto can't be had, [`available`] says so; with `CI` set that is a failure.

mod available;
mod bucket;
mod proxy;

pub use available::available;
pub use bucket::Bucket;
pub use proxy::{Fate, Request};
