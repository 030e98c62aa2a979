//! The canonical encoding of groups, at rest and on the wire.
//!
//! ```text
//!   version │ kinds n │ n tags │ groups m │ m × (key length │ key │ window │ state)
//!   state = rows │ one encoding for each aggregate
//! ```
//!
//! Integers are LEB128 varints (signed ones in zigzag), shortest form only.
//! Groups, and the members of multisets, ascend. Equal groups are equal bytes
//! and the decoder refuses every other spelling, so encodings can be compared
//! in place of groups.
//!
//! Hostile bytes end in an error: memory grows only with bytes that were read.

use crate::aggregate::{AggregateKind, AggregateState};
use crate::group::{GroupId, GroupState};
use crate::groups::Groups;
use crate::run::{RunError, RunGroups};
use crate::value::Value;

/// The version byte of what this code writes, the only one it reads.
const FORMAT_VERSION: u8 = 1;

/// Bytes that are not an encoding of groups of the given aggregates.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of the format.
    #[error("unknown format version {0} of encoded groups (this program reads {FORMAT_VERSION})")]
    Version(u8),
    /// Written for other aggregates than the caller's.
    #[error("encoded groups hold the states of other aggregates")]
    Aggregates,
    /// Cut short, too long, or not what the encoder writes.
    #[error("broken encoding of groups at byte {at}: {what}")]
    Broken {
        /// The offset at which reading stopped.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

/// Encodes groups of the given aggregates.
pub fn encode_groups(kinds: &[AggregateKind], groups: &Groups) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + groups.len() * (48 + 16 * kinds.len()));
    write_header(&mut out, kinds);
    groups.write(&mut out);
    out
}

/// Decodes what [`encode_groups`] wrote for the same aggregates.
pub fn decode_groups(kinds: &[AggregateKind], bytes: &[u8]) -> Result<Groups, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.header(kinds)?;
    let groups = Groups::read(kinds, &mut reader)?;
    reader.end()?;
    Ok(groups)
}

/// Encodes the next of groups that come in order, until they take so many bytes or more; none where no more come. It is what
/// [`encode_groups`] makes of these.
pub fn encode_some(
    kinds: &[AggregateKind],
    groups: &mut RunGroups<'_>,
    bytes: usize,
) -> Result<Option<Vec<u8>>, RunError> {
    let (mut count, mut encoded) = (0, Vec::new());
    while encoded.len() < bytes.max(1) {
        let Some((id, state)) = groups.next().transpose()? else { break };
        write_group(&id, &state, &mut encoded);
        count += 1;
    }
    if count == 0 {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(16 + kinds.len() + encoded.len());
    write_header(&mut out, kinds);
    write_u64(&mut out, count);
    out.extend_from_slice(&encoded);
    Ok(Some(out))
}

/// Encodes named states of the given aggregates in the order they have.
pub fn encode_states(kinds: &[AggregateKind], states: &[(GroupId, GroupState)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + states.len() * (48 + 16 * kinds.len()));
    write_header(&mut out, kinds);
    write_u64(&mut out, states.len() as u64);
    states.iter().for_each(|(id, state)| write_group(id, state, &mut out));
    out
}

fn write_group(id: &GroupId, state: &GroupState, out: &mut Vec<u8>) {
    write_u64(out, id.key.len() as u64);
    out.extend_from_slice(&id.key);
    write_i64(out, id.window_start);
    state.write(out);
}

/// Decodes what [`encode_states`] wrote for the same aggregates.
pub fn decode_states(
    kinds: &[AggregateKind],
    bytes: &[u8],
) -> Result<Vec<(GroupId, GroupState)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.header(kinds)?;
    let mut states = Vec::new();
    for _ in 0..reader.u64()? {
        let length = reader.u64()?;
        let key = reader.bytes(length)?.into();
        let id = GroupId { key, window_start: reader.i64()? };
        states.push((id, GroupState::read(kinds, &mut reader)?));
    }
    reader.end()?;
    Ok(states)
}

impl GroupState {
    /// Encodes this state of the given aggregates, by itself.
    pub fn encode(&self, kinds: &[AggregateKind]) -> Vec<u8> {
        let mut out = Vec::new();
        write_header(&mut out, kinds);
        self.write(&mut out);
        out
    }

    /// Decodes what [`GroupState::encode`] wrote for the same aggregates.
    pub fn decode(kinds: &[AggregateKind], bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.header(kinds)?;
        let state = Self::read(kinds, &mut reader)?;
        reader.end()?;
        Ok(state)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_i64(out, self.rows);
        self.aggregates.iter().for_each(|state| state.write(out));
    }

    fn read(kinds: &[AggregateKind], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let rows = reader.i64()?;
        let aggregates = kinds.iter().map(|kind| AggregateState::read(kind, reader));
        Ok(Self { rows, aggregates: aggregates.collect::<Result<_, _>>()? })
    }
}

fn write_header(out: &mut Vec<u8>, kinds: &[AggregateKind]) {
    out.push(FORMAT_VERSION);
    write_u64(out, kinds.len() as u64);
    out.extend(kinds.iter().map(|kind| kind.zero().tag()));
}

/// Appends a varint.
pub(crate) fn write_u64(out: &mut Vec<u8>, value: u64) {
    write_u128(out, value.into());
}

/// Appends a zigzag varint.
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_i128(out, value.into());
}

/// Appends a zigzag varint.
pub(crate) fn write_i128(out: &mut Vec<u8>, value: i128) {
    write_u128(out, ((value << 1) ^ (value >> 127)) as u128);
}

fn write_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads an encoding from the front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// Creates the error for what was just read.
    pub(crate) fn broken(&self, what: &'static str) -> DecodeError {
        DecodeError::Broken { at: self.length - self.rest.len(), what }
    }

    fn header(&mut self, kinds: &[AggregateKind]) -> Result<(), DecodeError> {
        let [version] = self.array()?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::Version(version));
        }
        if self.u64()? != kinds.len() as u64 {
            return Err(DecodeError::Aggregates);
        }
        for kind in kinds {
            let [tag] = self.array()?;
            if tag != kind.zero().tag() {
                return Err(DecodeError::Aggregates);
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.broken("bytes are left over")) }
    }

    /// Reads the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or_else(|| self.broken("the bytes end early"))?;
        self.rest = tail;
        Ok(*head)
    }

    /// Reads so many bytes.
    pub(crate) fn bytes(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let split = usize::try_from(length).ok().and_then(|n| self.rest.split_at_checked(n));
        let (head, tail) = split.ok_or_else(|| self.broken("the bytes end early"))?;
        self.rest = tail;
        Ok(head)
    }

    /// Reads what [`write_u64`] wrote.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.u128()?.try_into().map_err(|_| self.broken("a number has more than 64 bits"))
    }

    /// Reads what [`write_i64`] wrote.
    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.i128()?.try_into().map_err(|_| self.broken("a number has more than 64 bits"))
    }

    /// Reads what [`write_i128`] wrote.
    pub(crate) fn i128(&mut self) -> Result<i128, DecodeError> {
        let zigzag = self.u128()?;
        Ok((zigzag >> 1) as i128 ^ -((zigzag & 1) as i128))
    }

    fn u128(&mut self) -> Result<u128, DecodeError> {
        let mut value = 0;
        for shift in (0..128).step_by(7) {
            let [byte] = self.array()?;
            let bits = u128::from(byte & 0x7f);
            value |= bits << shift;
            if bits << shift >> shift != bits {
                break;
            }
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.broken("a number is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.broken("a number has more than 128 bits"))
    }

    /// Reads what [`Value::encode_ordered`] wrote.
    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        Value::decode_ordered(&mut self.rest).map_err(|_| self.broken("a value is broken"))
    }
}
