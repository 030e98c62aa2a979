//! How a node's wire is set.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use sanso_core::cluster::{Instance, NodeId};

use crate::error::PeerError;

/// The versions of the wire that this build speaks. A node of the version before
/// or after it shares at least one, so that a cluster can be restarted node by node.
pub const VERSIONS: RangeInclusive<u32> = 1..=2;

/// A node's wire.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// This node, in this life: a restart takes a larger incarnation.
    pub me: Instance,
    /// The cluster's name: 1 to 63 of a-z, 0-9 and '-'. Nodes of another are refused.
    pub cluster: String,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the other nodes listen, as `host:port`. An entry for this node is passed over.
    pub addresses: BTreeMap<NodeId, String>,
    /// The cluster's certificates. Without them only loopback addresses are listened on.
    pub tls: Option<Tls>,
    /// Listens on any address without TLS: everybody who reaches it may speak for any node.
    pub insecure: bool,
    /// The versions spoken, both included; [`VERSIONS`] unless a test says otherwise.
    pub versions: RangeInclusive<u32>,
    /// Bounds on memory and time.
    pub limits: Limits,
}

impl PeerConfig {
    /// Sets everything but the peers' addresses to its default.
    pub fn new(cluster: impl Into<String>, me: Instance, listen: SocketAddr) -> Self {
        Self {
            me,
            cluster: cluster.into(),
            listen,
            addresses: BTreeMap::new(),
            tls: None,
            insecure: false,
            versions: VERSIONS,
            limits: Limits::default(),
        }
    }

    /// Checks what can be checked without a socket.
    pub(crate) fn check(&self) -> Result<(), PeerError> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &self.cluster;
        let ends = name.starts_with('-') || name.ends_with('-');
        if !(1..=63).contains(&name.len()) || !name.chars().all(letters) || ends {
            return Err(PeerError::ClusterName(name.clone()));
        }
        if self.tls.is_none() && !self.insecure && !self.listen.ip().is_loopback() {
            return Err(PeerError::Insecure(self.listen));
        }
        let (oldest, newest) = (*self.versions.start(), *self.versions.end());
        if oldest == 0 || oldest > newest {
            return Err(PeerError::Versions { oldest, newest });
        }
        self.limits.check()
    }
}

/// Files in PEM. The certificate is valid for `node-N.CLUSTER.sanso` (a DNS name
/// among its alternative names), or for `*.CLUSTER.sanso` if all nodes share one,
/// for servers and clients both.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The cluster's authority.
    pub ca: PathBuf,
    /// This node's certificate, then those between it and the authority, if any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Bounds on memory and time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages that may wait in one lane to one node.
    pub queue_messages_max: usize,
    /// Bytes that may wait in one lane to one node.
    pub queue_bytes_max: usize,
    /// The longest message of the beat lane.
    pub beat_bytes_max: usize,
    /// The longest message of the data lane.
    pub message_bytes_max: usize,
    /// Bytes of the messages that are being put together, of all nodes. A message
    /// beyond it waits with its sender.
    pub assembling_bytes_max: usize,
    /// The longest question and the longest answer of a call.
    pub call_bytes_max: usize,
    /// Questions of one node that may be under way.
    pub calls_max: u32,
    /// Connections that may be open to this node, of all nodes: each has three.
    pub connections_max: usize,
    /// How long connecting may take, and how long a connection may take to say whose it is.
    pub connect_ms_max: u64,
    /// The first pause before connecting again; doubled each time.
    pub backoff_ms_min: u64,
    /// The longest pause.
    pub backoff_ms_max: u64,
    /// A quiet connection is tried after so long.
    pub keep_alive_ms: u64,
    /// A connection that does not answer that within so long is closed.
    pub keep_alive_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_messages_max: 16_384,
            queue_bytes_max: 1 << 30,
            beat_bytes_max: 1 << 20,
            message_bytes_max: 1 << 30,
            assembling_bytes_max: 2 << 30,
            // A write may be a whole block, and an answer a whole view partition.
            call_bytes_max: 1 << 30,
            calls_max: 256,
            connections_max: 256,
            connect_ms_max: 1_000,
            backoff_ms_min: 20,
            backoff_ms_max: 500,
            keep_alive_ms: 500,
            keep_alive_timeout_ms: 2_000,
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), PeerError> {
        let wrong = |name, value: usize, wanted| Err(PeerError::Limit { name, value: value as u64, wanted });
        if self.queue_messages_max == 0 {
            return wrong("queue_messages_max", 0, "at least 1");
        }
        if self.queue_bytes_max < self.message_bytes_max {
            return wrong("queue_bytes_max", self.queue_bytes_max, "at least message_bytes_max");
        }
        if self.assembling_bytes_max < self.message_bytes_max || self.assembling_bytes_max > 1 << 40 {
            return wrong("assembling_bytes_max", self.assembling_bytes_max, "message_bytes_max to 1 TiB");
        }
        if self.call_bytes_max > 2 << 30 {
            return wrong("call_bytes_max", self.call_bytes_max, "at most 2 GiB");
        }
        if self.connections_max < 3 || self.connections_max > 100_000 {
            return wrong("connections_max", self.connections_max, "3 to 100,000");
        }
        let longest = self.backoff_ms_max as usize;
        if self.backoff_ms_min == 0 || self.backoff_ms_min > self.backoff_ms_max {
            return wrong("backoff_ms_max", longest, "at least backoff_ms_min, which is at least 1");
        }
        if self.connect_ms_max == 0 || self.keep_alive_ms == 0 || self.keep_alive_timeout_ms == 0 {
            return wrong("connect_ms_max, keep_alive_ms and keep_alive_timeout_ms", 0, "at least 1");
        }
        Ok(())
    }

    pub(crate) fn connect_within(&self) -> Duration {
        Duration::from_millis(self.connect_ms_max)
    }

    /// Returns the longest message of a lane.
    pub(crate) fn bytes_max(&self, lane: crate::Lane) -> usize {
        match lane {
            crate::Lane::Beat => self.beat_bytes_max,
            crate::Lane::Data => self.message_bytes_max,
        }
    }
}
