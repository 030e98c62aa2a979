//! What the bytes of a log file hold, without a log around them: for tests from outside. Pure.

use super::frame::{Frame, HEADER_BYTES, Kind, check_header, decode, encode_header};
use super::scan::{Ending, scan};

/// A file as a start would find it.
#[derive(Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Each record's position in the file, key and payload, from the file's first offset on.
    pub records: Vec<InspectedRecord>,
    /// Bytes that are whole; a start cuts the file back to them.
    pub len: usize,
    /// Whether a write behind them was never finished.
    pub is_torn: bool,
    /// Whether a footer is behind them: nothing more is written to the file.
    pub is_complete: bool,
    /// Offsets and positions from which records are found.
    pub index: Vec<(u64, u32)>,
}

/// One record of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct InspectedRecord {
    /// The byte of the file at which its frame begins.
    pub position: usize,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Makes the header of a file of partition 0.
pub fn header(topic: &str, base: u64) -> [u8; HEADER_BYTES] {
    encode_header(topic, 0, base)
}

/// Reads a file of partition 0 whose first offset is `base`; an error says what is damaged.
pub fn inspect(bytes: &[u8], topic: &str, base: u64) -> Result<Inspected, String> {
    check_header(bytes, topic, 0, base)?;
    let found = scan(bytes, base).map_err(|damage| format!("byte {}: {}", damage.position, damage.what))?;
    let mut records = Vec::new();
    let mut position = HEADER_BYTES;
    while position < found.len {
        let frame: Frame = decode(&bytes[position..]).map_err(|flaw| format!("byte {position}: {flaw}"))?;
        let text = |range: &std::ops::Range<usize>| bytes[position..][range.clone()].to_vec();
        if matches!(frame.kind, Kind::Keyed | Kind::Unkeyed) {
            let key = (frame.kind == Kind::Keyed).then(|| text(&frame.key));
            records.push(InspectedRecord { position, key, payload: text(&frame.payload) });
        }
        position += frame.len;
    }
    Ok(Inspected {
        records,
        len: found.len,
        is_torn: matches!(found.ending, Ending::Torn(_)),
        is_complete: found.ending == Ending::Footer,
        index: found.index.0,
    })
}
