//! CSV files, described by a mapping.
//!
//! The first pass looks at the header and at the last line: a last line without
//! a line end that isn't whole means that the file was cut. One that looks whole
//! might still have lost its last digits and is refused alone. In the second
//! pass each row is used whole or not at all.

mod columns;
mod mapping;
mod row;
#[cfg(test)]
mod tests;

pub use mapping::{Mapping, MappingError};

use crate::ReadOptions;
use crate::event::{FileError, Outlet, Place};
use crate::input::{Fields, Input, Line};
use columns::Columns;
use row::Rows;

const REMEDY: &str = "correct the row, or the mapping if it describes the column wrongly";

/// Reads a CSV file as its mapping says.
pub(crate) fn read(
    input: &Input<'_>,
    mapping: &Mapping,
    options: &ReadOptions,
    outlet: &mut Outlet<'_>,
) -> Result<(), FileError> {
    outlet.summary.mapping = Some(mapping.name().to_owned());
    let (columns, unterminated) = check(input, mapping)?;
    let mut rows = Rows::new(mapping, &columns, options);
    let mut lines = input.lines()?;
    let mut fields = Fields::default();
    let mut seen_header = false;
    while let Some(line) = lines.next()? {
        if line.is_blank() {
            continue;
        }
        if !seen_header {
            seen_header = true;
            continue;
        }
        let place = Place::Line(line.number);
        let text = match line.text().and_then(|text| fields.split(text, mapping.delimiter()).map(|()| text)) {
            Ok(text) => text,
            Err(reason) => {
                outlet.refuse(place, &String::from_utf8_lossy(line.bytes), reason.into(), REMEDY)?;
                continue;
            }
        };
        if unterminated == Some(line.number) {
            let reason = "the last line has no line end, so its last digits may be missing";
            outlet.refuse(
                place,
                text,
                reason.into(),
                "if the file is whole, add a line end and read it again",
            )?;
            continue;
        }
        match rows.parse(&fields) {
            Ok(()) => rows.emit(outlet)?,
            Err(reason) => outlet.refuse(place, text, reason, REMEDY)?,
        }
    }
    Ok(())
}

/// The first pass: finds the columns, and the number of a last line that lacks
/// its line end but is otherwise whole.
fn check(input: &Input<'_>, mapping: &Mapping) -> Result<(Columns, Option<u64>), FileError> {
    let mut lines = input.lines()?;
    let mut fields = Fields::default();
    let mut columns = None;
    let mut unterminated = None;
    while let Some(line) = lines.next()? {
        if line.is_blank() {
            continue;
        }
        let place = Place::Line(line.number);
        let Some(columns) = &columns else {
            let split = line.text().and_then(|text| fields.split(text, mapping.delimiter()));
            split.map_err(|reason| input.broken(place, reason))?;
            let found = Columns::find(mapping, &fields);
            columns = Some(found.map_err(|reason| {
                let remedy = "use the mapping that describes this header";
                input.broken_with(place, format!("mapping '{}': {reason}", mapping.name()), remedy)
            })?);
            continue;
        };
        if !line.terminated {
            if is_cut(&line, &mut fields, mapping, columns) {
                return Err(input.broken(place, "the file was cut: its last line is not whole"));
            }
            unterminated = Some(line.number);
        }
    }
    let columns = columns.ok_or_else(|| input.broken(Place::File, "there is no header line"))?;
    Ok((columns, unterminated))
}

/// Says whether a last line lacks fields.
fn is_cut(line: &Line<'_>, fields: &mut Fields, mapping: &Mapping, columns: &Columns) -> bool {
    let split = line.text().and_then(|text| fields.split(text, mapping.delimiter()));
    split.is_err() || fields.len() < columns.width
}
