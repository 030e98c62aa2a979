//! The bytes of a log file: a header, then frames. Pure.
//!
//! ```text
//!   file   = header frame*                          all integers little endian
//!   header = "SANSOLOG" version:u32 partition:u32 base:u64 topic:u32 crc:u32
//!   frame  = len:u32 crc:u32 body                   len = bytes of body, crc over len and body
//!   body   = back:u32 kind:u8 offset:u64 append_time_us:i64 key_len:u32 key payload
//! ```
//!
//! `back` is what lets recovery tell a torn end from damage: everything in the file below the
//! frame's own position minus `back` was durable before the frame was written. So a bad place with
//! a whole frame after it that vouches for that place is damage; a bad place that no later frame
//! vouches for is a write that never finished, and was never acknowledged.

use std::ops::Range;

/// Bytes before the first frame.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes of a frame without key and payload.
pub(super) const FRAME_BYTES: usize = PREFIX_BYTES + FIXED_BYTES;
/// Bytes at the end of a complete file; see [`encode_footer`].
pub(super) const TRAILER_BYTES: usize = 20;

const PREFIX_BYTES: usize = 8;
const FIXED_BYTES: usize = 25;
const MAGIC: &[u8; 8] = b"SANSOLOG";
const VERSION: u32 = 1;
const INDEX_ENTRY_BYTES: usize = 12;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record with a key.
    Keyed = 1,
    /// A record without a key.
    Unkeyed = 2,
    /// No record: says that everything before it is durable. Has neither key nor payload.
    Seal = 3,
    /// The last frame of a complete file, with its index.
    Footer = 4,
}

/// One whole frame; ranges are within the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) back: u32,
    /// The record's offset, or that of the next record where the frame holds none.
    pub(super) offset: u64,
    pub(super) append_time_us: i64,
    pub(super) key: Range<usize>,
    pub(super) payload: Range<usize>,
    /// Bytes of the whole frame.
    pub(super) len: usize,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The frame says that it has this many bytes, more than there are.
    Short(usize),
    /// No frame has this length.
    Length,
    /// The checksum differs.
    Checksum,
    /// The checksum fits but the content makes no sense.
    Content,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Short(_) => "a frame is cut off",
            Self::Length => "a frame has an impossible length",
            Self::Checksum => "a frame's checksum differs",
            Self::Content => "a frame's content makes no sense",
        })
    }
}

/// What [`encode`] writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    pub(super) kind: Kind,
    pub(super) back: u32,
    pub(super) offset: u64,
    pub(super) append_time_us: i64,
    pub(super) key: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Appends one frame to `out`.
pub(super) fn encode(out: &mut Vec<u8>, content: &Content<'_>) {
    let at = out.len();
    let len = FIXED_BYTES + content.key.len() + content.payload.len();
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&content.back.to_le_bytes());
    out.push(content.kind as u8);
    out.extend_from_slice(&content.offset.to_le_bytes());
    out.extend_from_slice(&content.append_time_us.to_le_bytes());
    out.extend_from_slice(&(content.key.len() as u32).to_le_bytes());
    out.extend_from_slice(content.key);
    out.extend_from_slice(content.payload);
    let crc = checksum(&out[at..]);
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Decodes and checks the frame at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, Flaw> {
    if bytes.len() < PREFIX_BYTES {
        return Err(Flaw::Short(PREFIX_BYTES));
    }
    let body = u32_at(bytes, 0) as usize;
    if body < FIXED_BYTES {
        return Err(Flaw::Length);
    }
    let len = PREFIX_BYTES + body;
    if bytes.len() < len {
        return Err(Flaw::Short(len));
    }
    let bytes = &bytes[..len];
    if checksum(bytes) != u32_at(bytes, 4) {
        return Err(Flaw::Checksum);
    }
    let kind = kind(bytes[12]).ok_or(Flaw::Content)?;
    let key_len = u32_at(bytes, 29) as usize;
    let key_end = FRAME_BYTES.checked_add(key_len).filter(|end| *end <= len);
    let key_end = key_end.ok_or(Flaw::Content)?;
    if kind == Kind::Seal && len > FRAME_BYTES {
        return Err(Flaw::Content);
    }
    Ok(Frame {
        kind,
        back: u32_at(bytes, 8),
        offset: u64_at(bytes, 13),
        append_time_us: u64_at(bytes, 21).cast_signed(),
        key: FRAME_BYTES..key_end,
        payload: key_end..len,
        len,
    })
}

/// Says cheaply whether a frame with an offset in `offsets` could start `bytes`, to search for one.
pub(super) fn plausible(bytes: &[u8], offsets: &Range<u64>) -> bool {
    bytes.len() >= FRAME_BYTES
        && kind(bytes[12]).is_some()
        && offsets.contains(&u64_at(bytes, 13))
        && (FIXED_BYTES..=bytes.len() - PREFIX_BYTES).contains(&(u32_at(bytes, 0) as usize))
}

/// Makes the header of a file.
pub(super) fn encode_header(topic: &str, partition: u32, base: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&partition.to_le_bytes());
    header[16..24].copy_from_slice(&base.to_le_bytes());
    header[24..28].copy_from_slice(&crc32c::crc32c(topic.as_bytes()).to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks that a file is the one that its place says, or tells what is wrong.
pub(super) fn check_header(bytes: &[u8], topic: &str, partition: u32, base: u64) -> Result<(), &'static str> {
    let expected = encode_header(topic, partition, base);
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err("the file is shorter than its header");
    };
    if &header[..8] != MAGIC {
        return Err("the file is not a log file");
    }
    if crc32c::crc32c(&header[..28]) != u32_at(header, 28) {
        return Err("the header's checksum differs");
    }
    if u32_at(header, 8) != VERSION {
        return Err("the file was written by another version of the format");
    }
    if header != expected {
        return Err("the file belongs to another topic, partition or offset");
    }
    Ok(())
}

/// Where frames are in a file: some offsets and the positions of their frames, both growing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index(pub(super) Vec<(u64, u32)>);

impl Index {
    /// Distance in bytes between entries.
    const STRIDE: u64 = 32 << 10;

    /// Notes a frame unless one close before it is noted.
    pub(super) fn note(&mut self, offset: u64, position: u64) {
        let due = self.0.last().is_none_or(|(_, last)| position >= u64::from(*last) + Self::STRIDE);
        // Files stay below 4 GiB; what is past that would only be found more slowly.
        if let (true, Ok(position)) = (due, u32::try_from(position)) {
            self.0.push((offset, position));
        }
    }

    /// Gives the noted frame from which `offset` is found by going forward.
    pub(super) fn before(&self, offset: u64, base: u64) -> (u64, u64) {
        let after = self.0.partition_point(|(noted, _)| *noted <= offset);
        match after.checked_sub(1).map(|i| self.0[i]) {
            Some((noted, position)) => (noted, u64::from(position)),
            None => (base, HEADER_BYTES as u64),
        }
    }
}

/// Appends the footer of a complete file that ends at offset `end`: the index, then a trailer
/// `end:u64 footer_position:u64 crc:u32` by which the footer is found from the file's end.
pub(super) fn encode_footer(out: &mut Vec<u8>, index: &Index, end: u64, position: u64, back: u32) {
    let mut payload = Vec::with_capacity(index.0.len() * INDEX_ENTRY_BYTES + TRAILER_BYTES);
    for (offset, position) in &index.0 {
        payload.extend_from_slice(&offset.to_le_bytes());
        payload.extend_from_slice(&position.to_le_bytes());
    }
    let trailer_at = payload.len();
    payload.extend_from_slice(&end.to_le_bytes());
    payload.extend_from_slice(&position.to_le_bytes());
    let crc = crc32c::crc32c(&payload[trailer_at..]);
    payload.extend_from_slice(&crc.to_le_bytes());
    let kind = Kind::Footer;
    let (offset, append_time_us, key) = (end, 0, &[][..]);
    encode(out, &Content { kind, back, offset, append_time_us, key, payload: &payload });
}

/// Reads the trailer of a complete file: its end offset and the position of its footer.
pub(super) fn decode_trailer(bytes: &[u8; TRAILER_BYTES]) -> Option<(u64, u64)> {
    let whole = crc32c::crc32c(&bytes[..16]) == u32_at(bytes, 16);
    whole.then(|| (u64_at(bytes, 0), u64_at(bytes, 8)))
}

/// Reads the index from a whole footer.
pub(super) fn decode_index(bytes: &[u8], footer: &Frame) -> Option<Index> {
    let payload = &bytes[footer.payload.clone()];
    let entries = &payload[..payload.len().checked_sub(TRAILER_BYTES)?];
    if footer.kind != Kind::Footer || !entries.len().is_multiple_of(INDEX_ENTRY_BYTES) {
        return None;
    }
    let entry = |bytes: &[u8]| (u64_at(bytes, 0), u32_at(bytes, 8));
    Some(Index(entries.chunks_exact(INDEX_ENTRY_BYTES).map(entry).collect()))
}

fn kind(byte: u8) -> Option<Kind> {
    [Kind::Keyed, Kind::Unkeyed, Kind::Seal, Kind::Footer].into_iter().find(|k| *k as u8 == byte)
}

/// Checksum of a whole frame: over all its bytes but the checksum's own.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
