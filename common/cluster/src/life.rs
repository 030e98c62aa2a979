//! Which life of a node this is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sanso_core::cluster::Incarnation;

/// Begins a new life of the node whose data is in `folder`: a larger number than all before, also
/// when the folder was lost, as long as the clock does not go back as well. It is on disk when this
/// returns.
pub(crate) fn begin(folder: &Path) -> io::Result<Incarnation> {
    let path = folder.join("incarnation");
    let before = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            let what = format!("{} does not hold a number: remove it", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let incarnation = now_us.max(before + 1);
    let fresh = folder.join("incarnation.new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{incarnation}")?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(Incarnation(incarnation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_later_than_all_before_whatever_the_clock_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = begin(folder.path()).expect("it can be written");
        let ahead = first.0 + 1_000_000_000_000;
        fs::write(folder.path().join("incarnation"), ahead.to_string()).expect("it can be written");
        assert_eq!(begin(folder.path()).expect("it can be written"), Incarnation(ahead + 1));
        assert_eq!(begin(folder.path()).expect("it can be written"), Incarnation(ahead + 2));
        fs::write(folder.path().join("incarnation"), "torn").expect("it can be written");
        assert!(begin(folder.path()).expect_err("it is no number").to_string().contains("remove it"));
    }
}
