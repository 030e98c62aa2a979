//! The file of a block: a head, then an Arrow IPC stream, compressed by LZ4.
//!
//! ```text
//!   "SANSOBK1" │ BLAKE3 of (block's name, stream): 32 bytes │ stream
//! ```
//!
//! The checksum covers the name, so a file under another block's name is as bad as a torn one.
//! Nothing of the stream is looked at before its checksum was found right. It keeps damage out, not
//! somebody who may write into the folder: who makes a checksum for other rows has them believed.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use sanso_state::Fingerprint;

use crate::BlockId;

/// Raised when the format changes, so that older files are not taken for files of this one.
const MAGIC: &[u8; 8] = b"SANSOBK1";
const HEAD_BYTES: usize = MAGIC.len() + 32;

/// Writes the batches of a block, of one schema, as bytes.
pub(crate) fn encode(id: BlockId, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let Some(first) = batches.first() else {
        return Err(ArrowError::InvalidArgumentError("a block without batches has no schema".to_owned()));
    };
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut stream = Vec::from([0; HEAD_BYTES]);
    let mut writer = StreamWriter::try_new_with_options(&mut stream, first.schema_ref(), options)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    drop(writer);
    let checksum = checksum(id, &stream[HEAD_BYTES..]);
    stream[..MAGIC.len()].copy_from_slice(MAGIC);
    stream[MAGIC.len()..HEAD_BYTES].copy_from_slice(checksum.as_bytes());
    Ok(stream)
}

/// Reads the batches of a block; says what is wrong with bytes that are not what was written.
pub(crate) fn decode(id: BlockId, bytes: &[u8]) -> Result<Vec<RecordBatch>, String> {
    let Some((head, stream)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Err(format!("it is torn after {} bytes", bytes.len()));
    };
    if &head[..MAGIC.len()] != MAGIC {
        return Err("it does not begin as a block does".to_owned());
    }
    if &head[MAGIC.len()..] != checksum(id, stream).as_bytes() {
        return Err("its checksum is another".to_owned());
    }
    let read = || StreamReader::try_new(stream, None)?.collect::<Result<Vec<_>, _>>();
    read().map_err(|error| format!("it holds no record batches: {error}"))
}

fn checksum(id: BlockId, stream: &[u8]) -> Fingerprint {
    Fingerprint::builder().part(id.0.as_bytes()).part(stream).finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> BlockId {
        BlockId(Fingerprint::of(&[n]))
    }

    fn batches() -> Vec<RecordBatch> {
        let batch = |from: i64| {
            let numbers: ArrayRef =
                Arc::new(Int64Array::from_iter((from..from + 50).map(|n| (n % 3 > 0).then_some(n))));
            let texts: ArrayRef =
                Arc::new(StringArray::from_iter_values((0..50).map(|n| format!("meter {n}"))));
            RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).expect("columns of one length")
        };
        vec![batch(0), batch(70).slice(3, 20)]
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let bytes = encode(id(1), &batches()).expect("encode");
        assert_eq!(decode(id(1), &bytes).expect("decode"), batches());
        assert!(decode(id(2), &bytes).is_err(), "of another block");
        assert!(encode(id(1), &[]).is_err(), "no schema");
    }

    #[test]
    fn a_file_cut_short_anywhere_is_none() {
        let bytes = encode(id(1), &batches()).expect("encode");
        for length in 0..bytes.len() {
            assert!(decode(id(1), &bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
    }

    proptest! {
        #[test]
        fn a_file_with_any_bit_flipped_is_none(place in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = encode(id(1), &batches()).expect("encode");
            *place.get_mut(&mut bytes) ^= 1u8 << bit;
            prop_assert!(decode(id(1), &bytes).is_err());
        }

        #[test]
        fn bytes_that_are_no_block_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), begins: bool) {
            let mut bytes = bytes;
            if begins {
                bytes.splice(..MAGIC.len().min(bytes.len()), *MAGIC);
            }
            prop_assert!(decode(id(1), &bytes).is_err());
        }
    }
}
