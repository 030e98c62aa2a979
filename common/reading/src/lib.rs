//! Meter files in, canonical readings out.
//!
//! ```text
//! path ─► Input (opened once, gz, BOM) ─► detect ─► nem | espi | mscons | csv
//!           pass 1: is the file whole?            pass 2: records ─► Event ─► sink
//! ```
//!
//! Promises:
//! - A file that is cut or damaged as a whole gives one [`FileError`] and no
//!   reading. In a sound file a bad record is refused alone, with place, reason
//!   and remedy, and the rest goes on.
//! - Values are exact decimals; what `DECIMAL(18,6)` can't hold is refused, not rounded.
//! - Memory doesn't grow with the file. (MSCONS keeps eight bytes per series.)
//! - No input makes it panic.
//!
//! Not promised: that a file without an end mark (CSV, customer downloads of
//! NEM12) is complete; a cut at a line's end can't be seen there.

mod clock;
mod csv;
mod decimal;
mod detect;
mod espi;
mod event;
mod input;
mod mscons;
mod nem;
mod quality;
mod reading;
mod unit;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use chrono::{DateTime, Utc};

pub use crate::csv::{Mapping, MappingError};
pub use crate::decimal::{Decimal, DecimalError, PRECISION, SCALE};
pub use crate::event::{Event, FileError, FileSummary, Format, Place, QUOTE_MAX, Refused};
pub use crate::quality::Quality;
pub use crate::reading::Reading;
pub use crate::unit::Scaling;

use crate::event::Outlet;
use crate::input::Input;

/// How to read a file.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The format; found from the content when `None`.
    pub format: Option<Format>,
    /// The mapping for a file that is of no other format; found from the CSV
    /// header when `None`. With the format given as CSV it is used in any case.
    pub mapping: Option<Arc<Mapping>>,
    /// The caller's mappings to try on a CSV header, before the shipped ones.
    pub mappings: Vec<Arc<Mapping>>,
    /// The version of readings of formats whose files state none (CSV without a
    /// version column, ESPI without `updated`).
    pub source_version: Option<i64>,
    /// The only channels to hand out; all of them when empty. Readings of others
    /// are counted as ignored.
    pub channels: Vec<String>,
    /// Copied into every reading.
    pub received_at: Option<DateTime<Utc>>,
}

/// Reads a meter file, plain or gzipped, and pushes what it finds into the sink,
/// in file order. The sink may stop it with `ControlFlow::Break`.
///
/// # Errors
/// When the file can't be read, isn't recognised, or is damaged as a whole; in
/// all these cases nothing was pushed. [`FileError::Stopped`] when the sink stopped it.
pub fn read_file(
    path: &Path,
    options: &ReadOptions,
    sink: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<FileSummary, FileError> {
    read_file_watched(path, options, &Arc::default(), sink)
}

/// Reads as [`read_file`] does, and keeps in `position` how many bytes of the file have been read: the file is read
/// once to see that it is whole, and once more, from its beginning, while events are pushed.
///
/// # Errors
/// As [`read_file`].
pub fn read_file_watched(
    path: &Path,
    options: &ReadOptions,
    position: &Arc<AtomicU64>,
    mut sink: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<FileSummary, FileError> {
    read(&Input::open(path, Arc::clone(position))?, options, &mut sink)
}

/// Reads as [`read_file`] does, from memory; `name` stands for the file in
/// refusals and errors.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(
    name: &str,
    bytes: &[u8],
    options: &ReadOptions,
    mut sink: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<FileSummary, FileError> {
    read(&Input::of_bytes(name, bytes)?, options, &mut sink)
}

/// Reads a Green Button feed as [`read_bytes`] does, but each reading event by event and none
/// by the shape of those before it. The answer is the same, and later: for tests of that.
///
/// # Errors
/// As [`read_bytes`].
#[doc(hidden)]
pub fn read_espi_by_events(
    name: &str,
    bytes: &[u8],
    options: &ReadOptions,
    mut sink: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<FileSummary, FileError> {
    let input = Input::of_bytes(name, bytes)?;
    let mut outlet = Outlet::new(&input.name, Format::Espi, &options.channels, &mut sink);
    espi::read_by_events(&input, options, &mut outlet)?;
    Ok(outlet.finish())
}

fn read(
    input: &Input<'_>,
    options: &ReadOptions,
    sink: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<FileSummary, FileError> {
    let found = detect::detect(input, options)?;
    let mut outlet = Outlet::new(&input.name, found.format(), &options.channels, sink);
    match found {
        detect::Found::Nem => nem::read(input, options, &mut outlet)?,
        detect::Found::Espi => espi::read(input, options, &mut outlet)?,
        detect::Found::Mscons => mscons::read(input, options, &mut outlet)?,
        detect::Found::Csv(mapping) => csv::read(input, &mapping, options, &mut outlet)?,
    }
    Ok(outlet.finish())
}
