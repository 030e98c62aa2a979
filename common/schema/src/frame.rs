//! The framing of Confluent's serializers: `0 │ schema id, 4 bytes big-endian │ payload`.

use crate::Mismatch;

/// Splits a record into its schema's id and what the schema describes.
pub(crate) fn split(record: &[u8]) -> Result<(u32, &[u8]), Mismatch> {
    match record {
        [0, a, b, c, d, payload @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), payload)),
        [] => Err(Mismatch::new("the record is empty, expected a byte 0 and the id of a schema")),
        [0, ..] => Err(Mismatch::new(format!(
            "the record ends after {} bytes, within the id of its schema",
            record.len()
        ))),
        [first, ..] => Err(Mismatch::new(format!(
            "the record begins with byte {first:#04x}, expected 0x00 and the id of a schema"
        ))),
    }
}

/// Begins a record.
pub(crate) fn begin(id: u32) -> Vec<u8> {
    let mut record = vec![0];
    record.extend(id.to_be_bytes());
    record
}

/// Reads an unsigned varint of at most 64 bits from the front.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, Mismatch> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) =
            bytes.split_first().ok_or_else(|| Mismatch::new("the bytes end within a number"))?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Mismatch::new("a number has more than 64 bits"))
}

/// Reads a signed (zigzag) varint of at most 64 bits from the front.
pub(crate) fn take_zigzag(bytes: &mut &[u8]) -> Result<i64, Mismatch> {
    let raw = take_varint(bytes)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Writes a signed (zigzag) varint.
pub(crate) fn put_zigzag(value: i64, out: &mut Vec<u8>) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_framing_says_what_is_wrong() {
        let reason = |record: &[u8]| split(record).expect_err("no frame").to_string();
        assert!(reason(b"").contains("empty"));
        assert!(reason(b"{\"a\":1}").contains("0x7b"));
        assert!(reason(&[0, 0, 1]).contains("ends after 3 bytes"));
        assert_eq!(split(&[0, 0, 0, 1, 2, 9]).expect("a frame"), (258, &[9][..]));
    }

    #[test]
    fn numbers_of_every_length_come_back() {
        for value in [0, -1, 1, 63, -64, 64, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_zigzag(value, &mut bytes);
            assert_eq!(take_zigzag(&mut &bytes[..]).expect("a number"), value);
        }
        assert!(take_varint(&mut &[0xff; 11][..]).is_err());
        assert!(take_varint(&mut &[0x80][..]).is_err());
    }
}
