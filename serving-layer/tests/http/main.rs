//! Drives the router in-process over real logs, view partitions and dataset files in memory.

mod cluster;
mod dataset;
mod greedy;
mod hostile;
mod ingest;
mod operations;
mod quarantine;
mod server;
mod sql;
mod stream;
mod views;
mod world;
