//! Nodes of a cluster, and the commands for operating one.

mod admin;
mod applications;
mod blocks;
mod command;
mod file;
mod member;
mod published;
mod questions;
mod rollout;
mod tasks;

pub(crate) use command::{ClusterArgs, NodeArgs, run, run_node};
