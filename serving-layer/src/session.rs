//! Session tokens: the offsets a caller has seen, so that it never goes back in time; pure.
//!
//! `v1` and, for each source, `.<name in hexadecimal>-<offset>-<offset>…` in
//! order of log partition. To callers it is opaque.

use std::collections::BTreeMap;

use sanso_state::Offset;

use crate::problem::Problem;

/// Longest token read.
const TOKEN_BYTES_MAX: usize = 65_536;

/// For each source the offsets seen, one for each log partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session(BTreeMap<String, Vec<Offset>>);

impl Session {
    /// Reads a token.
    pub fn parse(token: &str) -> Result<Self, Problem> {
        Self::parse_inner(token).ok_or_else(|| {
            Problem::parameter(
                "session",
                "the session token is not one of this server's",
                "pass freshness.session of an earlier answer as it was, or leave it out",
            )
        })
    }

    fn parse_inner(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        if token.len() > TOKEN_BYTES_MAX || parts.next() != Some("v1") {
            return None;
        }
        let mut seen = BTreeMap::new();
        for part in parts {
            let mut fields = part.split('-');
            let name = from_hex(fields.next()?)?;
            let offsets = fields.map(|field| u64::from_str_radix(field, 16).ok()).collect::<Option<_>>()?;
            seen.insert(name, offsets);
        }
        Some(Self(seen))
    }

    /// Adds what was seen of a source; per log partition the larger offset stays.
    pub fn see(&mut self, source: &str, offsets: &[Offset]) {
        let seen = self.0.entry(source.to_owned()).or_default();
        if seen.len() < offsets.len() {
            seen.resize(offsets.len(), 0);
        }
        seen.iter_mut().zip(offsets).for_each(|(mine, &theirs)| *mine = (*mine).max(theirs));
    }

    /// Returns the offsets seen of a source.
    pub fn seen(&self, source: &str) -> Option<&[Offset]> {
        self.0.get(source).map(Vec::as_slice)
    }

    /// Writes the token.
    pub fn token(&self) -> String {
        let mut out = "v1".to_owned();
        for (source, offsets) in &self.0 {
            out.push('.');
            source.bytes().for_each(|byte| push_hex(byte.into(), 2, &mut out));
            for &offset in offsets {
                out.push('-');
                push_hex(offset, 1, &mut out);
            }
        }
        out
    }
}

/// Writes a number in hexadecimal, with zeros in front where it has fewer digits.
fn push_hex(number: u64, digits_min: u32, out: &mut String) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(digits_min);
    let digit = |at: u32| char::from_digit((number >> (4 * at)) as u32 & 15, 16);
    out.extend((0..digits).rev().filter_map(digit));
}

fn from_hex(text: &str) -> Option<String> {
    if text.is_empty() || !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_again_what_was_seen() {
        let mut session = Session::default();
        session.see("readings", &[3, 500]);
        session.see("other", &[0]);
        session.see("readings", &[7, 20, u64::MAX]);
        assert_eq!(session.token(), "v1.6f74686572-0.72656164696e6773-7-1f4-ffffffffffffffff");
        let read = Session::parse(&session.token()).expect("own token");
        assert_eq!(read, session);
        assert_eq!(read.seen("readings"), Some(&[7, 500, u64::MAX][..]));
        assert_eq!(read.seen("unknown"), None);
    }

    #[test]
    fn a_broken_token_is_refused() {
        for token in ["", "v2", "v1.zz-1", "v1.72-x", "v1.7", "v1.é-1"] {
            assert!(Session::parse(token).is_err(), "{token}");
        }
    }
}
