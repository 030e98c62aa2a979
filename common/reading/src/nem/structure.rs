//! The first pass: is the file whole?
//!
//! A block that begins with a 100 record must end with a 900 record; otherwise
//! the file was cut. Customer downloads lack the 100 record (seen at two
//! retailers) and perhaps the 900; there the last line must at least be whole.

use crate::event::{FileError, Outlet, Place};
use crate::input::{Input, Line};

/// Where in a block the pass is.
enum Block {
    /// Before a block, or behind its 900.
    Outside,
    /// Inside one that began on a line.
    Inside { since: u64, header: bool, series: bool },
}

pub(super) fn check(input: &Input<'_>, outlet: &mut Outlet<'_>) -> Result<(), FileError> {
    let mut lines = input.lines()?;
    let mut block = Block::Outside;
    let (mut last, mut cut) = (0, false);
    while let Some(line) = lines.next()? {
        if line.is_blank() {
            continue;
        }
        (last, cut) = (line.number, !line.terminated);
        block = step(block, &line, outlet).map_err(|reason| input.broken(Place::Line(last), reason))?;
    }
    match block {
        Block::Inside { since, header: true, .. } => {
            let reason = format!("the file was cut: the block begun on line {since} has no 900 record");
            Err(input.broken(Place::Line(last), reason))
        }
        Block::Inside { .. } if cut => {
            let reason = "the file was cut: no 900 record, and the last line has no line end";
            Err(input.broken(Place::Line(last), reason))
        }
        Block::Inside { .. } => {
            outlet.warn("no 900 record: whether the end is missing cannot be told".into());
            Ok(())
        }
        Block::Outside => Ok(()),
    }
}

fn step(block: Block, line: &Line<'_>, outlet: &mut Outlet<'_>) -> Result<Block, String> {
    let kind = line.bytes.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let number = line.number;
    match (kind, block) {
        (b"100", Block::Inside { since, header: true, .. }) => {
            Err(format!("a second 100 record, but the block begun on line {since} has no 900 record"))
        }
        (b"100", _) => {
            let version = line.bytes.split(|byte| *byte == b',').nth(1).unwrap_or_default().trim_ascii();
            if matches!(version, b"NEM12" | b"NEM13") {
                return Ok(Block::Inside { since: number, header: true, series: false });
            }
            Err(format!(
                "version '{}' in the 100 record is not NEM12 or NEM13",
                String::from_utf8_lossy(version)
            ))
        }
        (b"900", _) => Ok(Block::Outside),
        (b"200" | b"250", Block::Inside { since, header, .. }) => {
            Ok(Block::Inside { since, header, series: true })
        }
        (b"200" | b"250", Block::Outside) => {
            outlet.warn("no 100 record: taken for a customer download".into());
            Ok(Block::Inside { since: number, header: false, series: true })
        }
        (b"300" | b"400" | b"500" | b"550", Block::Outside | Block::Inside { series: false, .. }) => {
            let kind = String::from_utf8_lossy(kind).into_owned();
            Err(format!("a {kind} record before any 200 or 250: the beginning of the file is missing"))
        }
        (_, block) => Ok(block),
    }
}
