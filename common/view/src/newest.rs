//! The newest rule, one implementation for both layers (DESIGN §4).
//!
//! The highest version wins, then the lowest offset. Records are met in offset
//! order, so the record known is always the one with the lower offset.

/// What a record is to the newest one known of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The first of its identity: add it.
    New,
    /// A higher version: retract the known record and add this one.
    Correction,
    /// The known record again: nothing changes.
    Duplicate,
    /// The known version with other content: quarantine it.
    Conflict,
    /// A lower version: kept in the master dataset only.
    Stale,
}

/// The newest record known of an identity as of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its version.
    pub version: i64,
    /// Its content, by [`crate::Source::contents`].
    pub content: &'a [u8],
}

/// Judges a record against the newest known before it.
///
/// A source without versions passes the offset as `version`. Content includes
/// the version column where there is one, so equal content means the same
/// version, or a source without versions: either way a duplicate.
pub fn judge(known: Option<Known<'_>>, version: i64, content: &[u8]) -> Verdict {
    match known {
        None => Verdict::New,
        Some(known) if content == known.content => Verdict::Duplicate,
        Some(known) if version < known.version => Verdict::Stale,
        Some(known) if version == known.version => Verdict::Conflict,
        Some(_) => Verdict::Correction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_version_wins_then_the_lowest_offset() {
        let known = || Some(Known { version: 5, content: b"a" });
        for (known, version, content, expected) in [
            (None, 5, b"a", Verdict::New),
            (known(), 5, b"a", Verdict::Duplicate),
            (known(), 5, b"b", Verdict::Conflict),
            (known(), 6, b"b", Verdict::Correction),
            (known(), 4, b"b", Verdict::Stale),
            // A source without versions: the version is the offset.
            (known(), 9, b"a", Verdict::Duplicate),
        ] {
            assert_eq!(judge(known, version, content), expected, "{version} {content:?}");
        }
    }
}
