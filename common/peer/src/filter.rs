//! A link filter for drills and tests: what a broken network does, without one.
//!
//! ```text
//!   send ─▶ [out: loss, cut] ─▶ queue ─▶ [delay, out: cut] ─▶ connection ─▶ [in: cut] ─▶ handler
//!   call ─▶ [out: cut] ─▶ [delay, loss: delay] ─▶ connection ─▶ [in: cut] ─▶ handler, and back
//! ```
//!
//! It works on whole messages, questions and answers, below the lanes and calls
//! and above the connection: a cut link swallows and resets nothing. Nor does it
//! let a break through: as long as it is cut either way, a peer that dies is
//! merely silent, and no connection is begun anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sanso_core::cluster::NodeId;
use tokio::sync::watch;
use tokio::time::sleep;

/// What the link to one peer suffers. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// Swallows what comes from the peer.
    pub cut_in: bool,
    /// Swallows what goes to the peer.
    pub cut_out: bool,
    /// Delays what goes to the peer, keeping its order.
    pub delay_ms: u64,
    /// Loses this fraction of what goes to the peer, 0 nothing, 1 everything: messages for good, as
    /// a full queue does; of questions and answers the first attempt, so that they are [`RESENT`] late.
    pub loss: f64,
}

/// After so long TCP sends again what was lost, where nothing follows that would tell it sooner
/// (`TCP_RTO_MIN` of Linux).
pub const RESENT: Duration = Duration::from_millis(200);

impl Link {
    fn is_cut(&self) -> bool {
        self.cut_in || self.cut_out
    }
}

/// The filter of a node's links. While nothing is set it costs one relaxed load a message.
#[derive(Debug)]
pub struct LinkFilter {
    is_on: AtomicBool,
    links: watch::Sender<BTreeMap<NodeId, Link>>,
    swallowed: watch::Sender<u64>,
    dice: Mutex<StdRng>,
}

impl LinkFilter {
    /// Makes a filter that lets everything through; the seed decides what is lost.
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        Self {
            is_on: AtomicBool::new(false),
            links: watch::Sender::default(),
            swallowed: watch::Sender::new(0),
            dice,
        }
    }

    /// Sets what the link to a peer suffers from now on; [`Link::default`] heals it.
    pub fn set(&self, peer: NodeId, link: Link) {
        self.links.send_modify(|links| {
            if link == Link::default() {
                links.remove(&peer);
            } else {
                links.insert(peer, link);
            }
            self.is_on.store(!links.is_empty(), Ordering::Relaxed);
        });
    }

    /// Heals all links.
    pub fn clear(&self) {
        self.links.send_modify(|links| {
            links.clear();
            self.is_on.store(false, Ordering::Relaxed);
        });
    }

    /// Returns what is set, by peer.
    pub fn links(&self) -> BTreeMap<NodeId, Link> {
        self.links.borrow().clone()
    }

    /// Returns what the link to a peer suffers, if anything.
    pub(crate) fn link(&self, peer: NodeId) -> Option<Link> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        self.links.borrow().get(&peer).copied()
    }

    /// Returns how many messages, questions and answers were swallowed since the start.
    pub fn swallowed(&self) -> watch::Receiver<u64> {
        self.swallowed.subscribe()
    }

    /// Says whether a message that sets out for a peer now is lost or swallowed.
    pub(crate) fn swallows_to(&self, peer: NodeId) -> bool {
        self.swallows(peer, |link| link.cut_out || self.loses(link))
    }

    /// Returns by how much a message to a peer is delayed, if it is.
    pub(crate) fn delay_to(&self, peer: NodeId) -> Option<Duration> {
        self.link(peer).filter(|link| link.delay_ms > 0).map(|link| Duration::from_millis(link.delay_ms))
    }

    /// Lets a question or an answer set out for a peer: late, or never.
    pub(crate) async fn pass_to(&self, peer: NodeId) {
        if self.is_cut_to(peer) {
            std::future::pending::<()>().await;
        }
        let Some(link) = self.link(peer) else { return };
        let again = if self.loses(&link) { RESENT } else { Duration::ZERO };
        sleep(Duration::from_millis(link.delay_ms) + again).await;
    }

    fn loses(&self, link: &Link) -> bool {
        link.loss > 0.0 && self.dice.lock().random_bool(link.loss.clamp(0.0, 1.0))
    }

    /// Says whether something that has been on its way to a peer is swallowed now.
    pub(crate) fn is_cut_to(&self, peer: NodeId) -> bool {
        self.swallows(peer, |link| link.cut_out)
    }

    /// Says whether something that comes from a peer now is swallowed.
    pub(crate) fn swallows_from(&self, peer: NodeId) -> bool {
        self.swallows(peer, |link| link.cut_in)
    }

    fn swallows(&self, peer: NodeId, swallows: impl FnOnce(&Link) -> bool) -> bool {
        let swallowed = self.link(peer).is_some_and(|link| swallows(&link));
        if swallowed {
            self.swallowed.send_modify(|count| *count += 1);
        }
        swallowed
    }

    /// Waits until the link to a peer is cut in neither direction.
    pub(crate) async fn passable(&self, peer: NodeId) {
        let mut links = self.links.subscribe();
        let whole = |links: &BTreeMap<NodeId, Link>| !links.get(&peer).is_some_and(Link::is_cut);
        // The sender is `self`, so it is there as long as this waits.
        let _ = links.wait_for(whole).await;
    }
}
