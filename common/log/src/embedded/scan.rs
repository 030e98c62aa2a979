//! Reads through the bytes of one log file and decides where it ends. Pure.

use super::frame::{FRAME_BYTES, Flaw, HEADER_BYTES, Index, Kind, decode, plausible};

/// What a scan found; everything before `len` is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) index: Index,
    /// Offset after the last record.
    pub(super) end: u64,
    /// Bytes that are whole, header included; without a footer.
    pub(super) len: usize,
    pub(super) ending: Ending,
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// After a record, or after the header.
    Open,
    /// After a seal: everything before is known to be durable.
    Sealed,
    /// With a footer: the file is complete.
    Footer,
    /// In the middle of a write that was never acknowledged.
    Torn(Flaw),
}

/// Damage: bytes that were durable once are not what was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) position: u64,
    pub(super) what: String,
}

/// Scans a file with a good header whose first offset is `base`.
pub(super) fn scan(bytes: &[u8], base: u64) -> Result<Scan, Damage> {
    let mut found = Scan { index: Index::default(), end: base, len: HEADER_BYTES, ending: Ending::Open };
    while found.len < bytes.len() {
        let position = found.len;
        let damage = |what: String| Err(Damage { position: position as u64, what });
        let frame = match decode(&bytes[position..]) {
            Ok(frame) => frame,
            Err(flaw) => {
                if let Some(later) = vouching_frame(bytes, position, found.end) {
                    return damage(format!(
                        "{flaw}, but the frame at byte {later} was written after it was durable"
                    ));
                }
                found.ending = Ending::Torn(flaw);
                return Ok(found);
            }
        };
        if frame.offset != found.end {
            return damage(format!("offset {} where {} belongs", frame.offset, found.end));
        }
        match frame.kind {
            Kind::Keyed | Kind::Unkeyed => {
                found.index.note(frame.offset, position as u64);
                found.end += 1;
                found.ending = Ending::Open;
            }
            Kind::Seal => found.ending = Ending::Sealed,
            Kind::Footer => {
                found.ending = Ending::Footer;
                if position + frame.len != bytes.len() {
                    return damage("bytes follow the footer of a complete file".to_owned());
                }
                return Ok(found);
            }
        }
        found.len += frame.len;
    }
    Ok(found)
}

/// Finds a whole frame after `bad` that was written when the bytes at `bad` were already durable.
fn vouching_frame(bytes: &[u8], bad: usize, next: u64) -> Option<usize> {
    let frames_max = ((bytes.len() - bad) / FRAME_BYTES) as u64;
    let offsets = next..next + frames_max + 1;
    (bad + 1..bytes.len()).find(|&position| {
        let rest = &bytes[position..];
        plausible(rest, &offsets)
            && decode(rest).is_ok_and(|frame| position.saturating_sub(frame.back as usize) > bad)
    })
}
