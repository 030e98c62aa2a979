//! Who is there: made by the one that connects, judged by the other. Pure.

use std::fmt;
use std::ops::RangeInclusive;

use sanso_core::cluster::{Incarnation, Instance, NodeId};

use crate::proto::Hello;

/// What a node says of itself, and what it wants to hear.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) me: Instance,
    pub(crate) cluster: String,
    pub(crate) versions: RangeInclusive<u32>,
}

/// Why a hello is refused; said to the other side in these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Cluster { mine: String, theirs: String },
    Myself(NodeId),
    Receiver { mine: NodeId, meant: u32 },
    Node(u32),
    Versions { mine: RangeInclusive<u32>, theirs: RangeInclusive<u32> },
}

impl Identity {
    /// Makes the hello to a node.
    pub(crate) fn hello(&self, to: NodeId) -> Hello {
        Hello {
            cluster: self.cluster.clone(),
            from: u32::from(self.me.node.0),
            incarnation: self.me.incarnation.0,
            to: u32::from(to.0),
            oldest_version: *self.versions.start(),
            newest_version: *self.versions.end(),
        }
    }

    /// Judges a hello: who it is, and the newest version that both speak.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<(Instance, u32), Mismatch> {
        if hello.cluster != self.cluster {
            // What a stranger sends is not repeated at length.
            let theirs = hello.cluster.chars().take(63).collect();
            return Err(Mismatch::Cluster { mine: self.cluster.clone(), theirs });
        }
        if hello.to != u32::from(self.me.node.0) {
            return Err(Mismatch::Receiver { mine: self.me.node, meant: hello.to });
        }
        let from = u16::try_from(hello.from).map_err(|_| Mismatch::Node(hello.from))?;
        if from == self.me.node.0 {
            return Err(Mismatch::Myself(self.me.node));
        }
        let theirs = hello.oldest_version..=hello.newest_version;
        let version = (*self.versions.end()).min(*theirs.end());
        if !self.versions.contains(&version) || !theirs.contains(&version) {
            return Err(Mismatch::Versions { mine: self.versions.clone(), theirs });
        }
        let instance = Instance { node: NodeId(from), incarnation: Incarnation(hello.incarnation) };
        Ok((instance, version))
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster { mine, theirs } => write!(f, "this is cluster {mine:?}, not {theirs:?}"),
            Self::Myself(node) => write!(f, "this is {node} itself: give each node a number of its own"),
            Self::Receiver { mine, meant } => {
                write!(f, "this is {mine}, not node {meant}: correct the address of node {meant}")
            }
            Self::Node(number) => write!(f, "{number} is no node's number: they go to 65535"),
            Self::Versions { mine, theirs } => write!(
                f,
                "this node speaks versions {} to {} of the wire, the other {} to {}: upgrade the older node",
                mine.start(),
                mine.end(),
                theirs.start(),
                theirs.end()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u16, versions: RangeInclusive<u32>) -> Identity {
        let me = Instance { node: NodeId(number), incarnation: Incarnation(7) };
        Identity { me, cluster: "town".into(), versions }
    }

    #[test]
    fn neighbouring_versions_agree_on_the_newest_that_both_speak() {
        let judged = |mine, theirs| {
            let (instance, version) = node(1, mine).judge(&node(2, theirs).hello(NodeId(1))).unwrap();
            assert_eq!(instance, node(2, 1..=1).me);
            version
        };
        assert_eq!(judged(2..=3, 1..=2), 2);
        assert_eq!(judged(2..=3, 3..=4), 3);
        assert_eq!(judged(1..=3, 2..=2), 2);
    }

    #[test]
    fn whoever_does_not_belong_is_told_why() {
        let me = node(1, 2..=3);
        let refused = |hello: Hello| me.judge(&hello).unwrap_err().to_string();
        let hello = node(2, 2..=3).hello(NodeId(1));
        let other = Hello { cluster: "village".into(), ..hello.clone() };
        assert_eq!(refused(other), r#"this is cluster "town", not "village""#);
        assert!(refused(Hello { to: 4, ..hello.clone() }).starts_with("this is node 1, not node 4"));
        assert!(refused(Hello { from: 1, ..hello.clone() }).contains("itself"));
        assert!(refused(Hello { from: 70_000, ..hello.clone() }).contains("no node's number"));
        let old = node(2, 1..=1).hello(NodeId(1));
        assert!(refused(old).starts_with("this node speaks versions 2 to 3 of the wire, the other 1 to 1"));
        let turned = Hello { oldest_version: 3, newest_version: 2, ..hello };
        assert!(refused(turned).contains("the other 3 to 2"));
    }
}
