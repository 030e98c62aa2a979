//! Tables of text for a terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use anyhow::Context;

/// How the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Lays rows out below a head.
pub(crate) fn table<const N: usize>(head: [(&str, Align); N], rows: Vec<[String; N]>) -> String {
    let names = head.map(|(name, _)| name.to_owned());
    let rows: Vec<[String; N]> = std::iter::once(names).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(head) {
            let gap = if line.is_empty() { "" } else { "  " };
            // Writing to a string does not fail.
            let _ = match align {
                Align::Left => write!(line, "{gap}{cell:<width$}"),
                Align::Right => write!(line, "{gap}{cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Writes a number of bytes; in larger units from one of them on.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = count as f64;
    let mut unit = "bytes";
    for larger in UNITS {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, larger);
    }
    if unit == "bytes" { format!("{count} bytes") } else { format!("{amount:.1} {unit}") }
}

/// Writes a time, given in milliseconds, in the units that a person would use.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{:.1} s", ms as f64 / 1e3),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// Prints text; a pager or `head` that has seen enough is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("print the answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![["a".to_owned(), "10".to_owned()], ["long".to_owned(), "7".to_owned()]];
        let text = table([("NAME", Align::Left), ("N", Align::Right)], rows);
        assert_eq!(text, "NAME   N\na     10\nlong   7\n");
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_of_which_there_is_one() {
        let told = [0, 1023, 1024, 1536, 1 << 20, 5 << 30].map(bytes);
        assert_eq!(told, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB"]);
    }

    #[test]
    fn times_are_told_in_the_units_that_a_person_would_use() {
        let told = [0, 999, 1_250, 59_900, 61_000, 3_600_000, 7_384_000].map(span);
        assert_eq!(told, ["0 ms", "999 ms", "1.2 s", "59.9 s", "1 min 1 s", "1 h 0 min", "2 h 3 min"]);
    }
}
