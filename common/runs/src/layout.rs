//! The keys of a run: those of its groups, in their order.

use std::ops::Bound;

use sanso_state::{GroupId, Part};

/// What ends a key. A zero within is followed by another byte.
const END: [u8; 2] = [0, 0];
const ESCAPED: [u8; 2] = [0, 0xff];
const RUN: usize = size_of::<u64>();
const WINDOW: usize = size_of::<i64>();

/// Returns where a run begins; the next one's beginning is its end.
pub(crate) fn of_run(run: u64) -> Vec<u8> {
    run.to_be_bytes().to_vec()
}

/// Returns where a key of a run begins.
pub(crate) fn of_key(run: u64, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RUN + key.len() + END.len() + WINDOW);
    out.extend(run.to_be_bytes());
    for &byte in key {
        if byte == 0 { out.extend(ESCAPED) } else { out.push(byte) }
    }
    out.extend(END);
    out
}

/// Returns the key of a group.
pub(crate) fn of_group(run: u64, id: &GroupId) -> Vec<u8> {
    let mut out = of_key(run, &id.key);
    out.extend(ordered(id.window_start));
    out
}

/// Returns the first key that may be read, and the first that may not be.
pub(crate) fn of_part(run: u64, part: &Part<'_>) -> (Vec<u8>, Vec<u8>) {
    let Some(key) = part.key else { return (of_run(run), of_run(run + 1)) };
    let (mut from, mut to) = (of_key(run, key), of_key(run, key));
    match part.windows.0 {
        Bound::Included(start) => from.extend(ordered(start)),
        Bound::Excluded(start) => from.extend(ordered(start).into_iter().chain([0])),
        Bound::Unbounded => {}
    }
    match part.windows.1 {
        Bound::Included(start) => to.extend(ordered(start).into_iter().chain([0])),
        Bound::Excluded(start) => to.extend(ordered(start)),
        // Longer than any window.
        Bound::Unbounded => to.extend([0xff; WINDOW + 1]),
    }
    (from, to)
}

/// Takes the window off a group's key; what is left begins with its run. None for other bytes.
pub(crate) fn window_of(key: &[u8]) -> Option<(&[u8], i64)> {
    let (rest, window) = key.split_last_chunk::<WINDOW>()?;
    let start = (u64::from_be_bytes(*window) ^ (1 << 63)) as i64;
    (rest.len() >= RUN + END.len() && rest.ends_with(&END)).then_some((rest, start))
}

/// Returns the grouping key within what [`window_of`] leaves.
pub(crate) fn key_of(rest: &[u8]) -> Option<Box<[u8]>> {
    let escaped = rest.get(RUN..rest.len().checked_sub(END.len())?)?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        key.push(byte);
        if byte == 0 && bytes.next() != Some(&ESCAPED[1]) {
            return None;
        }
    }
    Some(key.into())
}

/// Returns where, of the key that `rest` is, a window begins.
pub(crate) fn at_window(rest: &[u8], start: i64) -> Vec<u8> {
    [rest, &ordered(start)].concat()
}

/// Returns what is behind all windows of the key that `rest` is.
pub(crate) fn behind_key(rest: &[u8]) -> Vec<u8> {
    [rest, &[0xff; WINDOW + 1]].concat()
}

fn ordered(start: i64) -> [u8; WINDOW] {
    (start as u64 ^ (1 << 63)).to_be_bytes()
}
