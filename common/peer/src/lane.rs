//! The lanes, and the eight bytes with which a connection says which one it is.
//!
//! Each lane has a connection of its own, served by a thread of its own choice:
//! so whoever accepts has to know the lane before the first byte of TLS or
//! HTTP/2 is read. It also turns away whatever is not a node in eight bytes.

use std::fmt;

/// What a message travels on. Each lane keeps its own order; none waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent: heartbeats, maps. Runs on a thread of its own.
    Beat,
    /// Everything else, up to large blocks.
    Data,
}

/// A connection's purpose: a lane, or the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    Beat,
    Data,
    Call,
}

/// How long the announcement of a line is.
pub(crate) const PREFACE_BYTES: usize = 8;

impl Line {
    pub(crate) const ALL: [Self; 3] = [Self::Beat, Self::Data, Self::Call];

    /// Returns what a connection begins with.
    pub(crate) fn preface(self) -> &'static [u8; PREFACE_BYTES] {
        match self {
            Self::Beat => b"sanso1:b",
            Self::Data => b"sanso1:d",
            Self::Call => b"sanso1:c",
        }
    }

    /// Reads a connection's first bytes; none is known for what is no node's.
    pub(crate) fn announced_by(preface: &[u8; PREFACE_BYTES]) -> Option<Self> {
        Self::ALL.into_iter().find(|line| line.preface() == preface)
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Beat => 0,
            Self::Data => 1,
            Self::Call => 2,
        }
    }

    /// Returns the lane whose messages it carries; calls carry none.
    pub(crate) fn lane(self) -> Option<Lane> {
        match self {
            Self::Beat => Some(Lane::Beat),
            Self::Data => Some(Lane::Data),
            Self::Call => None,
        }
    }
}

impl From<Lane> for Line {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Beat => Self::Beat,
            Lane::Data => Self::Data,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beat => "beat",
            Self::Data => "data",
            Self::Call => "call",
        })
    }
}
