//! A node that records what it hears.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sanso_core::cluster::{Incarnation, Instance, NodeId};
use sanso_peer::{Handler, Lane, Limits, PeerConfig, Peers, Refusal, Speaker};
use tokio::sync::mpsc;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a node heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Message(Speaker, Lane, Bytes),
    Broken(NodeId),
    /// A question of kind "wait" has come.
    Asked,
    /// It was dropped unanswered.
    GaveUp,
}

/// Answers "echo", "fail" and "wait", and stands still at messages that say so.
pub(crate) struct Recorder {
    events: mpsc::UnboundedSender<Event>,
    /// A message "stand still" waits for one of these.
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Recorder {
    /// Makes one whose events nobody hears.
    pub(crate) fn deaf() -> Self {
        let (events, _) = mpsc::unbounded_channel();
        Self { events, go_on: Mutex::new(std::sync::mpsc::channel().1) }
    }
}

struct GivesUp(mpsc::UnboundedSender<Event>);

impl Drop for GivesUp {
    fn drop(&mut self) {
        let _ = self.0.send(Event::GaveUp);
    }
}

#[async_trait]
impl Handler for Recorder {
    fn message(&self, from: Speaker, lane: Lane, bytes: Bytes) {
        let stands_still = bytes == "stand still";
        let _ = self.events.send(Event::Message(from, lane, bytes));
        if stands_still {
            let _ = self.go_on.lock().recv();
        }
    }

    fn broken(&self, node: NodeId) {
        let _ = self.events.send(Event::Broken(node));
    }

    async fn call(&self, from: Speaker, kind: &str, body: Bytes) -> Result<Bytes, Refusal> {
        match kind {
            "echo" => Ok(body),
            "who" => Ok(Bytes::from(from.instance.to_string())),
            "fail" => Err(Refusal::Failed("the disk is full".into())),
            "wait" => {
                let _ = self.events.send(Event::Asked);
                let _gives_up = GivesUp(self.events.clone());
                std::future::pending().await
            }
            _ => Err(Refusal::UnknownKind),
        }
    }
}

/// A node, and what it hears.
pub(crate) struct Node {
    pub(crate) peers: Peers,
    pub(crate) id: NodeId,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) go_on: std::sync::mpsc::Sender<()>,
}

/// Names a life of a node.
pub(crate) fn life(node: u16, incarnation: u64) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

/// Sets a node of cluster "town" on a free port of loopback, which gives up no node that is only slow.
pub(crate) fn config(node: u16, incarnation: u64) -> PeerConfig {
    let limits = Limits { connect_ms_max: 30_000, keep_alive_timeout_ms: 30_000, ..Limits::default() };
    PeerConfig { limits, ..PeerConfig::new("town", life(node, incarnation), ([127, 0, 0, 1], 0).into()) }
}

impl Node {
    /// Starts a node.
    pub(crate) fn start(config: PeerConfig) -> Self {
        let (events, heard) = mpsc::unbounded_channel();
        let (go_on, waits) = std::sync::mpsc::channel();
        let id = config.me.node;
        let handler = Arc::new(Recorder { events, go_on: Mutex::new(waits) });
        let peers = Peers::start(config, handler).expect("start a node");
        Self { peers, id, events: heard, go_on }
    }

    /// Tells this node where another is.
    pub(crate) fn knows(&self, other: &Self) {
        self.peers.set_address(other.id, other.peers.local_address().to_string());
    }

    /// Waits until this node is connected to another.
    pub(crate) async fn reaches(&self, other: &Self) {
        assert!(soon(self.peers.wait_for(other.id, |status| status.is_connected())).await);
    }

    /// Returns what is heard next.
    pub(crate) async fn hears(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the node lives")
    }

    /// Returns the next message's bytes.
    pub(crate) async fn hears_message(&mut self) -> Bytes {
        match self.hears().await {
            Event::Message(_, _, bytes) => bytes,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Sends a message that has to be taken.
    pub(crate) fn sends(&self, to: &Self, lane: Lane, message: impl Into<Bytes>) {
        self.peers.send(to.id, lane, message.into()).expect("the message is taken");
    }
}

/// Starts two nodes that are connected both ways.
pub(crate) async fn pair(one: PeerConfig, two: PeerConfig) -> (Node, Node) {
    let (one, two) = (Node::start(one), Node::start(two));
    one.knows(&two);
    two.knows(&one);
    one.reaches(&two).await;
    two.reaches(&one).await;
    (one, two)
}

/// Waits, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not take so long")
}
