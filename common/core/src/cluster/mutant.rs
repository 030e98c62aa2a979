//! Rules broken on purpose, to see that the simulation notices. They can be
//! switched on in the test build only; elsewhere [`Mutants::has`] is `false`.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Messages of other epochs, and of others than the primary, are taken.
    NoFence,
    /// A write is acknowledged when most replicas in sync have it.
    MajorityAck,
    /// A learner is waited for only once it is admitted.
    GrowLate,
    /// A learner that is not admitted yet counts as a copy.
    PendingCounts,
    /// A learner is admitted without what the primary before may have acknowledged.
    EarlyAdmission,
    /// A silent replica is no longer waited for before control has removed it.
    ShrinkEarly,
    /// A backup shows what is not committed yet.
    DirtyRead,
    /// A restarted node counts as in sync still.
    RestartInSync,
    /// A node acts on a map that names an earlier life of it.
    AnyIncarnation,
    /// Suspicion removes the last holders but one.
    NoFloor,
    /// A learner may become primary.
    UncleanPromotion,
    /// An admission is taken whatever has changed since it was proposed.
    AnyVersion,
    /// A node that holds a partition again counts as having what it held before.
    AnyTenure,
    /// A node takes older maps.
    OlderMap,
    /// A heartbeat proves life though it echoes nothing.
    OneWay,
}

/// The rule that is broken, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mutants(#[cfg(test)] pub(crate) Option<Mutant>);

impl Mutants {
    /// Says whether this rule is broken.
    #[cfg(test)]
    pub(crate) fn has(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    /// Says whether this rule is broken: never.
    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the test build looks")]
    pub(crate) fn has(self, _: Mutant) -> bool {
        false
    }
}
