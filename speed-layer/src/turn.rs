//! Whether a worker feeds its log partition. Pure.
//!
//! A log partition that goes to another node, because that one is back, goes on being fed here until the
//! other feeds it, however long that takes: it may have to open its index and read for a long time first. Two that feed at once do
//! no harm, since view partitions compare and apply. Who lingers takes more time, so that the other is
//! first as soon as it can be, and knows from being refused that it was.

use sanso_catalog::Share;

/// What a worker does for view partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Nothing; it keeps its index.
    #[default]
    Follows,
    /// It feeds them.
    Feeds,
    /// It feeds them until another does.
    Lingers,
}

impl Turn {
    /// Returns what to do now that the worker has this share.
    pub fn with(self, share: Option<Share>) -> Self {
        match (share, self) {
            (Some(Share::Feeds), _) => Self::Feeds,
            (_, Self::Feeds | Self::Lingers) => Self::Lingers,
            (_, Self::Follows) => Self::Follows,
        }
    }

    /// Returns what to do after a view partition has refused a delta: another had applied it.
    pub fn refused(self) -> Self {
        if self == Self::Lingers { Self::Follows } else { self }
    }

    /// Returns since when records are gathered before they are sent: since the ones before were, so that a
    /// single one goes at once, or since the first of them came.
    pub fn gathers_since<T>(self, flushed: T, came: T) -> T {
        if self == Self::Lingers { came } else { flushed }
    }

    /// Says whether it feeds.
    pub fn feeds(self) -> bool {
        self != Self::Follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fed_goes_on_until_refused_and_who_did_not_does_not_begin() {
        let (feeds, follows) = (Some(Share::Feeds), Some(Share::Follows));
        assert_eq!(Turn::Follows.with(follows), Turn::Follows);
        let fed = Turn::Follows.with(feeds);
        assert_eq!((fed, fed.refused()), (Turn::Feeds, Turn::Feeds));
        let lingers = fed.with(follows);
        assert_eq!((lingers, lingers.feeds()), (Turn::Lingers, true));
        assert_eq!((lingers.with(follows), lingers.with(None), fed.with(None)), (lingers, lingers, lingers));
        assert_eq!(Turn::Follows.with(None), Turn::Follows);
        assert_eq!((lingers.refused(), lingers.refused().feeds()), (Turn::Follows, false));
        assert_eq!((lingers.with(feeds), lingers.refused().with(follows)), (Turn::Feeds, Turn::Follows));
    }
}
