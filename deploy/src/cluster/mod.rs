//! Nodes, alone or of a cluster, and the commands for operating one.

mod admin;
mod applications;
mod blocks;
mod command;
mod driver;
mod file;
mod member;
mod published;
mod questions;
mod rollout;
mod shares;
mod spilling;
mod tasks;

pub(crate) use command::{ClusterArgs, NodeArgs, run, run_node};
pub(crate) use file::NodeFile;
pub(crate) use member::Member;
