//! What all of a node's connections share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Limits, PeerConfig};
use crate::error::PeerError;
use crate::filter::LinkFilter;
use crate::handler::Handler;
use crate::hello::Identity;
use crate::seats::Seats;
use crate::tls::Security;

/// Addresses whose last complaint is remembered; the table is begun anew beyond.
const STRANGERS_MAX: usize = 1_024;

/// What all of a node's connections share.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) security: Option<Security>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) filter: LinkFilter,
    pub(crate) seats: Seats,
    /// Room for messages being put together, in KiB.
    pub(crate) room: Semaphore,
    /// Places for connections that come in.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) closing: CancellationToken,
    /// Frames that held nothing that this version knows.
    pub(crate) frames_unknown: AtomicU64,
    told: Mutex<BTreeMap<IpAddr, String>>,
}

impl Shared {
    pub(crate) fn new(config: &PeerConfig, handler: Arc<dyn Handler>) -> Result<Self, PeerError> {
        let PeerConfig { me, cluster, versions, limits, tls, .. } = config;
        let security = tls.as_ref().map(|tls| Security::read(tls, cluster, me.node)).transpose()?;
        let seed = u64::from(me.node.0) ^ me.incarnation.0.rotate_left(16);
        Ok(Self {
            identity: Identity { me: *me, cluster: cluster.clone(), versions: versions.clone() },
            limits: *limits,
            security,
            handler,
            filter: LinkFilter::new(seed),
            seats: Seats::default(),
            room: Semaphore::new(limits.assembling_bytes_max.div_ceil(1 << 10)),
            places: Arc::new(Semaphore::new(limits.connections_max)),
            closing: CancellationToken::new(),
            frames_unknown: AtomicU64::new(0),
            told: Mutex::default(),
        })
    }

    /// Tells why somebody was turned away: once, until there is another reason.
    pub(crate) fn tell_stranger(&self, from: IpAddr, reason: &str) {
        let mut told = self.told.lock();
        if told.get(&from).is_some_and(|last| last == reason) {
            return;
        }
        if told.len() >= STRANGERS_MAX {
            told.clear();
        }
        told.insert(from, reason.to_owned());
        tracing::warn!(%from, reason, "a connection is refused");
    }
}
