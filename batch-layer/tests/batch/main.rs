//! The batch layer from outside: a log in memory, a dataset, view partitions, and the oracle.

mod adoption;
mod advance;
mod blocks;
mod crash;
mod exchange;
mod fleet;
mod law;
mod rerun;
mod support;
mod tasks;
mod tools;
mod wire;
