//! The serving layer: HTTP answers that merge batch and speed, with their freshness.
//!
//! ```text
//!   GET /v1/views/…   ──▶ params ──▶ plan ──▶ fetch ──▶ finish ──▶ answer ──▶ JSON, Arrow
//!   GET …/stream      ──▶            plan ──▶ fetch ◀── changes of the view partitions
//!   POST /v1/query    ──▶ DataFusion ──▶ views (plan, fetch, finish), dataset (Parquet)
//!   GET /v1/quarantine/… ──▶ batch below the cut, speed from it on; POST …/replay ──▶ log
//!   GET /v1/status, sources, limits ──▶ what all nodes of the cluster say ([`NodeQuestions`])
//!   POST /v1/ingest/… ──▶ decode ──▶ partition by key ──▶ log ──▶ acknowledged
//! ```
//!
//! Entry point: [`ServingLayer`]. The pure parts are [`plan`], [`answer`],
//! [`params`], [`session`] and [`render`]; [`routes`] has one file for each endpoint.
//!
//! Promised:
//! - An answer for one view partition is exact for the offsets it names
//!   (`freshness.applied`); decimals keep every digit.
//! - With a session token no caller goes back in time, in any view of a source.
//! - What `POST /v1/ingest` acknowledges is in the log; what it refuses is not.
//! - Every request has a deadline, every queue a bound, shown on the board of
//!   limits; a caller that stops reading takes no more memory and is cut off.
//!
//! Not promised: that partitions of a view, or views of a query, stand at one
//! common prefix of the log. `freshness` says where each stands.

pub mod answer;
mod cluster;
mod config;
mod connection;
mod document;
mod ends;
mod error;
mod fetch;
mod finish;
#[doc(hidden)]
pub mod inspect;
mod json;
mod limits;
mod looks;
pub mod metrics;
mod nodes;
pub mod params;
pub mod plan;
pub mod problem;
mod quarantine;
mod readiness;
pub mod render;
pub mod routes;
mod service;
pub mod session;
mod sql;

pub use cluster::{Cluster, ClusterRefusal, Figure};
pub use config::ServingConfig;
pub use error::Error;
pub use nodes::NodeQuestions;
pub use service::{ServingContext, ServingLayer};
