//! Messages cut into chunks, and put together again. Pure.
//!
//! ```text
//!   message │ part 0 │ part 1 │ … │ last │     each says how long the whole is
//! ```

use bytes::Bytes;

use crate::proto::Chunk;

/// The longest part: long enough to cost little, short enough to hold nobody up.
pub(crate) const PART_BYTES_MAX: usize = 256 << 10;
/// The longest encoded frame: a part and what is around it.
pub(crate) const FRAME_BYTES_MAX: usize = PART_BYTES_MAX + 1_024;

/// Cuts a message into its chunks; an empty one has one, too.
#[derive(Debug)]
pub(crate) struct Chunks {
    message_bytes: u64,
    left: Option<Bytes>,
}

impl Chunks {
    pub(crate) fn of(message: Bytes) -> Self {
        Self { message_bytes: message.len() as u64, left: Some(message) }
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let mut left = self.left.take()?;
        let part = left.split_to(left.len().min(PART_BYTES_MAX));
        if !left.is_empty() {
            self.left = Some(left);
        }
        Some(Chunk { message_bytes: self.message_bytes, part })
    }
}

/// Chunks that make no message: the stream they come on is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadChunk {
    #[error("a message of {bytes} bytes, for at most {bytes_max}")]
    TooLong { bytes: u64, bytes_max: usize },
    #[error("an empty part within a message")]
    Empty,
    #[error("a part that belongs to another message")]
    Mixed,
}

/// Puts messages together. It allocates what has arrived, never what was announced.
#[derive(Debug)]
pub(crate) struct Assembly {
    bytes_max: usize,
    message_bytes: u64,
    arrived: Vec<u8>,
}

impl Assembly {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, message_bytes: 0, arrived: Vec::new() }
    }

    /// Returns how many bytes a message that a chunk begins will take, unless the
    /// chunk is all of it.
    pub(crate) fn begins(&self, chunk: &Chunk) -> Option<usize> {
        let first = self.arrived.is_empty() && (chunk.part.len() as u64) < chunk.message_bytes;
        first.then(|| usize::try_from(chunk.message_bytes).unwrap_or(usize::MAX).min(self.bytes_max))
    }

    /// Takes the next chunk; returns the message that it completes.
    pub(crate) fn take(&mut self, chunk: Chunk) -> Result<Option<Bytes>, BadChunk> {
        let bytes = chunk.message_bytes;
        if bytes > self.bytes_max as u64 {
            return Err(BadChunk::TooLong { bytes, bytes_max: self.bytes_max });
        }
        if self.arrived.is_empty() {
            if chunk.part.len() as u64 == bytes {
                return Ok(Some(chunk.part));
            }
            self.message_bytes = bytes;
        }
        let arrived = (self.arrived.len() + chunk.part.len()) as u64;
        if bytes != self.message_bytes || arrived > bytes {
            return Err(BadChunk::Mixed);
        }
        if chunk.part.is_empty() {
            return Err(BadChunk::Empty);
        }
        self.arrived.extend_from_slice(&chunk.part);
        Ok((arrived == bytes).then(|| Bytes::from(std::mem::take(&mut self.arrived))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3 * PART_BYTES_MAX;

    fn message(bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn messages_of_every_length_come_out_as_they_went_in() {
        let mut assembly = Assembly::new(MAX);
        for bytes in [0, 1, PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, MAX] {
            let mut out = Vec::new();
            for chunk in Chunks::of(message(bytes)) {
                assert!(chunk.part.len() <= PART_BYTES_MAX);
                out.extend(assembly.take(chunk).unwrap());
            }
            assert_eq!(out, [message(bytes)], "{bytes} bytes");
        }
    }

    #[test]
    fn a_message_asks_for_room_once_and_only_if_it_has_to_wait_for_more() {
        let mut assembly = Assembly::new(MAX);
        let whole = Chunks::of(message(5)).next().unwrap();
        assert_eq!(assembly.begins(&whole), None);
        let mut chunks = Chunks::of(message(MAX));
        let first = chunks.next().unwrap();
        assert_eq!(assembly.begins(&first), Some(MAX));
        assembly.take(first).unwrap();
        assert_eq!(assembly.begins(&chunks.next().unwrap()), None);
    }

    #[test]
    fn chunks_that_make_no_message_are_refused_before_they_take_memory() {
        let part = |bytes: usize| Bytes::from(vec![1; bytes]);
        let taken = |chunks: Vec<Chunk>| {
            let mut assembly = Assembly::new(MAX);
            chunks.into_iter().map(|chunk| assembly.take(chunk)).find_map(Result::err)
        };
        let chunk = |message_bytes, bytes| Chunk { message_bytes, part: part(bytes) };
        let long = u64::MAX;
        assert_eq!(taken(vec![chunk(long, 1)]), Some(BadChunk::TooLong { bytes: long, bytes_max: MAX }));
        assert_eq!(taken(vec![chunk(10, 0)]), Some(BadChunk::Empty));
        assert_eq!(taken(vec![chunk(10, 11)]), Some(BadChunk::Mixed));
        assert_eq!(taken(vec![chunk(10, 4), chunk(9, 5)]), Some(BadChunk::Mixed));
        assert_eq!(taken(vec![chunk(10, 4), chunk(10, 7)]), Some(BadChunk::Mixed));
        assert_eq!(taken(vec![chunk(10, 4), chunk(10, 6)]), None);
    }
}
