//! Sanso as a target of drills: its processes, its application, its clients.

mod application;
mod cluster;
mod containers;
mod dev;
mod members;
mod node_file;
mod session;
mod surroundings;
mod token;

pub use application::Storage;
pub use cluster::{Cluster, Plan};
pub use containers::{Containers, NODES as CONTAINERS};
pub use dev::Dev;
