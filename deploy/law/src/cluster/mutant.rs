//! Rules of the layers, broken on purpose to see that the simulation notices. They are broken in
//! the simulation's own drivers, so there is nothing to switch on in the product.

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Serving forgets what the caller has seen.
    SessionForgotten,
    /// A worker is not told of refusals, so it never reads again.
    RefusalIgnored,
    /// A refused delta is sent again as if it began where the view partition stands.
    DeltaMoved,
    /// A worker that begins to feed sends what its life before had under way once more.
    DeltaKept,
    /// The index answers with the newest version, whatever the offset that is asked for.
    IndexLatest,
    /// A block says that it goes less far than it does.
    BlockBeyondCut,
    /// A view partition that is missing is made empty, and said to stand on the newest version.
    MadeEmpty,
    /// A view partition that has not reached a cut is made anew from the version before.
    MadeOlder,
    /// What a version adds to the one before is added to whatever version is there.
    ExtensionMoved,
    /// The dataset takes a second version of one number.
    VersionTwice,
    /// A writer that doesn't hear a primary asks nobody else.
    NoDetour,
    /// The log acknowledges what a loss of power takes away.
    LogLosesEnd,
}

/// All of them.
pub const MUTANTS: [Mutant; 12] = [
    Mutant::SessionForgotten,
    Mutant::RefusalIgnored,
    Mutant::DeltaMoved,
    Mutant::DeltaKept,
    Mutant::IndexLatest,
    Mutant::BlockBeyondCut,
    Mutant::MadeEmpty,
    Mutant::MadeOlder,
    Mutant::ExtensionMoved,
    Mutant::VersionTwice,
    Mutant::NoDetour,
    Mutant::LogLosesEnd,
];
