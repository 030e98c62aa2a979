//! The wire between the nodes of a cluster. It knows nodes, not what they say.
//!
//! ```text
//!                 beat  ─────────▶   heartbeats, maps      thread of its own
//!   node 1        data  ─────────▶   up to 1 GiB a message  the caller's runtime    node 2
//!                 call  ─────────▶   question ⇄ answer      the caller's runtime
//! ```
//!
//! Each node connects to each other node three times, so none of the three waits
//! for another; what comes back comes over the other node's own connections,
//! except answers. A connection begins with a hello (cluster, node, incarnation,
//! versions) and has the name that it says for as long as no later life of that
//! node has connected.
//!
//! **Promises.** Messages of a lane arrive in order, each at most once, and
//! never from an earlier life after a later one. Sending never waits. Every call
//! ends by its deadline. A peer whose process ends is told of at once, once.
//! Memory in flight is bounded ([`Limits`]).
//!
//! **Not promised.** That a message arrives: what waits is dropped when the
//! connection breaks or too much waits. That a call without an answer was not
//! executed, unless its error says so. Certificates are read at the start: a
//! renewed one needs a restart.

mod chunk;
mod config;
mod connection;
mod error;
mod filter;
mod handler;
mod hello;
mod inbound;
mod lane;
mod outbound;
mod outbox;
mod peer;
mod peers;
mod seats;
mod service;
mod shared;
mod tls;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; what it means is said in the .proto"
)]
#[allow(clippy::allow_attributes_without_reason, clippy::too_many_lines, reason = "generated")]
#[rustfmt::skip]
mod proto;

pub use config::{Limits, PeerConfig, Tls, VERSIONS};
pub use error::{CallError, Dropped, PeerError};
pub use filter::{Link, LinkFilter, RESENT};
pub use handler::{Handler, Refusal, Speaker};
pub use lane::Lane;
pub use peer::PeerStatus;
pub use peers::{Peers, Usage};
