//! Files of the embedded log: what is whole stays so, and a start that cuts back loses nothing of it.

use sanso_log::inspect::{Inspected, header, inspect};

const TOPIC: &str = "readings";
/// The bytes of a frame before those that its length counts.
const PREFIX_BYTES: usize = 8;

/// A log file behind its header. The first byte's lowest bit says whether checksums are mended,
/// so that the fuzzer gets past them; the second is the first offset.
///
/// What a start cuts a torn file back to is a sound file, with the same records; and so is any
/// beginning of that, with records that are a beginning of its.
pub(crate) fn log_file(bytes: &[u8]) {
    let Some(file) = behind_header(bytes) else { return };
    let (choice, base) = (bytes[0], u64::from(bytes[1]));
    let Ok(found) = inspect(&file, TOPIC, base) else { return };
    check(&found, &file, base);
    let whole = &file[..found.len];
    let again = inspect(whole, TOPIC, base).expect("what is whole is sound");
    assert!(!again.is_torn && !again.is_complete);
    assert_eq!((&again.records, again.len), (&found.records, found.len));
    for cut in [found.len - 1, found.len / 2, usize::from(choice) * 4] {
        let beginning = &whole[..cut.clamp(header(TOPIC, base).len(), found.len)];
        match inspect(beginning, TOPIC, base) {
            Ok(cut) => assert_eq!(cut.records, found.records[..cut.records.len()]),
            Err(damage) => assert!(holds_frames(&found), "cut at {cut}: {damage}"),
        }
    }
}

/// Makes a file of what the fuzzer gives.
fn behind_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let [choice, base, frames @ ..] = bytes else { return None };
    let mut file = header(TOPIC, u64::from(*base)).to_vec();
    file.extend_from_slice(frames);
    if choice & 1 == 1 {
        mend(&mut file);
    }
    Some(file)
}

/// Says whether a record is long enough to hold a frame itself, which then can vouch for what is
/// before it: such a record, cut off, is taken for damage.
fn holds_frames(found: &Inspected) -> bool {
    let is_long = |bytes: &[u8]| bytes.len() > PREFIX_BYTES;
    found.records.iter().any(|record| record.key.as_deref().is_some_and(is_long) || is_long(&record.payload))
}

fn check(found: &Inspected, file: &[u8], base: u64) {
    assert!(found.len <= file.len());
    assert!(!(found.is_torn && found.is_complete));
    assert_eq!(found.len == file.len(), !found.is_torn && !found.is_complete);
    let mut positions = found.records.iter().map(|record| record.position);
    assert!(positions.clone().is_sorted_by(|one, next| one < next));
    assert!(positions.all(|position| position < found.len));
    for &(offset, position) in &found.index {
        let at = usize::try_from(offset - base).expect("few records");
        assert_eq!(found.records[at].position, usize::try_from(position).expect("a short file"));
    }
}

/// Gives each frame the checksum that it should have.
fn mend(file: &mut [u8]) {
    let mut at = header(TOPIC, 0).len();
    while let Some(prefix) = file.get(at..at + PREFIX_BYTES) {
        let body = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let end = usize::try_from(body).ok().and_then(|body| (at + PREFIX_BYTES).checked_add(body));
        let Some(end) = end.filter(|end| *end <= file.len()) else { return };
        let length = crc32c::crc32c(&file[at..at + 4]);
        let checksum = crc32c::crc32c_append(length, &file[at + PREFIX_BYTES..end]);
        file[at + 4..at + PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_begins_with_files_of_each_kind() {
        let seeds = crate::seeds("log_file");
        let read = |name: &str| {
            let seed = &seeds[name];
            let file = behind_header(seed).expect("a seed has its two bytes");
            inspect(&file, TOPIC, u64::from(seed[1])).map(|found| (found.records.len(), found.is_torn))
        };
        assert_eq!(read("sealed"), Ok((2, false)));
        assert_eq!(read("complete"), Ok((3, false)));
        assert_eq!(read("torn"), Ok((3, true)));
        for (damaged, reason) in [("damaged", "checksum differs"), ("vouched", "was durable")] {
            let error = read(damaged).expect_err(damaged);
            assert!(error.contains(reason), "{error}");
        }
    }
}
