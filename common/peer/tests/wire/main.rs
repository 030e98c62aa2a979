//! The wire between two nodes on loopback: order, bounds, breaks, names.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod breaks;
mod calls;
mod filter;
mod hello;
mod lanes;
mod node;
mod raw;
mod relay;
mod tls;
