//! The store of blocks, by its decisions and on real disks.

mod decisions;
mod disks;
mod store;
mod support;
